"""`models init | copy`: check that a directory or bucket can hold a store; copy versions between stores."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import click

from model_store.cli.common import print_json, print_note
from model_store.cli.group import command, resolve_reference
from model_store.registry.alias_log import why_default
from model_store.registry.copying import copy_version
from model_store.registry.store import open_store
from model_store.storage import conformance
from model_store.utils.current_user import current_user


@command("init")
def init(store: str, as_json: bool) -> None:
    """Check that a directory or bucket can hold a store.

    Several writers try to create the same object at the same time; exactly one of them must succeed. A bucket whose
    server ignores conditional writes is rejected.
    """
    opened = open_store(store)
    if "://" in store:
        print_note(
            f"{conformance.WRITERS} writers race {conformance.ROUNDS} times; on a bucket this can take a minute."
        )
    conformance.check_conformance(opened.storage)
    if as_json:
        print_json({"store": store, "races": conformance.ROUNDS, "writers": conformance.WRITERS})
    else:
        print_note(
            f"{store} can hold models: {conformance.WRITERS} writers raced {conformance.ROUNDS} times, "
            "with exactly one winner each time."
        )


@command("copy")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.argument("destination", metavar="DESTINATION")
@click.option("--as", "new_name", metavar="NAME", help="Name of the model at the destination.  [default: the same]")
def copy(models: tuple[str, ...], destination: str, new_name: str | None, store: str, as_json: bool) -> None:
    """Copy versions to another store.

    DESTINATION is a directory or bucket URL. A version keeps its digest, its signatures, its author and the time of its
    publication; it gets the next free number there. Both sides are verified. A version that is there already is not
    copied again. Aliases are not copied.
    """
    from model_store.report.page import render  # noqa: PLC0415 - other commands start without it

    source, target = open_store(store), open_store(destination)
    references = [resolve_reference(source, model) for model in models]
    if new_name is not None and len({name for name, _ in references}) > 1:
        raise click.UsageError("--as needs versions of one model: versions of several would replace each other.")
    results = []
    for name, number in references:
        copied = copy_version(
            source, name, number, target, new_name or name, who=current_user(), when=datetime.now(UTC)
        )
        version = copied.version
        reference = f"{version.name}/{version.number}"
        if source.report_location(name, number) and not target.report_location(version.name, version.number):
            target.add_report(version, render(source.load(name, number)[1], reference, version.digest))
        aliases, default = target.aliases(version.name), target.resolve(version.name)
        results.append(
            {
                "source": f"{name}/{number}",
                "name": version.name,
                "version": version.number,
                "digest": version.digest,
                "copied": copied.added,
                "signed_by": copied.signed_by,
                "path": version.location,
                "report": target.report_location(version.name, version.number),
                "default": default == version.number,
            }
        )
        if as_json:
            continue
        print_note(
            f"Copied {name}/{number} to {version.location}."
            if copied.added
            else f"{name}/{number} is at {version.location} already: {version.digest}"
        )
        unsigned = set(source.signing_keys(name, number)) - set(copied.signed_by)
        if unsigned:
            print_note(f"A signature covers the name: {reference} needs a new one, by models sign.")
        print_note(f"Requests without a version get version {default} there ({why_default(aliases)}).")
        if default != version.number:
            promote = f"models promote {version.name} {version.number} --store {shlex.quote(destination)}"
            print_note(f"To serve it: {promote}")
    if as_json:
        print_json(results)
