"""`models replay`: repeat a prediction and check it against its receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from model_store.artifact.asked_answers import read_asked_answers
from model_store.artifact.model import Model
from model_store.artifact.receipt import FIELD_TYPES, hash_predictions
from model_store.cli import tables
from model_store.cli.common import print_json, print_note
from model_store.cli.group import command, header_option
from model_store.errors import ArtifactError, Fault, InputError
from model_store.registry.store import open_store
from model_store.schema import row_parser
from model_store.schema.row_parser import Header
from model_store.utils.npy import read_npy
from model_store.utils.values import is_finite_number

_GET_RECEIPT = "request one with POST /predict?receipt=true"


@command("replay")
@click.argument("receipt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("body", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@header_option
def replay(receipt: Path, body: Path, header: Header | None, store: str, as_json: bool) -> None:
    """Repeat a prediction and verify its receipt.

    RECEIPT is a response that contains a receipt, or the receipt alone. BODY is the request body, byte for byte. Give
    --header if the request had the parameter header of text/csv.
    """
    expected = _read_receipt(receipt)
    data = body.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected["input_sha256"]:
        problem = f"expected a body with SHA-256 {expected['input_sha256']}, found {found}"
        fix = "give the body byte for byte as it was sent; send files with curl --data-binary, not with -d"
        raise InputError([Fault(str(body), problem, fix)])
    name, number = expected["model"], expected["version"]
    _, model = open_store(store).load(name, number)
    if model.digest != expected["digest"]:
        raise ArtifactError(f"{name}/{number}: expected the digest {expected['digest']}, found {model.digest}")
    predictions = _predict(model, data, body.name, header, expected)
    if hash_predictions(predictions) != expected["predictions_sha256"]:
        raise ArtifactError(
            f"{name}/{number}: expected predictions with SHA-256 {expected['predictions_sha256']}, found "
            f"{hash_predictions(predictions)}; another CPU or NumPy version can round differently"
        )
    if as_json:
        print_json({"model": name, "version": number, "same": True, "predictions": predictions})
    else:
        tables.print_table(tables.predictions_table(predictions))
        print_note(f"Verified: {name}/{number} gives the same predictions, bit for bit.")


def _read_receipt(path: Path) -> Mapping[str, Any]:
    content = _parse_json(path.read_bytes(), str(path))
    if isinstance(content, dict):
        content = content.get("receipt", content)
    receipt: dict[str, Any] = content if isinstance(content, dict) else {}
    invalid = [key for key, kind in FIELD_TYPES.items() if type(receipt.get(key)) is not kind]
    top_k = receipt.get("top_k")
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        invalid.append("top_k")
    threshold = receipt.get("threshold")
    if threshold is not None and not (is_finite_number(threshold) and 0 < threshold < 1):
        invalid.append("threshold")
    if invalid:
        problem = f"expected a receipt with the keys {', '.join(FIELD_TYPES)}; missing or invalid: {', '.join(invalid)}"
        raise InputError([Fault(str(path), problem, _GET_RECEIPT)])
    return receipt


def _parse_json(data: bytes, location: str) -> Any:
    """Return the value of a receipt or body. InputError as the service: a key that is there twice has two readings."""
    return row_parser.parse_strict_json(row_parser.decode_utf8(data, location), location)


def _predict(model: Model, data: bytes, name: str, header: Header | None, receipt: Mapping[str, Any]) -> list[Any]:
    """Return the predictions for a request body in any format that the service accepts."""
    top_k, threshold = receipt.get("top_k"), receipt.get("threshold")

    def predictions(rows: Any, threshold: Any = threshold) -> list[Any]:
        signature = read_asked_answers({"threshold": threshold}, model).signature(model)
        return signature.decode(model.network(model.encode(rows)), top_k)

    try:
        if data.startswith(b"\x93NUMPY"):
            return predictions(_read_rows(data))
        if data.lstrip()[:1] == b"{":
            body = row_parser.parse_strict_json(row_parser.decode_utf8(data, name), name)
            return predictions(body["instances"], body.get("threshold", threshold))
    except (ValueError, KeyError, TypeError) as e:
        fix = "give the body of a request to /predict, uncompressed"
        raise InputError([Fault(name, f"expected rows in JSON, CSV or .npy, found an error: {e}", fix)]) from e
    return predictions(row_parser.open_csv(data, name, model.signature, header).read().rows)


def _read_rows(data: bytes) -> list[Any]:
    """Return the rows of an .npy body. ValueError if it is no array of numbers."""
    array = read_npy(data)
    if not array.ndim or array.dtype.kind not in "biuf":
        raise ValueError(f"expected rows of numbers, found {array.dtype} of shape {array.shape}")
    return list(array.tolist())
