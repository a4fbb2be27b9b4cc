"""The operators of ONNX that change the shape of values, or select parts of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from model_store.importing.features import Features
from model_store.importing.layers import Layers, enter
from model_store.importing.onnx.values import (
    BATCH,
    BothProbabilities,
    Complement,
    LargestIndex,
    LogProbabilities,
    NoValuesError,
    Operation,
    OverBatchError,
    PredictedLabel,
    UnsupportedOperationError,
    Value,
)
from model_store.nn import Array

_WHOLE = 2**31 - 1  # an end of a slice that exporters write for all


def axis_of_sample(op: Operation, value: Layers, axis: int) -> int:
    """Return an axis of a sample for one of a batch."""
    found = axis - 1 if axis > 0 else axis + len(value.shape)
    if axis == 0 or not 0 <= found < len(value.shape):
        kind = OverBatchError if axis in (0, -1 - len(value.shape)) else UnsupportedOperationError
        op.refuse(f"expected an axis of a row, found {axis}, for a batch of samples of {value.shape}", kind)
    return found


def _reshape(op: Operation) -> Value:
    value = op.inputs[0]
    if isinstance(value, PredictedLabel | BothProbabilities | LogProbabilities):
        return value
    value = op.value()
    shape = (len(value.items),) if isinstance(value, Features) else value.shape
    target = op.numbers(1) if op.has(1) else [int(one) for one in op.attribute("shape", ())]
    fixed = {0, -1, BATCH} | ({op.batch} if op.batch else set())
    size = math.prod(shape)
    if target == [-1] and size == 1:
        return value
    problem = f"expected batches of samples to stay, from samples of {shape}; found shape {target}"
    if 0 in target and op.attribute("allowzero", 0):
        op.refuse(f"expected at least one value, found none of shape {target}", NoValuesError)
    if not target or target[0] not in fixed:
        op.refuse(problem, OverBatchError)
    rest = [shape[i] if one == 0 and i < len(shape) else one for i, one in enumerate(target[1:])]
    if rest.count(-1) == 1 and target[0] != -1:
        known = -math.prod(rest)
        rest = [size // known if one == -1 and known else one for one in rest]
    if target[0] == -1 and rest and math.prod(rest) != size:
        op.refuse(problem, OverBatchError)
    if any(one < 1 for one in rest) or math.prod(rest) != size:
        op.refuse(problem)
    if isinstance(value, Features):
        if len(rest) == 1:
            return value
        value = enter(value, op.dtype)
    return replace(value, index=value.index.reshape(rest))


def _flatten(op: Operation) -> Value:
    value, axis = op.value(), op.attribute("axis", 1)
    if isinstance(value, Features):
        if axis not in (1, -1):
            op.refuse(f"expected axis = 1, found {axis}", OverBatchError)
        return value
    if axis not in (1, -len(value.shape)):
        op.refuse(f"expected axis = 1, found {axis}, which joins rows or puts an axis before them", OverBatchError)
    return replace(value, index=value.index.reshape(-1))


def _transpose(op: Operation) -> Value:
    value = enter(op.value(), op.dtype)
    order = list(op.attribute("perm", range(len(value.shape), -1, -1)))
    if sorted(order) != list(range(len(value.shape) + 1)) or order[0] != 0:
        op.refuse(f"expected the batch to stay the first axis, found {order}", OverBatchError)
    return replace(value, index=value.index.transpose([axis - 1 for axis in order[1:]]))


def axes_of(op: Operation) -> list[int]:
    return op.numbers(1) if op.has(1) else [int(axis) for axis in op.attribute("axes", ())]


def _squeeze(op: Operation) -> Value:
    value = op.inputs[0]
    if isinstance(value, PredictedLabel | LargestIndex):
        return value
    value = enter(op.value(), op.dtype)
    axes = [axis_of_sample(op, value, axis) for axis in axes_of(op)]
    axes = axes or [axis for axis, size in enumerate(value.shape) if size == 1]
    if any(value.shape[axis] != 1 for axis in axes):
        op.refuse(f"expected axes of one value, found {axes} of {value.shape}")
    return replace(value, index=value.index.squeeze(tuple(axes)))


def _unsqueeze(op: Operation) -> Value:
    value = enter(op.value(), op.dtype)
    rank = len(value.shape) + 1 + len(axes_of(op))
    axes = sorted(axis % rank for axis in axes_of(op))
    if 0 in axes:
        op.refuse("expected the batch to stay the first axis, found another before it", OverBatchError)
    return replace(value, index=np.expand_dims(value.index, [axis - 1 for axis in axes]))


def _concat(op: Operation) -> Value:
    values = list(op.inputs)
    if len(values) == 2 and isinstance(values[0], Complement) and isinstance(values[1], Layers):
        complement = values[0].value
        if complement.modules == values[1].modules and values[1].shape == (1,):
            return BothProbabilities(values[1])
    if values and all(isinstance(value, Features) for value in values):
        first, *others = [op.value(i) for i in range(len(values))]
        if isinstance(first, Features) and op.attribute("axis") != 0:
            return first.join(*(other for other in others if isinstance(other, Features)))
    parts = [enter(op.value(i), op.dtype) for i in range(len(values))]
    if any(part.modules != parts[0].modules or part.inputs != parts[0].inputs for part in parts):
        op.refuse("expected columns, or parts of one value; found values of different layers")
    axis = axis_of_sample(op, parts[0], op.attribute("axis"))
    return replace(parts[0], index=np.concatenate([part.index for part in parts], axis))


def _gather(op: Operation) -> Value:
    if isinstance(op.inputs[0], np.ndarray) and isinstance(op.inputs[1], LargestIndex):
        return predicted_label(op.constant(0))
    value, positions = op.value(), op.constant(1)
    value = value if positions.ndim == 1 else enter(value, op.dtype)
    if isinstance(value, Features):
        if op.attribute("axis", 0) not in (1, -1):
            op.refuse("expected an axis of a row, found 0", OverBatchError)
        op.budget.spend_features(positions.size)
        return value.select([int(i) % len(value.items) for i in positions.ravel().tolist()])
    axis = axis_of_sample(op, value, op.attribute("axis", 0))
    op.budget.spend(value.index.size // value.shape[axis] * positions.size)
    return replace(value, index=value.index.take(positions.astype(np.int64), axis))


def predicted_label(labels: Array) -> PredictedLabel:
    texts = [one.decode() if isinstance(one, bytes) else one for one in labels.ravel().tolist()]
    return PredictedLabel(tuple(one if isinstance(one, str) else int(one) for one in texts))


def _slice(op: Operation) -> Value:
    value = enter(op.value(), op.dtype)
    starts, ends = op.numbers(1), op.numbers(2)
    axes = op.numbers(3, list(range(len(starts))))
    steps = op.numbers(4, [1] * len(starts))
    index = value.index
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        is_whole = end >= (op.batch or _WHOLE)
        if axis in (0, -1 - len(value.shape)) and (start, step) == (0, 1) and is_whole:
            continue  # all rows
        index = index.take(range(index.shape[a := axis_of_sample(op, value, axis)])[slice(start, end, step)], a)
    if not index.size:
        op.refuse("expected at least one value, found none", NoValuesError)
    return replace(value, index=index)


def _shape(op: Operation) -> Value:
    value = op.value()
    shape = (len(value.items),) if isinstance(value, Features) else value.shape
    return np.array([BATCH, *shape])[op.attribute("start", 0) : op.attribute("end")]


SHAPE_OPERATORS: dict[str, Callable[[Operation], Value]] = {
    "Concat": _concat,
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
