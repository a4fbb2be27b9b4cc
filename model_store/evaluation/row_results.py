"""The results of the held-out rows, row by row, with which two versions are compared in pairs.

    held_out   {"sha256": digest of the rows, "correct": bits} for a classification: one bit for each row, the first row
               in the highest bit of the first byte, as base64; of several labels, whether all are correct
               {"sha256": digest, "absolute_errors": {target: numbers}} for a regression: little-endian float32 as
               base64, of evenly spaced rows if there are many

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

MAX_CLASSIFIED_ROWS = 200_000  # 33 kB of base64; with more rows, none are kept
MAX_ERRORS = 4096  # of all targets together, 22 kB of base64
_MIN_ERRORS = 10  # of a target, or none are kept
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RowResults:
    """`correct` (rows,) of a classification, or `absolute_errors` (rows, targets) of a regression, not both.

    Without either, only the digest of the rows is known.
    """

    sha256: str
    correct: NDArray[np.bool_] | None = None
    absolute_errors: Mapping[str, NDArray[np.float64]] | None = None

    @classmethod
    def of_classes(cls, sha256: str, correct: NDArray[np.bool_]) -> RowResults:
        return cls(sha256, correct if len(correct) <= MAX_CLASSIFIED_ROWS else None)

    @classmethod
    def of_targets(cls, sha256: str, names: Sequence[str], errors: NDArray[np.float64]) -> RowResults:
        """Keep the absolute errors (rows, targets) of evenly spaced rows."""
        rows = min(len(errors), MAX_ERRORS // len(names))
        with np.errstate(over="ignore"):
            kept = np.abs(errors[np.arange(rows) * len(errors) // max(rows, 1)]).astype("<f4")
        if rows < _MIN_ERRORS or not np.isfinite(kept).all():
            return cls(sha256)
        return cls(sha256, None, {name: kept[:, i].astype(np.float64) for i, name in enumerate(names)})

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"sha256": self.sha256}
        if self.correct is not None:
            found["correct"] = _to_base64(np.packbits(self.correct).tobytes())
        if self.absolute_errors is not None:
            found["absolute_errors"] = {
                name: _to_base64(errors.astype("<f4").tobytes()) for name, errors in self.absolute_errors.items()
            }
        return found

    @classmethod
    def parse(cls, training: Mapping[str, Any]) -> RowResults | None:
        """Return the results of a training record; None if it has none, or invalid ones."""
        value, metrics = training.get("held_out"), training.get("metrics")
        if not isinstance(value, Mapping) or not isinstance(metrics, Mapping):
            return None
        sha256, bits, errors = (value.get(key) for key in ("sha256", "correct", "absolute_errors"))
        if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
            return None
        try:
            return cls(sha256, _read_bits(bits, metrics), _read_errors(errors, metrics))
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
    if errors is None:
        return None
    if not isinstance(errors, Mapping) or not 0 < len(errors) <= MAX_ERRORS // _MIN_ERRORS:
        raise ValueError("expected errors of each target")
    found = {}
    for name, text in errors.items():
        found[name] = np.frombuffer(_from_base64(text, 4 * (MAX_ERRORS // len(errors))), "<f4").astype(np.float64)
        if len(found[name]) < _MIN_ERRORS or not (np.isfinite(found[name]) & (found[name] >= 0)).all():
            raise ValueError("expected absolute errors")
        rmse = metrics["targets"][name]["rmse"]
        if len(found[name]) == metrics["rows"] and not np.isclose(np.sqrt(np.mean(found[name] ** 2)), rmse, 1e-3):
            raise ValueError("expected the errors of the RMSE")
    if len({len(values) for values in found.values()}) != 1:
        raise ValueError("expected as many errors of each target")
    return found


def _to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _from_base64(text: Any, max_bytes: int) -> bytes:
    if not isinstance(text, str) or len(text) > -(-max_bytes // 3) * 4:
        raise ValueError(f"expected base64 of at most {max_bytes} bytes")
    return base64.b64decode(text, validate=True)
