"""Outputs of an exported file: what the network computes, as predictions for JSON. An output is its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from model_store.nn.arrays import Array
from model_store.schema.target_transform import TargetTransform

Output = Mapping[str, Any]


def check_finite(outputs: Array) -> None:
    """Raise ValueError unless all outputs are finite."""
    for i in np.flatnonzero(~np.isfinite(outputs).all(axis=1)):
        raise ValueError(f"rows.{i}: the prediction is not finite; expected values in the range of the training data")


def decode_classes(output: Output, outputs: Array) -> list[Any]:
    """Return the predicted label and the probability of each; one output is that of the second of two labels.

    The most probable label is predicted; with a threshold, the second one if its probability is at least as large.
    """
    check_finite(outputs)
    if outputs.shape[1] == 1:
        outputs = np.concatenate([1 - outputs, outputs], axis=1)
    labels, names = output["labels"], list(map(str, output["labels"]))
    places = outputs.argmax(axis=1)
    if "threshold" in output:
        places = (outputs[:, 1] >= np.float64(output["threshold"])).astype(np.intp)
    return [
        {"label": labels[place], "probabilities": dict(zip(names, row, strict=True))}
        for place, row in zip(places.tolist(), outputs.tolist(), strict=True)
    ]


def decode_labels(output: Output, outputs: Array) -> list[Any]:
    """Return the labels of at least the threshold, and the probability of each."""
    check_finite(outputs)
    labels = output["labels"]
    decided = (outputs >= np.float64(output["threshold"])).tolist()
    predicted = [[label for label, has in zip(labels, row, strict=True) if has] for row in decided]
    probabilities = [dict(zip(labels, row, strict=True)) for row in outputs.tolist()]
    return [{"labels": names, "probabilities": row} for names, row in zip(predicted, probabilities, strict=True)]


def scaled(output: Output, outputs: Array) -> Array:
    """Return output · scale + offset of each target."""
    with np.errstate(over="ignore"):
        return np.asarray(outputs.astype(np.float64) * np.array(output["scale"]) + np.array(output["offset"]))


def by_name(output: Output, values: Array) -> list[Any]:
    """Return the number of each row, or the numbers by the names of several targets."""
    check_finite(values)
    names, rows = output["names"], values.tolist()
    return [dict(zip(names, row, strict=True)) for row in rows] if len(names) > 1 else [row[0] for row in rows]


def decode_values(output: Output, outputs: Array) -> list[Any]:
    """Return the outputs in the units of the targets."""
    return by_name(output, scaled(output, outputs))


def decode_transformed_values(output: Output, outputs: Array) -> list[Any]:
    """Return the outputs in the units of the targets, through the inverse of their transform."""
    transform = output["transform"]
    scores, knots = tuple(transform.get("scores", ())), tuple(map(tuple, transform.get("values", ())))
    return by_name(output, TargetTransform(transform["kind"], scores, knots).invert(scaled(output, outputs)))
