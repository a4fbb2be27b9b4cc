"""Receipts of predictions: model, request and predictions as hashes, to be verified later.

    {"model": "penguins", "version": 3, "digest": "…", "input_sha256": "…", "predictions_sha256": "…"}

`digest` is the model's; `input_sha256` is the hash of the request body, decompressed; `predictions_sha256` is the hash
of the predictions in the canonical form of RFC 8785, so that programs in any language can verify it
(examples/verify_receipt.mjs). If the request had the parameter `top_k`, the receipt has it too. With the body and the
artifact, the same predictions can be computed again: `models replay RECEIPT BODY`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from model_store.utils.canonical_json import canonical_json

FIELD_TYPES = {"model": str, "version": int, "digest": str, "input_sha256": str, "predictions_sha256": str}


def make_receipt(
    name: str, version: int, digest: str, body: bytes, predictions: Iterable[Any], top_k: int | None = None
) -> dict[str, Any]:
    """Return the receipt of a request and its predictions, which may have the `top_k` most probable labels only."""
    receipt = {
        "model": name,
        "version": version,
        "digest": digest,
        "input_sha256": hashlib.sha256(body).hexdigest(),
        "predictions_sha256": hash_predictions(predictions),
    }
    return receipt if top_k is None else receipt | {"top_k": top_k}


def hash_predictions(predictions: Iterable[Any]) -> str:
    """Return the SHA-256 of predictions as a canonical JSON array; equal hashes mean equal numbers, to the last bit."""
    found = hashlib.sha256()
    before = "["
    for prediction in predictions:
        found.update(f"{before}{canonical_json(prediction)}".encode())
        before = ","
    found.update(b"[]" if before == "[" else b"]")
    return found.hexdigest()
