"""Many runs from one file: grids of games, students, losses and seeds, and the report of their results."""
