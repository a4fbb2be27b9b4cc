"""Peers of the training benchmark, each in its own process and environment."""
