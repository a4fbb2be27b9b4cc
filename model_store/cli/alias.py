"""`models alias | history | rollback | promote | protect`: move aliases and show how they moved."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from model_store.cli import tables
from model_store.cli.common import fail, print_json, print_note
from model_store.cli.group import command, why_option
from model_store.cli.terminal import stdout
from model_store.errors import InputError, NotFoundError
from model_store.registry import promotion
from model_store.registry.alias_log import DEFAULT_ALIAS, AliasRevision, why_default
from model_store.registry.store import Store, open_store
from model_store.utils.current_user import current_user

_alias_option = click.option(
    "--alias",
    metavar="ALIAS",
    default=DEFAULT_ALIAS,
    show_default=True,
    help="The alias to move. Requests without a version get the version of the alias default.",
)
_force_option = click.option(
    "--force", is_flag=True, help="Move the alias even if it is protected or its history cannot be read."
)


@command("alias")
@click.argument("name")
@click.argument("alias", required=False)
@click.argument("version", required=False)
@why_option
@_force_option
def alias(name: str, alias: str | None, version: str | None, why: str, force: bool, store: str, as_json: bool) -> None:
    """List aliases, or point one to a version.

    VERSION is a number, "latest" or another alias. Requests without a version use the alias "default", or the newest
    version if that alias is not set.
    """
    opened = open_store(store)
    if alias is None or version is None:
        aliases = opened.aliases(name)
        if alias is not None:
            opened.history(name, alias)  # raises NotFoundError if there is no such alias
            aliases = {alias: aliases[alias]}
        if as_json:
            print_json(aliases)
            return
        table = tables.new_table("alias", ">version")
        for key, number in aliases.items():
            table.add_row(key, str(number))
        tables.print_table(table)
        if alias is None and DEFAULT_ALIAS not in aliases:
            _print_default(opened, name)
        return
    revision = opened.set_alias(name, alias, version, who=current_user(), why=why, when=datetime.now(UTC), force=force)
    _print_revision(opened, name, revision, as_json)


@command("history")
@click.argument("name")
@click.argument("alias", required=False)
def history(name: str, alias: str | None, store: str, as_json: bool) -> None:
    """Show every move of an alias: when, who and why. Without ALIAS, show those of all aliases."""
    opened = open_store(store)
    aliases = opened.aliases(name) if alias is None else [alias]
    revisions = [revision for each in aliases for revision in opened.history(name, each)]
    if as_json:
        print_json([_revision_data(name, revision) for revision in revisions])
        return
    tables.print_table(tables.history_table(revisions))
    if not revisions:
        print_note(f"{name} has no aliases.")


@command("rollback")
@click.argument("name")
@_alias_option
@why_option
@_force_option
def rollback(name: str, alias: str, why: str, force: bool, store: str, as_json: bool) -> None:
    """Make the previous version the default again.

    This points the alias default, or another --alias, back to the version before. A second rollback goes back one more.
    If the alias default was never set, the newest version is served, and the rollback goes back from there.
    """
    opened = open_store(store)
    revision = opened.rollback(name, alias, who=current_user(), why=why, when=datetime.now(UTC), force=force)
    _print_revision(opened, name, revision, as_json)


@command("promote", {NotFoundError: 2, InputError: 2})  # 5: a gate failed, or the store refused
@click.argument("name")
@click.argument("version")
@_alias_option
@click.option(
    "--if", "gates", metavar="GATE", multiple=True, help="A condition that the version must meet; repeatable."
)
@why_option
def promote(name: str, version: str, alias: str, gates: tuple[str, ...], why: str, store: str, as_json: bool) -> None:
    """Make a version the default if it passes all gates.

    This points the alias default, or another --alias, to VERSION: a number, "latest" or an alias such as candidate.
    Requests without a version get the version of the alias default.

    GATE compares a metric of the version with a number, or with the same metric of an alias or of another version:
    "accuracy>=0.95", "log_loss<=default", "mae<houses/2". The operators are >=, <=, > and <. A metric may be the lowest
    or highest of groups of rows: "min(recall by species)>=0.9" of classes, "max(rmse by region)<=2" of the values or
    ranges of an input column. If the alias is not set yet, a gate against it passes; "default" then means the newest
    version. A protected alias needs at least one gate.

    Exit code 5: a gate failed, or the store refused. Exit code 2: a gate cannot be evaluated as written, or there is no
    such version.
    """
    opened, parsed = open_store(store), [promotion.parse_gate(text) for text in gates]
    revision, results = promotion.promote(
        opened, name, version, alias, parsed, who=current_user(), why=why, when=datetime.now(UTC)
    )
    if as_json:
        data = revision and _move_data(opened, name, revision)
        print_json({"move": data, "gates": [vars(result) for result in results]})
    else:
        for result in results:
            stdout.print("passed" if result.passed else "failed", end="  ", style="green" if result.passed else "red")
            stdout.print(str(result), soft_wrap=True)
    if revision is None:
        fail(f"{name}/{alias} was not moved: {name}/{version} failed a gate", 5)
    elif not as_json:
        _print_revision(opened, name, revision, as_json)


@command("protect")
@click.argument("name")
@click.argument("alias")
@click.option("--off", is_flag=True, help="Remove the protection.")
@why_option
def protect(name: str, alias: str, off: bool, why: str, store: str, as_json: bool) -> None:
    """Allow an alias to move only by a gate or by force.

    Then only `models promote --if`, and `models alias` and `models rollback` with `--force`, move it.
    """
    opened = open_store(store)
    revision = opened.protect(name, alias, protected=not off, who=current_user(), why=why, when=datetime.now(UTC))
    if as_json:
        print_json(_move_data(opened, name, revision))
    else:
        print_note(
            f"{name}/{alias} is {'no longer ' if off else ''}protected; it points to version {revision.version}."
        )


def _print_revision(store: Store, name: str, revision: AliasRevision, as_json: bool) -> None:
    if as_json:
        print_json(_move_data(store, name, revision))
        return
    print_note(f"{name}/{revision.alias} now points to version {revision.version}.")
    if revision.alias != DEFAULT_ALIAS:
        _print_default(store, name)


def _print_default(store: Store, name: str) -> None:
    print_note(f"Requests without a version get version {store.resolve(name)} ({why_default(store.aliases(name))}).")


def _move_data(store: Store, name: str, revision: AliasRevision) -> dict[str, Any]:
    """Return a move, and the version that requests without a version get after it."""
    return {**_revision_data(name, revision), "default": store.resolve(name)}


def _revision_data(name: str, revision: AliasRevision) -> dict[str, Any]:
    return {"name": name, **vars(revision), "when": revision.when.isoformat()}
