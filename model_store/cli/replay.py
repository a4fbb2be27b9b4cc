"""`models replay`: answers a request again, and proves that the answer is the one of its receipt."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from model_store.artifact.receipt import KEYS, hashed
from model_store.cli import tables
from model_store.cli.common import note, print_json
from model_store.cli.group import command
from model_store.errors import ArtifactError, Fault, InputError
from model_store.registry.store import open_store
from model_store.schema import row_parser
from model_store.schema.signature import Signature


@command("replay")
@click.argument("receipt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("body", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def replay(receipt: Path, body: Path, store: str, as_json: bool) -> None:
    """Answer a request again, and prove its receipt.

    RECEIPT is the answer that has it, or the receipt alone; BODY is what was sent, byte for byte.
    """
    told = _read(receipt)
    data = body.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != told["input_sha256"]:
        problem = f"expected the body of SHA-256 {told['input_sha256']}, found {found}"
        fix = "give the file that was sent, byte for byte; curl sends it so with --data-binary, not with -d"
        raise InputError([Fault(str(body), problem, fix)])
    name, number = told["model"], told["version"]
    _, model = open_store(store).load(name, number)
    if model.digest != told["digest"]:
        raise ArtifactError(f"{name}/{number}: expected the digest {told['digest']}, found {model.digest}")
    predictions = model.predict(_instances(data, model.signature, body.name))
    if hashed(predictions) != told["predictions_sha256"]:
        raise ArtifactError(
            f"{name}/{number}: expected predictions of SHA-256 {told['predictions_sha256']}, found "
            f"{hashed(predictions)}; another CPU or NumPy may round otherwise"
        )
    if as_json:
        print_json({"model": name, "version": number, "same": True, "predictions": predictions})
    else:
        tables.show(tables.predictions(predictions))
        note(f"{name}/{number} gave these answers, bit for bit.")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        told = json.loads(path.read_bytes())
    except ValueError as e:
        raise InputError([Fault(str(path), f"expected a receipt as JSON, found something else: {e}")]) from e
    told = told.get("receipt", told) if isinstance(told, dict) else {}
    wrong = [key for key, kind in KEYS.items() if not isinstance(told, dict) or type(told.get(key)) is not kind]
    if wrong:
        problem = f"expected a receipt with {', '.join(KEYS)}; found none of {', '.join(wrong)}"
        raise InputError([Fault(str(path), problem, "ask for one: POST /predict?receipt=true")])
    found: Mapping[str, Any] = told
    return found


def _instances(data: bytes, signature: Signature, name: str) -> list[Any]:
    """The rows of a body, in any form that the service takes."""
    if data.startswith(b"\x93NUMPY"):
        found: list[Any] = np.load(io.BytesIO(data), allow_pickle=False).tolist()
        return found
    if data.lstrip()[:1] == b"{":
        instances = json.loads(data).get("instances")
        return instances if isinstance(instances, list) else []
    return row_parser.from_bytes(data, name, signature)
