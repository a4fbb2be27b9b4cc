"""The results of the held-out rows, row by row, with which two versions are compared in pairs.

    held_out   {"sha256": digest of the rows, "correct": bits} for a classification: one bit for each row, the first row
               in the highest bit of the first byte, as base64; of several labels, whether all are correct
               {"sha256": digest, "absolute_errors": {target: numbers}} for a regression: little-endian float32 as
               base64, of evenly spaced rows if there are many; of one that was trained with the loss poisson, gamma or
               pinball also "losses": {target: numbers}, the deviance or pinball loss of each row

The digest is of the data file, the target, and the places of the rows in the file. Two versions with an equal one
answered the same rows, whatever columns they use.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.evaluation.record import main_metric

MAX_CLASSIFIED_ROWS = 200_000  # 33 kB of base64; with more rows, none are kept
MAX_ERRORS = 4096  # of all targets together, 22 kB of base64
_MIN_ERRORS = 10  # of a target, or none are kept
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RowResults:
    """`correct` (rows,) of a classification, or `absolute_errors` (rows, targets) of a regression, not both.

    `losses` (rows, targets) are those of a regression whose loss has a metric of its own. Without any, only the digest
    of the rows is known.
    """

    sha256: str
    correct: NDArray[np.bool_] | None = None
    absolute_errors: Mapping[str, NDArray[np.float64]] | None = None
    losses: Mapping[str, NDArray[np.float64]] | None = None

    @classmethod
    def of_classes(cls, sha256: str, correct: NDArray[np.bool_]) -> RowResults:
        return cls(sha256, correct if len(correct) <= MAX_CLASSIFIED_ROWS else None)

    @classmethod
    def of_targets(
        cls,
        sha256: str,
        names: Sequence[str],
        errors: NDArray[np.float64],
        losses: NDArray[np.float64] | None = None,
    ) -> RowResults:
        """Keep the absolute errors (rows, targets) of evenly spaced rows, and the losses (rows, targets)."""
        with np.errstate(invalid="ignore"):
            kept = [None if values is None else _keep_rows(np.abs(values), names) for values in (errors, losses)]
        return cls(sha256, None, *kept)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"sha256": self.sha256}
        if self.correct is not None:
            found["correct"] = _to_base64(np.packbits(self.correct).tobytes())
        if self.absolute_errors is not None:
            found["absolute_errors"] = _encode_numbers(self.absolute_errors)
        if self.losses is not None:
            found["losses"] = _encode_numbers(self.losses)
        return found

    @classmethod
    def parse(cls, training: Mapping[str, Any]) -> RowResults | None:
        """Return the results of a training record; None if it has none, or invalid ones."""
        value, metrics = training.get("held_out"), training.get("metrics")
        if not isinstance(value, Mapping) or not isinstance(metrics, Mapping):
            return None
        sha256, bits, errors, losses = (value.get(key) for key in ("sha256", "correct", "absolute_errors", "losses"))
        if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
            return None
        try:
            return cls(sha256, _read_bits(bits, metrics), _read_errors(errors, metrics), _read_losses(losses, metrics))
        except (TypeError, ValueError, KeyError, OverflowError, binascii.Error):
            return None


def rows_digest(data_sha256: str, target: Sequence[str], labels: Sequence[str | int], unit: str, rows: Any) -> str:
    """Return the digest of rows of a data file, given by their numbers in it, which count in `unit`s."""
    head = json.dumps([data_sha256, list(target), list(labels), unit], ensure_ascii=True).encode()
    return hashlib.sha256(head + b"\0" + np.asarray(rows, "<i8").tobytes()).hexdigest()


def _read_bits(bits: Any, metrics: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    if bits is None:
        return None
    rows = metrics.get("rows")
    if not isinstance(rows, int) or not 0 < rows <= MAX_CLASSIFIED_ROWS:
        raise ValueError("expected the number of rows")
    packed = np.frombuffer(_from_base64(bits, -(-rows // 8)), np.uint8)
    correct = np.unpackbits(packed, count=rows).astype(bool)
    if len(packed) * 8 < rows or int(correct.sum()) != round(
        metrics.get("accuracy", metrics.get("exact_match")) * rows
    ):
        raise ValueError("expected as many correct rows as the accuracy says")
    return correct


def _read_errors(errors: Any, metrics: Mapping[str, Any]) -> dict[str, NDArray[np.float64]] | None:
    found = _read_numbers(errors)
    for name, values in (found or {}).items():
        rmse = metrics["targets"][name]["rmse"]
        if len(values) == metrics["rows"] and not np.isclose(np.sqrt(np.mean(values**2)), rmse, 1e-3):
            raise ValueError("expected the errors of the RMSE")
    return found


def _read_losses(losses: Any, metrics: Mapping[str, Any]) -> dict[str, NDArray[np.float64]] | None:
    found = _read_numbers(losses)
    for name, values in (found or {}).items():
        metric = metrics["targets"][name][main_metric(metrics["targets"][name])]
        if len(values) == metrics["rows"] and not np.isclose(values.mean(), metric, 1e-3):
            raise ValueError("expected the losses of the metric")
    return found


def _keep_rows(values: NDArray[np.float64], names: Sequence[str]) -> dict[str, NDArray[np.float64]] | None:
    """Return numbers (rows, targets) of evenly spaced rows as float32; None if they are few, or not finite."""
    rows = min(len(values), MAX_ERRORS // len(names))
    with np.errstate(over="ignore"):
        kept = values[np.arange(rows) * len(values) // max(rows, 1)].astype("<f4")
    if rows < _MIN_ERRORS or not np.isfinite(kept).all():
        return None
    return {name: kept[:, i].astype(np.float64) for i, name in enumerate(names)}


def _encode_numbers(numbers: Mapping[str, NDArray[np.float64]]) -> dict[str, str]:
    return {name: _to_base64(values.astype("<f4").tobytes()) for name, values in numbers.items()}


def _read_numbers(numbers: Any) -> dict[str, NDArray[np.float64]] | None:
    """Return numbers of at least 0 of each target, as many of each. ValueError if they are something else."""
    if numbers is None:
        return None
    if not isinstance(numbers, Mapping) or not 0 < len(numbers) <= MAX_ERRORS // _MIN_ERRORS:
        raise ValueError("expected numbers of each target")
    found = {}
    for name, text in numbers.items():
        values = np.frombuffer(_from_base64(text, 4 * (MAX_ERRORS // len(numbers))), "<f4").astype(np.float64)
        if len(values) < _MIN_ERRORS or not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError("expected finite numbers of at least 0")
        found[name] = values
    if len({len(values) for values in found.values()}) != 1:
        raise ValueError("expected as many numbers of each target")
    return found


def _to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _from_base64(text: Any, max_bytes: int) -> bytes:
    if not isinstance(text, str) or len(text) > -(-max_bytes // 3) * 4:
        raise ValueError(f"expected base64 of at most {max_bytes} bytes")
    return base64.b64decode(text, validate=True)
