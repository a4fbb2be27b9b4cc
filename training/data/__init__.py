"""Data files, type inference, preprocessing and splits."""
