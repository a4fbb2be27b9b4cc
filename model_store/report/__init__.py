"""The HTML report of a version: its training, metrics, errors and inputs on one page."""
