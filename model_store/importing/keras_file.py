"""Keras: a `.keras` file with a Sequential model, read with h5py and without Keras."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import ModelImportError
from model_store.importing.budget import Budget, BudgetError, shape_values
from model_store.importing.features import ARRAY_NAME, Features, NumberFeature
from model_store.importing.files import describe_source, missing_package, open_zip, read_file, read_member
from model_store.importing.images import (
    ConvolutionSpec,
    as_image,
    average_pool,
    convolution,
    max_pool,
    mean,
    same_padding,
)
from model_store.importing.imported_model import ImportedModel
from model_store.importing.layers import (
    Layers,
    affine,
    array_input,
    batch_norm,
    enter,
    layer_norm,
    linear,
    softmax,
)
from model_store.nn import (
    ELU,
    SELU,
    Array,
    ExactGELU,
    Exp,
    LeakyReLU,
    Mish,
    Module,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from model_store.nn.config_fields import MAX_SAMPLE_VALUES
from model_store.schema.columns import ArrayColumn

_MAX_CONFIG_BYTES = 4 << 20
_MAX_LAYERS = 1000
_MAX_NUMBERS = 100  # of an input; more are one array
_DTYPE = np.dtype(np.float32)
_ACTIVATIONS: dict[str, Callable[[], Module]] = {
    "relu": ReLU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "elu": ELU,
    "gelu": ExactGELU,  # Keras saves no other
    "selu": SELU,
    "silu": SiLU,
    "softplus": Softplus,
    "mish": Mish,
    "exponential": Exp,
    "leaky_relu": lambda: LeakyReLU(0.2),  # Keras's default slope
}


class _LayerError(ValueError):
    """A layer is used in a way that cannot be imported."""


class _Weights:
    """The arrays of one layer, in the order in which Keras saves them."""

    def __init__(self, group: Any, budget: Budget) -> None:
        self.group = group
        self.budget = budget

    def take(self, position: int, shape: tuple[int, ...]) -> Array:
        """Return an array of this shape. _LayerError for another, or one that is not in the file as it is."""
        import h5py  # noqa: PLC0415 - an extra

        name = str(position)
        link = None if self.group is None else self.group.get(name, getlink=True)
        data = self.group[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise _LayerError(f"array {name}: expected numbers of shape {shape} in the file, found none")
        if data.shape != shape or data.dtype.kind != "f":
            raise _LayerError(f"array {name}: expected numbers of shape {shape}, found {data.shape} of {data.dtype}")
        if data.chunks is not None or data.id.get_storage_size() < data.nbytes:  # bytes that are made when it is read
            problem = f"expected {data.nbytes} bytes in the file, found compressed ones or none"
            raise _LayerError(f"array {name}: {problem}; save the model with Keras")
        self.budget.spend(shape_values(shape))
        return np.asarray(data[()], np.float32)


def _activation(value: Features | Layers, name: Any) -> Features | Layers:
    if isinstance(name, Mapping):
        name = name.get("config")
    if name in (None, "linear"):
        return value
    value = enter(value, _DTYPE)
    if name == "softmax":
        return softmax(value, _last_axis(value))
    if name not in _ACTIVATIONS:
        raise _LayerError(f"activation: expected one of {', '.join([*_ACTIVATIONS, 'softmax'])}; found {name!r}")
    return value.then(_ACTIVATIONS[name]())


def _last_axis(value: Layers) -> int:
    """Return the axis of the channels, which ours have first."""
    return 0 if len(value.shape) == 3 else len(value.shape) - 1


def _dense(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    value = enter(value, _DTYPE) if isinstance(value, Layers) else value
    shape = (len(value.items),) if isinstance(value, Features) else value.shape
    if len(shape) != 1:
        raise _LayerError(f"expected rows, found samples of {_shown(shape)}; add Flatten before it")
    units = int(config["units"])
    kernel = weights.take(0, (*shape, units))
    bias = weights.take(1, (units,)) if config["use_bias"] else np.zeros(units)
    return _activation(linear(value, kernel.T, bias, _DTYPE), config["activation"])


def _shown(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _image(value: Features | Layers, config: Mapping[str, Any]) -> Layers:
    if config.get("data_format") not in (None, "channels_last"):
        raise _LayerError(f"data_format: expected 'channels_last', found {config['data_format']!r}")
    return as_image(value, _DTYPE)


def _spec(config: Mapping[str, Any], sizes: list[int], shape: tuple[int, ...]) -> ConvolutionSpec:
    strides = tuple(int(one) for one in config["strides"] or sizes)
    dilations = tuple(int(one) for one in config.get("dilation_rate", (1, 1)))
    if config["padding"] not in ("valid", "same"):
        raise _LayerError(f"padding: expected 'valid' or 'same', found {config['padding']!r}")
    pads = same_padding(shape[1:], sizes, strides, dilations) if config["padding"] == "same" else [0, 0, 0, 0]
    top, left, bottom, right = pads
    return ConvolutionSpec((strides[0], strides[1]), (top, left, bottom, right), (dilations[0], dilations[1]))


def _conv(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    image = _image(value, config)
    sizes, filters, groups = [int(one) for one in config["kernel_size"]], int(config["filters"]), int(config["groups"])
    kernel = weights.take(0, (*sizes, image.shape[0] // groups, filters))
    bias = weights.take(1, (filters,)) if config["use_bias"] else np.zeros(filters)
    spec = replace(_spec(config, sizes, image.shape), groups=groups)
    return _activation(convolution(image, kernel.transpose(3, 2, 0, 1), bias, spec), config["activation"])


def _max_pool(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del weights
    image, sizes = _image(value, config), [int(one) for one in config["pool_size"]]
    return max_pool(image, sizes, _spec(config, sizes, image.shape))


def _average_pool(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    """Return the means of windows, in which Keras does not count the padding."""
    del weights
    image, sizes = _image(value, config), [int(one) for one in config["pool_size"]]
    return average_pool(image, sizes, _spec(config, sizes, image.shape))


def _global_average_pool(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del weights
    averaged = mean(_image(value, config), [1, 2])
    return averaged if config.get("keepdims") else replace(averaged, index=averaged.index.reshape(-1))


def _batch_norm(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    value = enter(value, _DTYPE)
    if config["axis"] not in (-1, len(value.shape), [-1], [len(value.shape)]):
        raise _LayerError(f"axis: expected the last, found {config['axis']}")
    axis = _last_axis(value)
    size = (value.shape[axis],)
    names = [name for name in ("scale", "center") if config[name]]
    found = {name: weights.take(i, size) for i, name in enumerate([*names, "mean", "variance"])}
    scale, shift = found.get("scale", np.ones(size)), found.get("center", np.zeros(size))
    return batch_norm(value, scale, shift, found["mean"], found["variance"], float(config["epsilon"]), axis=axis)


def _layer_norm(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    value = enter(value, _DTYPE)
    if config["axis"] not in (-1, len(value.shape), [-1], [len(value.shape)]) or config.get("rms_scaling"):
        raise _LayerError(f"expected the last axis without rms_scaling, found axis {config['axis']}")
    size = (value.shape[_last_axis(value)],)
    names = [name for name in ("scale", "center") if config[name]]
    found = {name: weights.take(i, size) for i, name in enumerate(names)}
    given = found.get("scale", np.ones(size)), found.get("center", np.zeros(size)), float(config["epsilon"])
    if len(value.shape) == 1:
        return layer_norm(value, *given)
    turned = layer_norm(replace(value, index=value.index.transpose(1, 2, 0)), *given)
    return replace(turned, index=turned.index.transpose(2, 0, 1))


def _flatten(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del weights
    if config.get("data_format") not in (None, "channels_last"):
        raise _LayerError(f"data_format: expected 'channels_last', found {config['data_format']!r}")
    if isinstance(value, Layers):
        index = value.index.transpose(1, 2, 0) if len(value.shape) == 3 else value.index
        return replace(value, index=index.reshape(-1))
    return value


def _rescaling(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del weights
    factor, constant = (_by_channel(value, np.asarray(config[key], np.float64)) for key in ("scale", "offset"))
    return affine(value, factor, constant)


def _by_channel(value: Features | Layers, numbers: Array) -> Array:
    """Return numbers of the last axis for an image (channels, height, width)."""
    if numbers.ndim > 1:
        numbers = numbers.reshape(-1)
    is_image = isinstance(value, Layers) and len(value.shape) == 3
    return numbers.reshape(-1, 1, 1) if is_image and numbers.ndim else numbers


def _normalization(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    if config.get("invert") or config["axis"] not in ([-1], -1, [1]):
        raise _LayerError(f"expected axis -1 without invert, found axis {config['axis']}")
    if config.get("mean") is not None:
        mean, variance = (np.asarray(config[key], np.float64).ravel() for key in ("mean", "variance"))
    else:
        size = (len(value.items) if isinstance(value, Features) else value.shape[_last_axis(value)],)
        mean, variance = weights.take(0, size), weights.take(1, size)
    scale = np.maximum(np.sqrt(variance.astype(np.float64)), 1e-7)  # Keras's epsilon
    return affine(value, _by_channel(value, 1 / scale), _by_channel(value, -mean / scale))


def _named_activation(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del weights
    return _activation(value, config["activation"])


def _relu(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del weights
    if config.get("max_value") is not None or config.get("threshold"):
        raise _LayerError("expected no max_value and no threshold, found one")
    slope = float(config.get("negative_slope") or 0.0)
    return enter(value, _DTYPE).then(LeakyReLU(slope) if slope else ReLU())


def _elu(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del weights
    return enter(value, _DTYPE).then(ELU(float(config["alpha"])))


def _softmax(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del weights
    if config["axis"] not in (-1, [-1]):
        raise _LayerError(f"axis: expected -1, found {config['axis']}")
    return _activation(value, "softmax")


def _same(value: Features | Layers, config: Mapping[str, Any], weights: _Weights) -> Features | Layers:
    del config, weights
    return value


_Read = Callable[[Features | Layers, Mapping[str, Any], _Weights], Features | Layers]
LAYERS: dict[str, _Read] = {
    "Activation": _named_activation,
    "AveragePooling2D": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv2D": _conv,
    "Dense": _dense,
    "Dropout": _same,
    "ELU": _elu,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_average_pool,
    "LayerNormalization": _layer_norm,
    "LeakyReLU": _relu,
    "MaxPooling2D": _max_pool,
    "Normalization": _normalization,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Softmax": _softmax,
}


def read_keras(path: Path) -> ImportedModel:
    """Return the Sequential model of a `.keras` file. ModelImportError names a layer that cannot be imported."""
    try:
        import h5py  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(path, "h5py", "keras") from error
    data = read_file(path)
    with open_zip(path, data) as archive:
        config, metadata = (
            _json(path, name, read_member(path, archive, name, _MAX_CONFIG_BYTES))
            for name in ("config.json", "metadata.json")
        )
        weights = read_member(path, archive, "model.weights.h5")
    layers = _layer_configs(path, config)
    try:
        file = h5py.File(BytesIO(weights), "r")
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelImportError(f"{path}: model.weights.h5: expected an HDF5 file; {error}") from error
    with file:
        value = _read_layers(path, layers, file, Budget.of(len(data)))
    version = str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
    return ImportedModel.of(describe_source("keras", path, data, f"keras {version}"), enter(value, _DTYPE))


def _json(path: Path, name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelImportError(f"{path}: {name}: expected JSON, found an error: {error}") from error


def _layer_configs(path: Path, config: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return class and configuration of each layer."""
    kind = config.get("class_name") if isinstance(config, dict) else None
    if kind != "Sequential":
        fix = "build the network with keras.Sequential"
        raise ModelImportError(f"{path}: config.json: expected a Sequential, found {kind!r}; {fix}")
    layers = config["config"].get("layers") if isinstance(config.get("config"), dict) else None
    if not isinstance(layers, list) or not 1 <= len(layers) <= _MAX_LAYERS:
        raise ModelImportError(f"{path}: config.json: expected 1 to {_MAX_LAYERS} layers, found others")
    found = []
    for i, layer in enumerate(layers):
        if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
            raise ModelImportError(f"{path}: layer {i}: expected a class and its configuration, found none")
        found.append((str(layer.get("class_name")), layer["config"]))
    return found


def _read_layers(
    path: Path, layers: list[tuple[str, Mapping[str, Any]]], file: Any, budget: Budget
) -> Features | Layers:
    if layers[0][0] != "InputLayer":
        raise ModelImportError(f"{path}: expected an InputLayer first, found {layers[0][0]}; add keras.Input(shape)")
    counts: Counter[str] = Counter()
    value = _input(path, layers[0][1], budget)
    for kind, config in layers[1:]:
        location = f"{path}: layer {config.get('name')!r} ({kind})"
        if kind not in LAYERS:
            raise ModelImportError(f"{location}: expected one of {', '.join(LAYERS)}")
        name = _snake_case(kind)
        group = f"layers/{name}_{counts[name]}/vars" if counts[name] else f"layers/{name}/vars"
        counts[name] += 1
        try:
            read = partial(LAYERS[kind], value, config, _Weights(_group(file, group), budget))
            value = budget.step(value, read)
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise ModelImportError(
                f"{location}: expected the configuration of Keras 3, found another; {error}"
            ) from error
        except (ValueError, OSError, RuntimeError) as error:
            raise ModelImportError(f"{location}: {error}") from error
    return value


def _group(file: Any, path: str) -> Any:
    """Return a group of the file itself, None if there is none: links may lead to other files."""
    import h5py  # noqa: PLC0415 - an extra

    found = file
    for name in path.split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(name, getlink=True), h5py.HardLink):
            return None
        found = found[name]
    return found if isinstance(found, h5py.Group) else None


def _snake_case(name: str) -> str:
    """Return the name of a class as Keras writes it: MaxPooling2D, max_pooling2d."""
    name = re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _input(path: Path, config: Mapping[str, Any], budget: Budget) -> Features | Layers:
    shape = config.get("batch_shape")
    sizes = shape[1:] if isinstance(shape, list) else None
    if not sizes or any(type(size) is not int or size < 1 for size in sizes) or math.prod(sizes) > MAX_SAMPLE_VALUES:
        raise ModelImportError(f"{path}: InputLayer: expected a shape of fixed sizes, found {shape}")
    if len(sizes) == 1 and sizes[0] <= _MAX_NUMBERS:
        names = tuple(f"{ARRAY_NAME}{i}" for i in range(sizes[0]))
        return Features(tuple(NumberFeature(name) for name in names), names, is_named=False)
    try:
        budget.spend_row(sizes)
    except BudgetError as error:
        raise ModelImportError(f"{path}: InputLayer: {error}") from error
    stored = tuple(sizes) if len(sizes) == 3 else (math.prod(sizes),)
    index = np.arange(math.prod(sizes)).reshape(sizes)
    index = index.transpose(2, 0, 1) if len(sizes) == 3 else index
    shown = tuple(sizes[:2]) if len(sizes) == 3 and sizes[2] == 1 else tuple(sizes)
    return array_input(ArrayColumn(ARRAY_NAME, shown), stored, index, _DTYPE)
