"""The click group `models`, and what its commands share: options and the parsing of model references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import click

from model_store.cli.common import (
    Command,
    CommandGroup,
    exit_codes,
    json_option,
    store_option,
    verbosity_option,
    version_option,
)
from model_store.registry.store import Store


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 2 usage error, 3 invalid input, 5 store or model error. See docs/versions.md.",
)
@version_option
def main() -> None:
    """Inspect, compare, promote and run the models in a store.

    MODEL is a name, optionally with a version or an alias: penguins, penguins/3, penguins/candidate. A name alone means
    the default version: the one that the alias "default" points to, or the newest if that alias is not set.
    """


def command(
    name: str, codes: Mapping[type[Exception], int] | None = None
) -> Callable[[Callable[..., None]], click.Command]:
    """Decorate a function as a command of `models` with the options of all of them; `codes`: see `exit_codes`."""

    def decorate(function: Callable[..., None]) -> click.Command:
        options: list[Callable[[Command], Command]] = [verbosity_option, json_option, store_option]
        return main.command(name)(reduce(lambda inner, option: option(inner), options, exit_codes(codes)(function)))

    return decorate


header_option = click.option(
    "--header",
    type=click.Choice(["present", "absent"]),
    help="Whether the first line of CSV names the columns.  [default: if it names every column that the model needs]",
)
why_option = click.option("--why", default="", help="The reason, kept in the history.")


def resolve_reference(store: Store, model: str) -> tuple[str, int]:
    """Return name and version number of a reference such as "penguins", "penguins/3" or "penguins/candidate"."""
    name, _, ref = model.partition("/")
    return name, store.resolve(name, ref or None)
