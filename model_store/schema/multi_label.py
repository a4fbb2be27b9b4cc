"""The output of a multi-label classifier: each row has any subset of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from model_store.nn import Array
from model_store.schema.top_k import largest_columns

DEFAULT_THRESHOLD = 0.5
DEFAULT_SEPARATOR = "|"  # of labels in a table of predictions


@dataclass(frozen=True)
class MultiLabelOutput:
    """Any subset of `labels`, each with a probability: those of at least the `threshold` are predicted.

    The network has one output for each label: its probability. A table has the true labels in a column for each of
    them, or if there is a `separator` in one column `name` of texts such as "action|comedy".
    """

    name: str
    labels: tuple[str, ...]
    separator: str | None = None
    threshold: float = DEFAULT_THRESHOLD
    kind: Literal["labels"] = "labels"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table with the true labels."""
        return self.labels if self.separator is None else (self.name,)

    def public_details(self) -> dict[str, Any]:
        """Return what callers see of the output."""
        about = {"kind": self.kind, "name": self.name, "labels": list(self.labels)}
        return about | {"separator": self.separator, "threshold": self.threshold}

    def decode(self, outputs: Array) -> dict[str, Array]:
        """Return `labels`, whether a row has each label, and `probabilities`: (n, labels) each."""
        return {"labels": outputs >= np.float64(self.threshold), "probabilities": outputs}

    def predictions(self, found: Mapping[str, Array], top_k: int | None = None) -> list[dict[str, Any]]:
        """Return the arrays of `decode` as `{"labels": [...], "probabilities": {label: p}}` for each row.

        With `top_k`, the probabilities are those of the most probable labels only, the most probable first.
        """
        values = found["probabilities"]
        width = values.shape[1]
        columns = np.broadcast_to(np.arange(width), values.shape) if top_k is None else largest_columns(values, top_k)
        shown = np.take_along_axis(values, columns, axis=1)
        rows = zip(found["labels"].tolist(), columns.tolist(), shown.tolist(), strict=True)
        return [
            {
                "labels": [label for label, has in zip(self.labels, present, strict=True) if has],
                "probabilities": {self.labels[i]: value for i, value in zip(places, row, strict=True)},
            }
            for present, places, row in rows
        ]
