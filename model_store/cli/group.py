"""`models`, and what its commands share: options, references, the words about a move of an alias."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import click

from model_store.cli.common import Command, exit_codes, json_option, store_option, verbosity_option, version_option
from model_store.registry.store import Store


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 wrong usage, 3 wrong input, 5 store or model. See docs/versions.md.",
)
@version_option
def main() -> None:
    """Look at the models in a store, move their aliases, try them.

    MODEL is a name, or with a version or alias: penguins, penguins/3, penguins/champion.
    """


def command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command of `models` with the options that all of them have."""

    def made(function: Callable[..., None]) -> click.Command:
        options: list[Callable[[Command], Command]] = [verbosity_option, json_option, store_option]
        return main.command(name)(reduce(lambda inner, option: option(inner), options, exit_codes()(function)))

    return made


why_option = click.option("--why", default="", help="The reason, for the record.")


def resolved(store: Store, model: str) -> tuple[str, int]:
    name, _, ref = model.partition("/")
    return name, store.resolve(name, ref or None)
