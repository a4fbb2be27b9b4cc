"""What an artifact holds about its answers beside the network: the baseline of explanations, and conformal scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.artifact.conformal import MAX_KNOTS, MAX_SCORES, Conformal, LocalScale
from model_store.nn import Array
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Signature

BASELINE_MEMBER = "answers.baseline"
SCORES_MEMBER, KNOTS_MEMBER, SCALES_MEMBER = (f"answers.conformal.{name}" for name in ("scores", "knots", "scales"))
MEMBERS = (BASELINE_MEMBER, SCORES_MEMBER, KNOTS_MEMBER, SCALES_MEMBER)  # of `Answers`, in an artifact


@dataclass(frozen=True)
class Answers:
    """Data about the answers of a model.

    `baseline` (width,) is the encoded row that explanations compare with: the mean of the training rows, of a category
    that is encoded as its number the most frequent one. `conformal` has the scores of intervals or sets.
    """

    baseline: Array | None = None
    conformal: Conformal | None = None

    def arrays(self) -> dict[str, Array]:
        """Return the arrays that an artifact saves, by name."""
        found = {} if self.baseline is None else {BASELINE_MEMBER: self.baseline}
        if self.conformal is not None:
            found[SCORES_MEMBER] = self.conformal.scores
            if scales := self.conformal.scales:
                found[KNOTS_MEMBER] = np.stack([scale.knots for scale in scales])
                found[SCALES_MEMBER] = np.stack([scale.scales for scale in scales])
        return found

    def config(self) -> dict[str, Any]:
        """Return what an artifact's manifest says of it, as JSON data."""
        found: dict[str, Any] = {} if self.baseline is None else {"baseline": "mean"}
        if (one := self.conformal) is not None:
            found["conformal"] = {"method": one.method}
            if one.method == "raps":
                found["conformal"] |= {"penalty": one.penalty, "rank": one.rank}
        return found

    @classmethod
    def read(cls, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> Answers:
        """Return what the field `answers` of a valid manifest and its arrays say. ValueError for invalid scores."""
        conformal = None
        if (about := config.get("conformal")) is not None:
            knots, scales = arrays.get(KNOTS_MEMBER), arrays.get(SCALES_MEMBER)
            local: tuple[LocalScale, ...] = ()
            if knots is not None and scales is not None:
                _check_scales(knots, scales)
                local = tuple(LocalScale(*one) for one in zip(knots, scales, strict=True))
            conformal = Conformal(scores=arrays[SCORES_MEMBER], scales=local, **about)
        return cls(arrays.get(BASELINE_MEMBER), conformal)

    def check(self, signature: Signature) -> None:
        """Raise ValueError unless the arrays fit the signature."""
        if self.baseline is not None and self.baseline.shape != (signature.width,):
            raise ValueError(f"{BASELINE_MEMBER}: expected the shape {(signature.width,)}, found {self.baseline.shape}")
        if (one := self.conformal) is None:
            return
        output = signature.output
        if isinstance(output, MultiLabelOutput):
            raise ValueError("answers.conformal: expected a regression or one label for a row, found several labels")
        methods, count = ("absolute", "normalized"), 0
        if isinstance(output, ClassificationOutput):
            methods, count = ("aps", "raps"), 1
        else:
            count = len(output.names)
        if one.method not in methods:
            raise ValueError(f"answers.conformal.method: expected one of {', '.join(methods)}; found {one.method}")
        shape = one.scores.shape
        if len(shape) != 2 or shape[0] != count or not 1 <= shape[1] <= MAX_SCORES:
            wanted = f"({count}, n), n from 1 to {MAX_SCORES}"
            raise ValueError(f"{SCORES_MEMBER}: expected the shape {wanted}; found {shape}")
        if (one.scores < 0).any() or (np.diff(one.scores, axis=1) < 0).any():
            raise ValueError(f"{SCORES_MEMBER}: expected ascending numbers of at least 0")
        if len(one.scales) != (count if one.method == "normalized" else 0):
            raise ValueError(f"{SCALES_MEMBER}: expected the scales of {count} targets, found {len(one.scales)}")


def _check_scales(knots: Array, scales: Array) -> None:
    if knots.ndim != 2 or knots.shape != scales.shape or not 1 <= knots.shape[1] <= MAX_KNOTS:
        wanted = f"(targets, k), k from 1 to {MAX_KNOTS}, of both arrays"
        raise ValueError(f"{KNOTS_MEMBER}: expected the shape {wanted}; found {knots.shape} and {scales.shape}")
    if (np.diff(knots, axis=1) < 0).any() or (scales <= 0).any():
        raise ValueError(f"{KNOTS_MEMBER}: expected ascending knots and scales above 0")
