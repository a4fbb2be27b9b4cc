"""`python -m training` is `train`."""

from training.cli.main import main

main(prog_name="train")
