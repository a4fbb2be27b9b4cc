"""What an artifact holds about its answers beside the network: today the baseline of explanations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_store.nn import Array

BASELINE_MEMBER = "answers.baseline"
MEMBERS = (BASELINE_MEMBER,)  # of `Answers`, in an artifact


@dataclass(frozen=True)
class Answers:
    """Data about the answers of a model.

    `baseline` (width,) is the encoded row that explanations compare with: the mean of the training rows, of a category
    that is encoded as its number the most frequent one.
    """

    baseline: Array

    def arrays(self) -> dict[str, Array]:
        """Return the arrays that an artifact saves, by name."""
        return {BASELINE_MEMBER: self.baseline}

    def config(self) -> dict[str, Any]:
        """Return what an artifact's manifest says of it, as JSON data."""
        return {"baseline": "mean"}

    @classmethod
    def read(cls, arrays: Mapping[str, Array]) -> Answers:
        """Return what the arrays of an artifact with the field `answers` say."""
        return cls(arrays[BASELINE_MEMBER])

    def check(self, width: int) -> None:
        """Raise ValueError unless the arrays fit encoded rows of `width` features."""
        if self.baseline.shape != (width,):
            raise ValueError(f"{BASELINE_MEMBER}: expected the shape {(width,)}, found {self.baseline.shape}")
