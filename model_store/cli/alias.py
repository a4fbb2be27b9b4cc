"""`models alias | history | rollback | promote | protect`: where names point, and how they came there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from model_store.cli import tables
from model_store.cli.common import fail, note, print_json, user
from model_store.cli.group import command, why_option
from model_store.cli.terminal import stdout
from model_store.registry import promotion
from model_store.registry.alias_log import AliasRevision
from model_store.registry.store import DEFAULT, open_store

_force = click.option("--force", is_flag=True, help="Move it although it is protected, or cannot be read.")


@command("alias")
@click.argument("name")
@click.argument("alias", required=False)
@click.argument("version", required=False)
@why_option
@_force
def alias(name: str, alias: str | None, version: str | None, why: str, force: bool, store: str, as_json: bool) -> None:
    """List aliases, or point one to a version.

    VERSION is a number, "latest" or another alias. The alias "default" is what a request that names no version
    gets; without it the newest version answers.
    """
    opened = open_store(store)
    if alias is None or version is None:
        found = opened.aliases(name)
        if alias is not None:
            opened.history(name, alias)  # for the error of an alias that is not there
            found = {alias: found[alias]}
        if as_json:
            print_json(found)
            return
        made = tables.table("alias", ">version")
        for key, number in found.items():
            made.add_row(key, str(number))
        tables.show(made)
        if not found:
            note(f"{name} has no aliases: the newest version, {opened.resolve(name)}, answers.")
        return
    move = opened.set_alias(name, alias, version, who=user(), why=why, when=datetime.now(UTC), force=force)
    _report(name, move, as_json)


@command("history")
@click.argument("name")
@click.argument("alias", required=False)
def history(name: str, alias: str | None, store: str, as_json: bool) -> None:
    """Show every move of an alias: when, who, why."""
    opened = open_store(store)
    aliases = opened.aliases(name) if alias is None else [alias]
    moves = [move for each in aliases for move in opened.history(name, each)]
    if as_json:
        print_json([_plain(name, move) for move in moves])
        return
    tables.show(tables.history(moves))
    if not moves:
        note(f"No alias of {name} was ever set.")


@command("rollback")
@click.argument("name")
@click.argument("alias", default=DEFAULT)
@why_option
@_force
def rollback(name: str, alias: str, why: str, force: bool, store: str, as_json: bool) -> None:
    """Point an alias back to the version before."""
    opened = open_store(store)
    move = opened.rollback(name, alias, who=user(), why=why, when=datetime.now(UTC), force=force)
    _report(name, move, as_json)


@command("promote")
@click.argument("name")
@click.argument("version")
@click.option("--to", "alias", metavar="ALIAS", default="champion", show_default=True, help="The alias to move.")
@click.option("--if", "gates", metavar="GATE", multiple=True, help="What the version must show; repeatable.")
@why_option
def promote(name: str, version: str, alias: str, gates: tuple[str, ...], why: str, store: str, as_json: bool) -> None:
    """Point an alias to a version that is good enough.

    GATE compares a metric of the version with a number, or with the same metric of an alias or of another version:
    "accuracy>=0.95", "accuracy>=champion", "mae<houses/2". The tests are >=, <=, > and <. An alias that was never set
    is easily beaten. A protected alias moves in no other way, unless by force.
    """
    opened, parsed = open_store(store), [promotion.parse(text) for text in gates]
    move, verdicts = promotion.promote(
        opened, name, version, alias, parsed, who=user(), why=why, when=datetime.now(UTC)
    )
    if as_json:
        print_json({"move": move and _plain(name, move), "gates": [vars(verdict) for verdict in verdicts]})
    else:
        for verdict in verdicts:
            stdout.print("passed" if verdict.passed else "failed", end="  ", style="green" if verdict.passed else "red")
            stdout.print(str(verdict), soft_wrap=True)
    if move is None:
        fail(f"{name}/{alias} stays where it is: {name}/{version} did not pass", 5)
    elif not as_json:
        _report(name, move, as_json)


@command("protect")
@click.argument("name")
@click.argument("alias")
@click.option("--off", is_flag=True, help="End the protection.")
@why_option
def protect(name: str, alias: str, off: bool, why: str, store: str, as_json: bool) -> None:
    """Keep an alias from moving but through a gate, or by force."""
    opened = open_store(store)
    move = opened.protect(name, alias, protected=not off, who=user(), why=why, when=datetime.now(UTC))
    if as_json:
        print_json(_plain(name, move))
    else:
        note(f"{name}/{alias} is {'no longer ' if off else ''}protected; it points to version {move.version}.")


def _report(name: str, move: AliasRevision, as_json: bool) -> None:
    if as_json:
        print_json(_plain(name, move))
    else:
        note(f"{name}/{move.alias} now points to version {move.version}.")


def _plain(name: str, move: AliasRevision) -> dict[str, Any]:
    return {"name": name, **vars(move), "when": move.when.isoformat()}
