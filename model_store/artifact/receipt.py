"""The receipt: what was asked, what was answered and which model did it, as hashes that can be checked years later.

    {"model": "penguins", "version": 3, "digest": "…", "input_sha256": "…", "predictions_sha256": "…"}

`digest` is the model's, `input_sha256` that of the body as it was sent (inflated, where it was compressed), and
`predictions_sha256` that of the predictions as compact JSON, whose numbers are exact. Whoever has kept the body and the
artifact gets the same bits again: `models replay RECEIPT BODY`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

FIELD_TYPES = {"model": str, "version": int, "digest": str, "input_sha256": str, "predictions_sha256": str}


def make_receipt(name: str, version: int, digest: str, body: bytes, predictions: list[Any]) -> dict[str, Any]:
    return {
        "model": name,
        "version": version,
        "digest": digest,
        "input_sha256": hashlib.sha256(body).hexdigest(),
        "predictions_sha256": hash_predictions(predictions),
    }


def hash_predictions(predictions: list[Any]) -> str:
    """SHA-256 of predictions; equal ones have equal bits, since JSON writes each number exactly."""
    text = json.dumps(predictions, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
