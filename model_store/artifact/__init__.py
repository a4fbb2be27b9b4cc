"""The artifact: one .npz file that is a model."""
