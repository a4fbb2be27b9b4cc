"""Receipts of predictions: model, request and predictions as hashes, to be verified later.

    {"model": "penguins", "version": 3, "digest": "…", "input_sha256": "…", "predictions_sha256": "…"}

`digest` is the model's; `input_sha256` is the hash of the request body, decompressed; `predictions_sha256` is the hash
of the predictions in the canonical form of RFC 8785, so that programs in any language can verify it
(examples/verify_receipt.mjs). If the request had the parameter `top_k` or `threshold`, the receipt has it too. With
the body and the artifact, the same predictions can be computed again: `models replay RECEIPT BODY`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from model_store.utils.canonical_json import canonical_json

FIELD_TYPES = {"model": str, "version": int, "digest": str, "input_sha256": str, "predictions_sha256": str}


def make_receipt(
    name: str,
    version: int,
    digest: str,
    body: bytes,
    predictions: PredictionsHash,
    top_k: int | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Return the receipt of a request and its predictions, which may have the `top_k` most probable labels only.

    threshold: that of the request's URL; one in the body overrides it.
    """
    receipt = {
        "model": name,
        "version": version,
        "digest": digest,
        "input_sha256": hashlib.sha256(body).hexdigest(),
        "predictions_sha256": predictions.hexdigest(),
    }
    asked = {"top_k": top_k, "threshold": threshold}
    return receipt | {key: value for key, value in asked.items() if value is not None}


class PredictionsHash:
    """The SHA-256 of predictions as a canonical JSON array; equal hashes mean equal numbers, to the last bit."""

    def __init__(self) -> None:
        self._found, self._before = hashlib.sha256(), "["

    def update(self, predictions: Iterable[Any]) -> None:
        """Add predictions at the end of the array."""
        for prediction in predictions:
            self._found.update(f"{self._before}{canonical_json(prediction)}".encode())
            self._before = ","

    def hexdigest(self) -> str:
        """Return the hash of the array with all predictions so far."""
        found = self._found.copy()
        found.update(b"[]" if self._before == "[" else b"]")
        return found.hexdigest()


def hash_predictions(predictions: Iterable[Any]) -> str:
    """Return the hash of all predictions."""
    found = PredictionsHash()
    found.update(predictions)
    return found.hexdigest()
