"""The click group `models`, and what its commands share: options and the parsing of model references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce, wraps
from typing import Any

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
from model_store.tables.options import OPTION_RULES, TableOptions, find_conflict


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


def table_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each field of `TableOptions` to a command, which takes them together as `options`."""

    @wraps(function)
    def with_options(**values: Any) -> None:
        given = {name: values.pop(name) for name in OPTION_RULES}
        options = TableOptions(**given | {"separator": given["separator"] and given["separator"].replace("\\t", "\t")})
        for name, rule in OPTION_RULES.items():
            value = getattr(options, name)
            if value is not None and not rule.is_valid(value):
                raise click.UsageError(f"--{name}: expected {rule.expected}, found {value!r}.")
        if problem := find_conflict(options):
            raise click.UsageError(f"--decimal: {problem}.")
        function(options=options, **values)

    for name, rule in reversed(OPTION_RULES.items()):
        with_options = click.option(f"--{name}", metavar=rule.metavar, help=rule.help)(with_options)
    return with_options


why_option = click.option("--why", default="", help="The reason, kept in the history.")


def resolve_reference(store: Store, model: str) -> tuple[str, int]:
    """Return name and version number of a reference such as "penguins", "penguins/3" or "penguins/candidate"."""
    name, _, ref = model.partition("/")
    return name, store.resolve(name, ref or None)
