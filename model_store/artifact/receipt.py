"""Receipts of predictions: model, request and predictions as hashes, to be verified later.

    {"model": "penguins", "version": 3, "digest": "…", "input_sha256": "…", "predictions_sha256": "…"}

`digest` is the model's; `input_sha256` is the hash of the request body, decompressed; `predictions_sha256` is the hash
of the predictions as compact JSON, whose numbers are exact. With the body and the artifact, the same bits can be
computed again: `models replay RECEIPT BODY`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

FIELD_TYPES = {"model": str, "version": int, "digest": str, "input_sha256": str, "predictions_sha256": str}


def make_receipt(name: str, version: int, digest: str, body: bytes, predictions: list[Any]) -> dict[str, Any]:
    """Return the receipt of a request and its predictions."""
    return {
        "model": name,
        "version": version,
        "digest": digest,
        "input_sha256": hashlib.sha256(body).hexdigest(),
        "predictions_sha256": hash_predictions(predictions),
    }


def hash_predictions(predictions: list[Any]) -> str:
    """Return the SHA-256 of predictions; equal hashes mean equal bits, since JSON writes numbers exactly."""
    text = json.dumps(predictions, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
