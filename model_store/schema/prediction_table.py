"""Predictions as columns of a table: their names, and their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.nn import Array
from model_store.schema.multi_label import DEFAULT_SEPARATOR, MultiLabelOutput
from model_store.schema.outputs import Output, RegressionOutput


def prediction_header(output: Output, kept: Sequence[str]) -> list[str]:
    """Return the header: kept columns, then the predictions, "predicted_..." where a kept column has that name."""
    names = list(output.names) if isinstance(output, RegressionOutput) else [output.name]
    if not isinstance(output, RegressionOutput):
        names += [f"probability_{label}" for label in output.labels]
    taken = set(kept)
    for i, name in enumerate(names):
        while names[i] in taken:
            names[i] = f"predicted_{names[i]}"
        taken.add(name)
    return [*kept, *names]


def prediction_cells(prediction: Any, output: Output) -> list[Any]:
    """Return the cells of a prediction as `Signature.predictions` makes it."""
    if isinstance(output, MultiLabelOutput):
        return [_joined(prediction["labels"], output), *prediction["probabilities"].values()]
    if not isinstance(prediction, Mapping):
        return [prediction]
    if "probabilities" in prediction:
        return [prediction["label"], *prediction["probabilities"].values()]
    return list(prediction.values())


def prediction_columns(found: Mapping[str, Array], output: Output) -> list[Array]:
    """Return the arrays of `Signature.decode_arrays` as one array for each column: the same values, bit by bit."""
    if isinstance(output, RegressionOutput):
        return list(found["values"].T)
    if isinstance(output, MultiLabelOutput):
        rows = ([label for label, has in zip(output.labels, row, strict=True) if has] for row in found["labels"])
        label: Any = [_joined(labels, output) for labels in rows]
    else:
        label = found["label"].tolist()
    return [label, *found["probabilities"].T]


def _joined(labels: Sequence[str], output: MultiLabelOutput) -> str:
    return (output.separator or DEFAULT_SEPARATOR).join(labels)
