"""Data sets larger than memory."""
