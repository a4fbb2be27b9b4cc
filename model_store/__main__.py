"""`python -m model_store` is `models`."""

from model_store.cli.main import main

main(prog_name="models")
