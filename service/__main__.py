"""`python -m service` runs `serve`."""

from service.cli import main

main(prog_name="serve")
