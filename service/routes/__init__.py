"""Flask views. Each module has a `create_blueprint` function that takes what its views need."""
