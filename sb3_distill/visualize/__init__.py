"""What a student looks at, and how it compares: localization maps and figures."""
