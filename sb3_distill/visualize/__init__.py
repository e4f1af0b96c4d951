"""Localization maps of students, and the papers' figures."""
