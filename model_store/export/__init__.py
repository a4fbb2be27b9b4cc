"""Exports: a version of a model as files that another platform runs, checked before they are written."""
