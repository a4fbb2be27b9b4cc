"""The output of a multi-label classifier: each row has any subset of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
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
        labels, values = self.labels, found["probabilities"]
        predicted = [list(compress(labels, row)) for row in found["labels"].tolist()]
        if top_k is None:
            shown = [dict(zip(labels, row, strict=True)) for row in values.tolist()]
        else:
            columns = largest_columns(values, top_k)
            rows = zip(columns.tolist(), np.take_along_axis(values, columns, axis=1).tolist(), strict=True)
            shown = [{labels[i]: value for i, value in zip(*row, strict=True)} for row in rows]
        return [{"labels": names, "probabilities": row} for names, row in zip(predicted, shown, strict=True)]
