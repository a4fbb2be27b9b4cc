"""`models rm | gc`: remove a version; delete the files that interrupted commands left in a store."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import click

from model_store.cli import tables
from model_store.cli.common import Duration, fail, print_json, print_note
from model_store.cli.group import command, resolve_reference
from model_store.registry.store import open_store


@command("rm")
@click.argument("model", metavar="NAME/VERSION")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
def remove(model: str, yes: bool, store: str, as_json: bool) -> None:
    """Remove a version permanently; its number is never reused."""
    if "/" not in model:
        fail(f"{model}: expected a version to remove; add it: {model}/1", 2)
    opened = open_store(store)
    name, number = resolve_reference(opened, model)
    if not yes:
        if not sys.stdin.isatty():
            fail(f"this removes {name}/{number} permanently; confirm it with --yes", 2)
        click.confirm(f"Remove {name}/{number} permanently?", abort=True, err=True)
    opened.remove(name, number)
    if as_json:
        print_json({"name": name, "removed": number})
    else:
        print_note(f"Removed {name}/{number}.")


@command("gc")
@click.option("--grace", type=Duration(), default="24h", show_default=True, help="Keep files newer than this.")
@click.option("--dry-run", is_flag=True, help="List the files, delete nothing.")
def collect_garbage(grace: timedelta, dry_run: bool, store: str, as_json: bool) -> None:
    """Delete files that interrupted commands left behind.

    These are unfinished uploads of killed processes, and files of versions that do not exist. Versions, aliases and
    history are never touched. It is safe while others publish.
    """
    opened = open_store(store)
    garbage = opened.find_garbage(now=datetime.now(UTC), grace=grace)
    for item in [] if dry_run else garbage:
        opened.delete_garbage(item)
    if as_json:
        print_json([{**vars(item), "since": item.since.isoformat(), "deleted": not dry_run} for item in garbage])
        return
    if garbage:
        tables.print_table(tables.garbage_table(garbage))
    total = tables.format_bytes(sum(item.size for item in garbage))
    objects = "1 object" if len(garbage) == 1 else f"{len(garbage)} objects"
    print_note(
        f"{'Would delete' if dry_run else 'Deleted'} {objects}, {total}." if garbage else "There is nothing to delete."
    )
