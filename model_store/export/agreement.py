"""Whether an export gives a model's answers: to 1e-5 of the network's outputs, with equal labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from model_store.nn import Array
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, RegressionOutput, Signature

TOLERANCE = 1e-5  # of a network's output: absolute up to 1, relative above


def find_disagreement(signature: Signature, outputs: Array, found: Mapping[str, Array]) -> tuple[int, str, str] | None:
    """Return the first row that disagrees, what was expected and what was found; None if all rows agree.

    outputs: the network's raw outputs (n, outputs). found: an export's predictions as `Signature.decode_arrays` returns
    them. A value agrees if a network's output that is off by `TOLERANCE · (1 + |output|)` at most gives it. Labels are
    equal, unless the probabilities that decide are within the tolerance.
    """
    outputs = outputs.astype(np.float64)
    off = TOLERANCE * (1 + np.abs(outputs))
    ends = [_values(signature, outputs - off), _values(signature, outputs + off)]
    expected = _values(signature, outputs)
    rounding = TOLERANCE * 1e-3 * np.abs(expected)
    name = "values" if isinstance(signature.output, RegressionOutput) else "probabilities"
    values = np.asarray(found[name], np.float64)
    if values.shape != expected.shape:
        return 0, f"{name} of shape {expected.shape}", f"shape {values.shape}"
    with np.errstate(invalid="ignore"):  # infinite outputs
        agrees = (values >= np.minimum(*ends) - rounding) & (values <= np.maximum(*ends) + rounding)
    agrees |= values == expected
    rows = np.flatnonzero(~agrees.all(axis=1))
    if len(rows):
        row, column = int(rows[0]), int(np.flatnonzero(~agrees[rows[0]])[0])
        return row, f"{name} {expected[row, column]:.9g}", f"{values[row, column]:.9g}"
    return _find_other_label(signature, expected, found)


def _values(signature: Signature, outputs: Array) -> Array:
    """Return probabilities or values of raw outputs, in float64, infinite if they overflow."""
    output = signature.output
    if isinstance(output, RegressionOutput):
        with np.errstate(over="ignore"):
            return output.decode(outputs)
    if isinstance(output, ClassificationOutput) and outputs.shape[1] == 1:
        return np.concatenate([1 - outputs, outputs], axis=1)
    return outputs


def _find_other_label(
    signature: Signature, probabilities: Array, found: Mapping[str, Array]
) -> tuple[int, str, str] | None:
    """Return the first row with another label that its probabilities do not excuse."""
    output = signature.output
    if isinstance(output, MultiLabelOutput):
        expected = probabilities >= output.threshold
        undecided = np.abs(probabilities - output.threshold) <= TOLERANCE
        wrong = ((np.asarray(found["labels"], bool) != expected) & ~undecided).any(axis=1)
        shown: list[Any] = [expected, found["labels"]]
    elif isinstance(output, ClassificationOutput):
        expected = output.predicted(probabilities)
        place = {label: i for i, label in enumerate(output.labels)}
        places = np.array([place.get(label, -1) for label in found["label"].tolist()], np.intp)
        largest = probabilities.max(axis=1)
        chosen = np.where(places < 0, -np.inf, probabilities[np.arange(len(places)), places])
        decided = chosen < largest - 2 * TOLERANCE
        if output.threshold is not None:
            decided = np.abs(probabilities[:, 1] - output.threshold) > TOLERANCE
        wrong = (places != expected) & (decided | (places < 0))
        shown = [np.array(output.labels, object)[expected], found["label"]]
    else:
        return None
    rows = np.flatnonzero(wrong)
    if not len(rows):
        return None
    return int(rows[0]), f"label {_show(shown[0][rows[0]])}", _show(shown[1][rows[0]])


def _show(label: Any) -> str:
    """Return a label, or whether a row has each of several labels."""
    return repr(label.tolist() if isinstance(label, np.ndarray) else label)
