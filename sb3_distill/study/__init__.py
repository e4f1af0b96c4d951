"""Studies: many runs from one file with a grid of games, students, losses and seeds, and a report of the results."""
