"""`models rm`: remove a version."""

from __future__ import annotations

import sys

import click

from model_store.cli.common import print_json, print_note
from model_store.cli.group import command, resolve_reference
from model_store.registry.store import open_store


@command("rm")
@click.argument("model", metavar="NAME/VERSION")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
def remove(model: str, yes: bool, store: str, as_json: bool) -> None:
    """Remove a version permanently; its number is never reused."""
    if "/" not in model:
        raise click.UsageError(f"Add the version to remove, such as {model}/1.")
    opened = open_store(store)
    name, number = resolve_reference(opened, model)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"This removes {name}/{number} permanently; confirm it with --yes.")
        click.confirm(f"Remove {name}/{number} permanently?", abort=True, err=True)
    opened.remove(name, number)
    if as_json:
        print_json({"name": name, "removed": number})
    else:
        print_note(f"Removed {name}/{number}.")
