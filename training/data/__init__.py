"""Data files, type inference, preprocessing, splits and leakage checks."""
