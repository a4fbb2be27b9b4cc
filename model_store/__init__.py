"""The model store: what a model is, and where its versions are kept."""
