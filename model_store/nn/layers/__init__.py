"""The layers: each formula beside its derivative, on one screen."""
