"""Transforms of the targets of a regression: the network learns transformed targets, and its outputs are inverted.

    log       t = ln y for y > 0, y = eᵗ
    log1p     t = ln(1 + y) for y ≥ 0, y = max(eᵗ - 1, 0)
    quantile  t is linear between knots: normal scores of the quantiles of the training rows. Outside, both are constant

All are monotone, so a predicted quantile stays one. A mean does not: the inverse of a mean of logarithms is the
geometric mean of the values, which is lower than their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from model_store.nn import Array

TRANSFORMS = ("log", "log1p", "quantile")
MAX_KNOTS = 1000
_MAX_KNOT = 1e300  # differences of larger numbers overflow


@dataclass(frozen=True)
class TargetTransform:
    """A transform of all targets. A quantile transform has knots: `scores`, and the `values` of each target at them."""

    kind: str
    scores: tuple[float, ...] = ()
    values: tuple[tuple[float, ...], ...] = ()

    def apply(self, y: Array) -> Array:
        """Return targets (n, targets) transformed, as float64. Only valid ones give finite numbers."""
        y = np.asarray(y, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind == "log":
                return np.asarray(np.log(y))
            if self.kind == "log1p":
                return np.asarray(np.log1p(y))
        transformed = np.empty_like(y)
        scores, values = self._knots
        for i, knots in enumerate(values):
            # Several knots of one value, such as 0 in half of the rows: their middle score.
            highest = np.interp(y[:, i], knots, scores)
            lowest = -np.interp(-y[:, i], -knots[::-1], -scores[::-1])
            transformed[:, i] = (lowest + highest) / 2
        return transformed

    def invert(self, t: Array) -> Array:
        """Return transformed targets (n, targets), float64, in the targets' units; infinite if they overflow."""
        with np.errstate(over="ignore"):
            if self.kind == "log":
                return np.asarray(np.exp(t))
            if self.kind == "log1p":
                return np.asarray(np.maximum(np.expm1(t), 0.0))
        # All targets at once: one call of np.interp for each takes a second for 100,000 of them.
        scores, values = self._knots
        below = np.clip(np.searchsorted(scores, t, side="right") - 1, 0, len(scores) - 2)
        column = np.arange(t.shape[1])
        low, high = values[column, below], values[column, below + 1]
        score = scores[below]
        # The share is exactly 0 and 1 at the knots. NaN stays NaN.
        share = np.clip((t - score) / (scores[below + 1] - score), 0.0, 1.0)
        return np.asarray(np.where(share == 1, high, low + share * (high - low)))

    @cached_property
    def _knots(self) -> tuple[Array, Array]:
        """The scores (knots,) and the values (targets, knots) as arrays: to convert them takes longer than a row."""
        return np.array(self.scores), np.array(self.values, np.float64).reshape(-1, len(self.scores))

    def find_invalid(self, y: Array) -> Array:
        """Return a mask of the targets that cannot be transformed."""
        y = np.asarray(y)
        if self.kind == "quantile":
            return np.asarray(np.abs(y) > _MAX_KNOT)
        return np.asarray(y <= 0 if self.kind == "log" else y < 0)

    def check_targets(self, count: int) -> None:
        """Raise ValueError unless the transform is one of so many targets."""
        if self.kind == "quantile" and len(self.values) != count:
            problem = f"expected the values of {count} targets, found those of {len(self.values)}"
            raise ValueError(f"signature.output.transform: {problem}")

    @property
    def domain(self) -> str:
        """The targets that can be transformed, in words."""
        return {"log": "above 0", "log1p": "of at least 0"}.get(self.kind, f"from {-_MAX_KNOT:g} to {_MAX_KNOT:g}")

    def as_dict(self) -> dict[str, Any]:
        """Return the transform as JSON data."""
        if self.kind != "quantile":
            return {"kind": self.kind}
        return {"kind": self.kind, "scores": list(self.scores), "values": [list(knots) for knots in self.values]}

    @classmethod
    def parse(cls, value: Any) -> TargetTransform:
        """Parse what `as_dict` returned. ValueError for anything else."""
        kind = value.get("kind") if isinstance(value, dict) else None
        keys = {"kind", "scores", "values"} if kind == "quantile" else {"kind"}
        if kind not in TRANSFORMS or value.keys() != keys:
            raise ValueError(f"expected an object with the kind {', '.join(TRANSFORMS)}, and the knots of a quantile")
        if kind != "quantile":
            return cls(kind)
        scores, values = value["scores"], value["values"]
        if not isinstance(values, list) or not all(map(_is_knots, [scores, *values])):
            raise ValueError(f"expected scores and values of 2 to {MAX_KNOTS} knots, finite numbers")
        if any(len(knots) != len(scores) for knots in values):
            raise ValueError("expected as many values of each target as scores")
        if (np.diff(scores) <= 0).any() or any((np.diff(knots) < 0).any() for knots in values):
            raise ValueError("expected scores and values to ascend")
        return cls(kind, tuple(map(float, scores)), tuple(tuple(map(float, knots)) for knots in values))


def _is_knots(knots: Any) -> bool:
    if not isinstance(knots, list) or not 2 <= len(knots) <= MAX_KNOTS:
        return False
    return all(type(value) in (int, float) and abs(value) <= _MAX_KNOT for value in knots)
