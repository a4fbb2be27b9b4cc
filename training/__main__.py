"""`python -m training` is `train`."""

from training.cli import main

main(prog_name="train")
