"""Fitting of the preprocessing: the statistics, offsets, scales, categories and fill values of a signature.

Everything is fitted on the training rows alone. Rows in memory and streamed rows are both described by
statistics of each column, from which `fit_signature` makes the signature.
"""
