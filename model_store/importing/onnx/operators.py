"""The operators of ONNX that can be imported: what each makes of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from model_store.importing.budget import shape_values
from model_store.importing.features import CategoryFeature, Feature, Features, TextFeature
from model_store.importing.images import (
    ConvolutionSpec,
    as_image,
    average_pool,
    convolution,
    max_pool,
    mean,
    same_padding,
    whole_windows,
)
from model_store.importing.layers import (
    Layers,
    affine,
    batch_norm,
    by_feature,
    enter,
    flatten,
    layer_norm,
    linear,
    mapped,
    softmax,
)
from model_store.importing.onnx.shape_operators import SHAPE_OPERATORS, axes_of, axis_of_sample
from model_store.importing.onnx.values import (
    STRING,
    Complement,
    LargestIndex,
    LogProbabilities,
    Operation,
    OverBatchError,
    PredictedLabel,
    TrainingModeError,
    UnsupportedOperationError,
    Value,
)
from model_store.nn import (
    ELU,
    GELU,
    SELU,
    Array,
    Clip,
    ExactGELU,
    Exp,
    LeakyReLU,
    Mish,
    Module,
    ParametricActivation,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)

_FLOATS = {1, 10, 11, 16}  # FLOAT, FLOAT16, DOUBLE, BFLOAT16
_POOLED_VALUES = 256  # one pooled value takes about 5 µs
_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


def _gemm(op: Operation) -> Value:
    if op.attribute("transA", 0):
        op.refuse("expected transA = 0, found 1, of which the rows are the columns of the input", OverBatchError)
    weights = op.constant(1)
    weights = weights if op.attribute("transB", 0) else weights.T
    if weights.ndim != 2:
        op.refuse(f"expected a matrix of weights, found {weights.shape}")
    bias = op.constant(2, np.zeros(1)).astype(np.float64)
    if bias.ndim == 2 and bias.shape[0] > 1:
        op.refuse(f"expected a bias of {len(weights)} numbers, found one for each row of {bias.shape}", OverBatchError)
    if bias.size not in (1, len(weights)):
        op.refuse(f"expected a bias of {len(weights)} numbers, found {bias.shape}")
    bias = np.broadcast_to(bias.ravel(), (len(weights),)) * op.attribute("beta", 1.0)
    return linear(op.value(), weights * np.float64(op.attribute("alpha", 1.0)), bias, op.dtype)


def _matmul(op: Operation) -> Value:
    """Return a product with constants: of rows as a dense layer, of the last axis of samples as a convolution."""
    is_first = isinstance(op.inputs[0], np.ndarray)
    value, constant = op.value(int(is_first)), op.constant(int(not is_first))
    if not is_first and constant.ndim == 2:
        shape = (len(value.items),) if isinstance(value, Features) else value.shape
        if isinstance(value, Features) or len(shape) == 1:
            return linear(value, constant.T, np.zeros(constant.shape[1]), op.dtype)
        if shape[-1] != len(constant):
            op.refuse(f"expected samples of {len(constant)} numbers in the last axis, found {shape}")
        pixels = replace(value, index=value.index.reshape(-1, 1, shape[-1]).transpose(2, 0, 1))
        found = convolution(pixels, constant.T[:, :, None, None], np.zeros(constant.shape[1]), ConvolutionSpec())
        return replace(found, index=found.index.transpose(1, 2, 0).reshape(*shape[:-1], -1))
    value = enter(value, op.dtype)
    rank = len(value.shape)
    if is_first and rank < 2:
        op.refuse("expected a product with each row, found one with the batch", OverBatchError)
    if constant.ndim > rank + 1 or (constant.ndim == rank + 1 and constant.shape[0] > 1):
        op.refuse(f"expected a constant for a sample of {value.shape}, found {constant.shape}", OverBatchError)
    constant = (constant[0] if constant.ndim == rank + 1 else constant).astype(np.float64)
    op.budget.spend(value.index.size**2)
    return mapped(value, lambda units: np.matmul(constant, units) if is_first else np.matmul(units, constant))


def _sample_constant(op: Operation, value: Features | Layers, constant: Array) -> Array:
    """Return a constant that is the same for each row of a batch, for one sample."""
    rank = 1 if isinstance(value, Features) else len(value.shape)
    if constant.ndim == rank + 1 and constant.shape[0] == 1:
        constant = constant[0]
    elif constant.ndim > rank:
        op.refuse(f"expected a constant for each row, found shape {constant.shape}")
    shape = (len(value.items),) if isinstance(value, Features) else value.shape
    try:
        broadcast = np.broadcast_shapes(constant.shape, shape)
    except ValueError:
        op.refuse(f"expected a constant for samples of {shape}, found shape {constant.shape}")
    if broadcast != shape:
        op.refuse(f"expected a constant for samples of {shape}, found shape {constant.shape}")
    return constant.astype(np.float64)


def _add(op: Operation) -> Value:
    value, constant, _ = op.one_value_and_constant()
    return affine(value, 1.0, _sample_constant(op, value, constant))


def _subtract(op: Operation) -> Value:
    value, given, swapped = op.one_value_and_constant()
    constant = _sample_constant(op, value, given)
    if not swapped:
        return affine(value, 1.0, -constant)
    ends_in_probability = isinstance(value, Layers) and value.modules and isinstance(value.modules[-1], Sigmoid)
    if isinstance(value, Layers) and ends_in_probability and (constant == 1).all():
        return Complement(value)
    return affine(value, -1.0, constant)


def _multiply(op: Operation) -> Value:
    value, constant, _ = op.one_value_and_constant()
    return affine(value, _sample_constant(op, value, constant), 0.0)


def _divide(op: Operation) -> Value:
    value, given, swapped = op.one_value_and_constant()
    constant = _sample_constant(op, value, given)
    if given.dtype.kind in "iu":
        op.refuse("expected floating point, found a division of whole numbers")
    if swapped or not constant.all():
        op.refuse("expected a computed value divided by numbers other than 0")
    return affine(value, 1 / constant, 0.0)


def _activation(make: Callable[[Operation], Module]) -> Callable[[Operation], Value]:
    return lambda op: enter(op.value(), op.dtype).then(make(op))


def _leaky_relu(op: Operation) -> Module:
    alpha = op.attribute("alpha", 0.01)
    if not 0 <= alpha < 1:
        op.refuse(f"expected alpha from 0 to below 1, found {alpha}")
    return LeakyReLU(float(alpha))


def _selu(op: Operation) -> Value:
    """Return `γ ELU(x)`; SELU for its own numbers."""
    alpha, gamma = (float(op.attribute(name, own)) for name, own in zip(("alpha", "gamma"), _SELU, strict=True))
    value = enter(op.value(), op.dtype)
    if np.allclose((alpha, gamma), _SELU, rtol=1e-6):
        return value.then(SELU())
    return affine(value.then(ELU(alpha)), gamma, 0.0)


def _gelu(op: Operation) -> Module:
    return GELU() if op.attribute("approximate", b"none") == b"tanh" else ExactGELU()


def _swish(op: Operation) -> Module:
    alpha = op.attribute("alpha", 1.0)
    if alpha != 1:
        op.refuse(f"expected alpha = 1, found {alpha}")
    return SiLU()


def _clip(op: Operation) -> Value:
    value = flatten(enter(op.value(), op.dtype))
    low = op.constant(1, op.attribute("min", -np.finfo(op.dtype).max))
    high = op.constant(2, op.attribute("max", np.finfo(op.dtype).max))
    size = value.stored[0]
    limits = min(low.item(), high.item()), high.item()  # ONNX: a minimum above the maximum is the maximum
    arrays = {name: value.array(np.full(size, one)) for name, one in zip(("low", "high"), limits, strict=True)}
    return value.then(Clip(size, dtype=op.dtype, arrays=arrays))


def _prelu(op: Operation) -> Value:
    value = flatten(enter(op.value(), op.dtype))
    slope = np.broadcast_to(_sample_constant(op, value, op.constant(1)), value.shape)
    arrays = {"alpha": value.array(1 - by_feature(value, slope))}  # x + (1 - slope) (max(0, x) - x)
    return value.then(ParametricActivation(value.stored[0], "relu", dtype=op.dtype, arrays=arrays))


def _softmax(op: Operation) -> Value:
    value = enter(op.value(), op.dtype)
    axis = op.attribute("axis", -1 if op.opset >= 13 else 1)
    if op.opset < 13 and axis == 1:  # over all values of a row
        value = replace(value, index=value.index.reshape(-1))
    return softmax(value, axis_of_sample(op, value, axis))


def _log_softmax(op: Operation) -> Value:
    return LogProbabilities(_softmax(op))


def _cast(op: Operation) -> Value:
    value = op.inputs[0]
    if op.attribute("to") in _FLOATS or isinstance(value, PredictedLabel | LargestIndex):
        return value
    if isinstance(value, Features):  # of texts to texts, or of an indicator to bool, as converters write it
        return value
    return op.refuse("expected a type of floating point, found another")


def _where(op: Operation) -> Value:
    """Return texts with a replacement for missing ones, as skl2onnx writes a SimpleImputer of texts."""
    is_missing, fills, texts = op.value(0), op.constant(1).ravel().tolist(), op.value(2)
    if not isinstance(is_missing, Features) or not isinstance(texts, Features):
        op.refuse("expected texts before the first layer, found values after one")
    if len(fills) not in (1, len(texts.items)) or len(is_missing.items) != len(texts.items):
        op.refuse("expected texts, and one for each column where they are missing; found other values")
    repeated = fills * (len(texts.items) // len(fills))
    items: list[Feature] = []
    for indicator, item, fill in zip(is_missing.items, texts.items, repeated, strict=True):
        tests_missing = (
            isinstance(indicator, CategoryFeature)
            and (indicator.column, indicator.categories) == (item.column, ("",))
            and (indicator.weights, indicator.constant) == ({0: 1.0, 1: 0.0}, 0)
        )
        if not tests_missing or not isinstance(item, TextFeature) or item.fill is not None or not isinstance(fill, str):
            op.refuse(f"column {item.column!r}: expected a text in place of empty ones, found another condition")
        items.append(replace(item, fill=fill))
    return replace(texts, items=tuple(items))


def _same(op: Operation) -> Value:
    return op.inputs[0]


def _dropout(op: Operation) -> Value:
    if op.has(2) and op.constant(2).any():
        op.refuse("expected inference, found training_mode = true", TrainingModeError)
    return op.value()


def window_settings(attributes: Mapping[str, Any], sizes: Sequence[int], shape: tuple[int, ...]) -> ConvolutionSpec:
    """Return the settings of a window for a sample (channels, sizes...). UnsupportedOperationError for wrong ones."""
    axes = len(sizes)
    if axes < 1 or len(shape) != axes + 1:
        expected = f"expected samples (channels, sizes...) for a window of {list(sizes)}"
        raise UnsupportedOperationError(f"{expected}, found {shape}")
    strides, dilations = (tuple(attributes.get(name) or (1,) * axes) for name in ("strides", "dilations"))
    pads = list(attributes.get("pads") or (0,) * (2 * axes))
    if (len(strides), len(dilations), len(pads)) != (axes, axes, 2 * axes) or min(*sizes, *strides, *dilations) < 1:
        expected = f"expected {axes} strides and dilations of at least 1 and {2 * axes} pads"
        raise UnsupportedOperationError(f"{expected}, found others")
    kind = attributes.get("auto_pad", b"NOTSET")
    if kind in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = same_padding(shape[1:], sizes, strides, dilations, at_end=kind == b"SAME_UPPER")
    return ConvolutionSpec(strides, tuple(pads), dilations)


def _conv(op: Operation) -> Value:
    value, weights = enter(op.value(), op.dtype), op.constant(1)
    spec = replace(window_settings(op.attributes, weights.shape[2:], value.shape), groups=op.attribute("group", 1))
    return convolution(value, weights, op.constant(2, np.zeros(len(weights))), spec)


def _pooled(op: Operation) -> tuple[Layers, list[int], ConvolutionSpec, tuple[int, ...]]:
    """Return the input of a pooling, its window, settings, and the padding without what ceil_mode adds."""
    value, sizes = enter(op.value(), op.dtype), list(op.attribute("kernel_shape", ()))
    spec = window_settings(op.attributes, sizes, value.shape)
    whole = whole_windows(value.shape[1:], sizes, spec) if op.attribute("ceil_mode", 0) else spec
    return value, sizes, whole, spec.pads


def _max_pool(op: Operation) -> Value:
    value, sizes, spec, _ = _pooled(op)
    return max_pool(value, sizes, spec)


def _average_pool(op: Operation) -> Value:
    value, sizes, spec, pads = _pooled(op)
    return average_pool(value, sizes, spec, pads if op.attribute("count_include_pad", 0) else ())


def _global_average_pool(op: Operation) -> Value:
    value = enter(op.value(), op.dtype)
    return mean(value, range(1, len(value.shape)))


def _reduce_mean(op: Operation) -> Value:
    value = enter(op.value(), op.dtype)
    axes = [axis_of_sample(op, value, axis) for axis in axes_of(op)]
    if not axes:
        op.refuse("expected axes of a row, found none, which are all with the batch", OverBatchError)
    averaged = mean(value, axes)
    return averaged if op.attribute("keepdims", 1) else replace(averaged, index=averaged.index.squeeze(tuple(axes)))


def _batch_normalization(op: Operation) -> Value:
    if op.attribute("training_mode", 0):
        op.refuse("expected training_mode = 0, found 1", TrainingModeError)
    value = enter(op.value(), op.dtype)
    if len(value.shape) == 3:
        value = as_image(value, op.dtype)
    scale, shift, average, variance = (op.constant(i) for i in range(1, 5))
    return batch_norm(value, scale, shift, average, variance, float(op.attribute("epsilon", 1e-5)))


def _layer_normalization(op: Operation) -> Value:
    value = enter(op.value(), op.dtype)
    axis = axis_of_sample(op, value, op.attribute("axis", -1))
    scale, shift = (np.asarray(op.constant(i, 0.0), np.float64) for i in (1, 2))
    own = value.shape[axis:]
    if any(len(one.shape) > len(own) for one in (scale, shift)):
        op.refuse(f"expected scale and shift of {own}, found {scale.shape} and {shift.shape}")
    scale, shift = (np.broadcast_to(one, own) for one in (scale, shift))
    return layer_norm(value, scale, shift, float(op.attribute("epsilon", 1e-5)), axes=len(own))


def _arg_max(op: Operation) -> Value:
    return LargestIndex(op.inputs[0])


OPERATORS: dict[str, Callable[[Operation], Value]] = {
    **SHAPE_OPERATORS,
    "Add": _add,
    "ArgMax": _arg_max,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _activation(lambda op: ELU(float(op.attribute("alpha", 1.0)))),
    "Exp": _activation(lambda _: Exp()),
    "Gelu": _activation(_gelu),
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "Identity": _same,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _activation(_leaky_relu),
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mish": _activation(lambda _: Mish()),
    "Mul": _multiply,
    "PRelu": _prelu,
    "ReduceMean": _reduce_mean,
    "Relu": _activation(lambda _: ReLU()),
    "Selu": _selu,
    "Sigmoid": _activation(lambda _: Sigmoid()),
    "Softmax": _softmax,
    "Softplus": _activation(lambda _: Softplus()),
    "Sub": _subtract,
    "Swish": _activation(_swish),
    "Tanh": _activation(lambda _: Tanh()),
    "Where": _where,
}
# Operators that are computed while a file is read if all of their inputs are constants.
FOLDED = {
    *("Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Gather", "Identity", "Mul", "Neg", "Pow"),
    *("Reciprocal", "Reshape", "Shape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
}


def folded_values(operator: str, attributes: Mapping[str, Any], inputs: list[Any]) -> int:
    """Return how many values a folded constant has at most. ValueError for texts, which grow when they are added."""
    if operator not in {"Constant", "Identity"} and any(o is not None and o.dtype.kind not in "biuf" for o in inputs):
        raise ValueError("expected numbers as constants, found texts")
    if operator == "Cast" and attributes.get("to") == STRING:
        raise ValueError("expected a type of numbers, found texts")
    shapes = [one.shape for one in inputs if isinstance(one, np.ndarray)]
    size = sum(map(shape_values, shapes))
    if operator in {"Add", "Div", "Mul", "Pow", "Sub"} and shapes:
        size = shape_values(np.broadcast_shapes(*shapes))
    elif operator == "ConstantOfShape" and inputs:
        size = shape_values(int(one) for one in inputs[0].ravel().tolist())
    elif operator == "Gather" and len(inputs) == 2:
        along = inputs[0].shape[attributes.get("axis", 0)]
        size = shape_values(inputs[0].shape) // max(1, along) * max(1, inputs[1].size)
    elif operator == "Constant" and "value" in attributes:
        size = shape_values(attributes["value"].dims)
    return size


def evaluated_values(operator: str, attributes: Mapping[str, Any], inputs: list[Any], found: Any) -> int:
    """Return the values that onnx's reference evaluator computes for a row, or what takes as long as so many."""
    size = len(found.items) if isinstance(found, Features) else found.index.size if isinstance(found, Layers) else 1
    if operator in {"AveragePool", "MaxPool"}:  # loops of Python over all windows
        return size * (_POOLED_VALUES + shape_values(attributes.get("kernel_shape", ())))
    if operator == "Conv" and isinstance(found, Layers):  # copies all windows into a matrix
        return size + size // found.shape[0] * shape_values(inputs[1].shape[1:])
    return int(size)
