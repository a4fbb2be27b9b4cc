"""`models verify`: check artifacts, golden predictions and signatures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from model_store.cli.common import print_json
from model_store.cli.group import command, resolve_reference
from model_store.cli.sign import signing_module
from model_store.cli.terminal import stdout
from model_store.errors import ModelStoreError
from model_store.registry.store import Store, open_store


@command("verify")
@click.argument("model", metavar="[MODEL]", required=False)
@click.option(
    "--key",
    "key_files",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Also require a signature by this public key; if repeated, by one of them.",
)
def verify(model: str | None, key_files: tuple[Path, ...], store: str, as_json: bool) -> None:
    """Check artifacts byte by byte, and their golden predictions.

    MODEL is one version, such as penguins/3, or a name for all its versions. Without MODEL all models are checked.
    """
    keys = [signing_module().load_public_key(path) for path in key_files]
    opened = open_store(store)
    if model is None:
        results = [result for name in opened.names() for result in _verify_model(opened, name, keys)]
    elif "/" in model:
        results = [_verify_version(opened, *resolve_reference(opened, model), keys)]
    else:
        results = [_verify_version(opened, model, number, keys) for number in opened.versions(model)]
    if as_json:
        print_json(results)
    else:
        for result in results:
            stdout.print(f"{result['name']}/{result['version'] or ''}", end="  ")
            stdout.print(result["verdict"], style="green" if result["ok"] else "bold red", end="  ")
            stdout.print(result["error"] or result["digest"], soft_wrap=True)
    if not all(result["ok"] for result in results):
        sys.exit(5)


def _verify_model(store: Store, name: str, keys: Sequence[Any]) -> list[dict[str, Any]]:
    """Verify all versions of a model. If its folder cannot be read, that is the only result, without a version."""
    try:
        numbers = store.versions(name)
    except ModelStoreError as e:
        about = {"name": name, "version": None, "ok": False, "verdict": "unreadable", "digest": None}
        return [{**about, "signed_by": None, "error": str(e)}]
    return [_verify_version(store, name, number, keys) for number in numbers]


def _verify_version(store: Store, name: str, number: int, keys: Sequence[Any]) -> dict[str, Any]:
    verdict, digest, signed_by, error = "damaged", None, None, None
    try:
        version, model = store.load(name, number)
        digest = version.digest
        model.check_golden()
        verdict = "ok"
        if keys:
            verdict = "untrusted"
            signed_by = signing_module().verify(keys, name, number, digest, partial(store.signature, name, number))
            verdict = "ok"
    except ModelStoreError as e:
        error = str(e)
    about = {"name": name, "version": number, "ok": error is None, "verdict": verdict, "digest": digest}
    return {**about, "signed_by": signed_by, "error": error}
