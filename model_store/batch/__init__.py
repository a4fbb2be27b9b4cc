"""Batch scoring: predictions for many files of any size, in this process, in many, or on a Dask cluster."""
