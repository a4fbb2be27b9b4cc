"""`python -m service` is `serve`."""

from service.cli import main

main(prog_name="serve")
