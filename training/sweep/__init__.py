"""Sweeps: many processes try settings of a job in one Optuna study, and the best ones train the model."""
