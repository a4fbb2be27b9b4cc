"""Checks of the data before training: each returns notes, or raises DataError."""
