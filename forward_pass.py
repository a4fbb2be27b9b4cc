"""The command `forward-pass`: `train`, `models` and `serve` as one command.

    forward-pass train examples/penguins.toml      # the same as: train examples/penguins.toml

A command is imported only when it runs: the image of the service holds no training code, and `serve` needs no terminal
library.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import click

from model_store.cli.common import version_option
from model_store.errors import did_you_mean

_COMMANDS = {  # name: (module of its `main`, line in the help)
    "train": ("training.cli.main", "Train a network on a table or images and publish it."),
    "models": ("model_store.cli.main", "Inspect, compare, promote and run the models in a store."),
    "serve": ("service.cli", "Serve the models of a store over HTTP."),
}


class CommandGroup(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in _COMMANDS:
            hint = did_you_mean(cmd_name, _COMMANDS)
            ctx.fail(f"{cmd_name}: expected one of {', '.join(_COMMANDS)}" + (f"; {hint}" if hint else ""))
        module, _ = _COMMANDS[cmd_name]
        package = module.partition(".")[0]
        if find_spec(package) is None:
            fix = f"use the image for {package}, or install the wheel of Forward Pass"
            ctx.fail(f"{cmd_name}: expected the package {package!r}, which is not installed here; {fix}")
        command: click.Command = import_module(module).main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="train, models and serve are commands of their own too, with the same options and exit codes.",
)
@version_option
def main() -> None:
    """Train small neural networks, keep their versions and serve them over HTTP."""


if __name__ == "__main__":
    main(prog_name="forward-pass")
