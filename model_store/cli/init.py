"""`models init`: check that a directory or bucket can hold a store."""

from __future__ import annotations

from model_store.cli.common import print_json, print_note
from model_store.cli.group import command
from model_store.registry.store import open_store
from model_store.storage import conformance


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
