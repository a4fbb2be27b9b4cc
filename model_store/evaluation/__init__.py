"""Evaluation records and their comparison."""
