"""Metrics and diagnostics of a trained model."""
