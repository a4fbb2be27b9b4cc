"""Outputs as ONNX operators, with the names that skl2onnx gives them.

classification   label (batch,) of texts or int64, probabilities (batch, labels)
several labels   label (batch, labels) of int64, 1 for a predicted one, probabilities (batch, labels)
regression       variable (batch, targets) of float64, in the units of the targets
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model_store.export.onnx.graph import Graph, tensor_type
from model_store.nn import Array
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Output, RegressionOutput
from model_store.schema.target_transform import TargetTransform

LABEL, PROBABILITIES, VALUES = "label", "probabilities", "variable"
NO_NUMBER = np.iinfo(np.int64).min  # the label of a row without an answer, if labels are numbers


def output_names(output: Output) -> list[str]:
    """Return the names of the graph's outputs."""
    return [VALUES] if isinstance(output, RegressionOutput) else [LABEL, PROBABILITIES]


def add_outputs(graph: Graph, output: Output, y: str, width: int, dtype: Any, accepted: str) -> None:
    """Add the graph's outputs of the network's outputs (batch, width); accepted: whether each row is, (batch, 1)."""
    graph.scope = "/output"
    if isinstance(output, RegressionOutput):
        values = _values(graph, output, y)
        values = graph.op("Where", accepted, values, np.float64(np.nan))
        graph.output(VALUES, values, tensor_type(np.float64), [width])
        return
    if isinstance(output, ClassificationOutput) and width == 1:
        y, width = graph.op("Concat", graph.op("Sub", np.dtype(dtype).type(1), y), y, axis=1), 2
    probabilities = graph.op("Where", accepted, y, np.dtype(dtype).type(np.nan))
    if isinstance(output, MultiLabelOutput):
        reached = graph.op("GreaterOrEqual", graph.cast(probabilities, np.float64), np.float64(output.threshold))
        graph.output(LABEL, graph.cast(reached, np.int64), tensor_type(np.int64), [width])
    else:
        labels, none = label_array(output)
        if output.threshold is None:
            place = graph.op("ArgMax", y, axis=1, keepdims=0)
        else:
            second = graph.cast(graph.op("Gather", y, np.int64(1), axis=1), np.float64)
            place = graph.cast(graph.op("GreaterOrEqual", second, np.float64(output.threshold)), np.int64)
        label = graph.op("Gather", labels, place)
        label = graph.op("Where", graph.op("Squeeze", accepted, np.array([1])), label, none)
        graph.output(LABEL, label, tensor_type(labels.dtype), [])
    graph.output(PROBABILITIES, probabilities, tensor_type(dtype), [width])


def label_array(output: ClassificationOutput) -> tuple[Array, Array]:
    """Return the labels as int64, or as texts if one is a text, and the label of a row without an answer."""
    if all(isinstance(label, int) and abs(label) < 2**63 for label in output.labels):
        return np.array(output.labels, np.int64), np.array(NO_NUMBER)
    return np.array(list(map(str, output.labels)), object), np.array("", object)


def _values(graph: Graph, output: RegressionOutput, y: str) -> str:
    """Append `RegressionOutput.decode`."""
    y = graph.cast(y, np.float64)
    scale, offset = np.array(output.scale, np.float64), np.array(output.offset, np.float64)
    t = graph.op("Add", graph.op("Mul", y, scale), offset)
    if output.transform is None:
        return t
    if output.transform.kind == "quantile":
        return _interpolate(graph, output.transform, t)
    t = graph.op("Exp", t)
    if output.transform.kind == "log":
        return t
    return graph.op("Max", graph.op("Sub", t, np.float64(1)), np.float64(0))


def _interpolate(graph: Graph, transform: TargetTransform, t: str) -> str:
    """Append the lines between the knots, and the constants outside, as `TargetTransform.invert`.

    The interval of a score is the number of knots up to it, less one.
    """
    scores, values = np.array(transform.scores), np.array(transform.values, np.float64)
    targets, knots = values.shape
    reached = graph.op("GreaterOrEqual", graph.op("Unsqueeze", t, np.array([2])), scores)
    below = graph.op("ReduceSum", graph.cast(reached, np.int64), np.array([2]), keepdims=0)
    below = graph.op("Sub", below, np.int64(1))
    below = graph.op("Min", graph.op("Max", below, np.int64(0)), np.int64(knots - 2))
    place = graph.op("Add", below, np.arange(targets) * knots)
    low = graph.op("Gather", values.ravel(), place)
    high = graph.op("Gather", values.ravel(), graph.op("Add", place, np.int64(1)))
    start, width = graph.op("Gather", scores[:-1], below), graph.op("Gather", np.diff(scores), below)
    share = graph.op("Div", graph.op("Sub", t, start), width)
    share = graph.op("Min", graph.op("Max", share, np.float64(0)), np.float64(1))
    between = graph.op("Add", low, graph.op("Mul", share, graph.op("Sub", high, low)))
    return graph.op("Where", graph.op("Equal", share, np.float64(1)), high, between)
