"""PyTorch: a state_dict, as .safetensors or .pt, for the layers of a job file.

Such a file has weights and no network. Its tensors are grouped by module, `fc1.weight` and `fc1.bias`, and given to the
layers of the job in order.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import ModelImportError
from model_store.importing.budget import Budget, BudgetError, shape_values
from model_store.importing.features import ARRAY_NAME, Features, NumberFeature
from model_store.importing.files import describe_source, missing_package, open_zip, read_file
from model_store.importing.images import ConvolutionSpec, as_image, average_pool, convolution, max_pool
from model_store.importing.imported_model import ImportedModel
from model_store.importing.layers import (
    Layers,
    array_input,
    batch_norm,
    enter,
    layer_norm,
    linear,
    softmax,
)
from model_store.nn import Array, Exp
from model_store.nn.layers.activations import ACTIVATIONS
from model_store.schema.columns import ArrayColumn
from model_store.utils.regular_file import open_regular
from model_store.utils.toml import MAX_BYTES, TomlError, parse_toml

_DTYPE = np.dtype(np.float32)
_EPSILON = 1e-5  # PyTorch's default, and ours
_MAX_NUMBERS = 100  # of a row; more are one array
_MAX_LAYERS = 1000
_NAMES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_CONV_DEFAULTS = {"kernel": 3, "stride": 1, "padding": 0}
_CONVERT = 'safetensors.torch.save_file(model.state_dict(), "model.safetensors")'


class _LayerError(ValueError):
    """The tensors do not fit a layer."""


@dataclass(frozen=True)
class _Module:
    """The tensors of one module, by the last part of their names."""

    name: str
    tensors: Mapping[str, Array]

    @property
    def kind(self) -> str:
        if "running_mean" in self.tensors:
            return "batch_norm"
        rank = self.tensors["weight"].ndim if "weight" in self.tensors else 0
        return {1: "layer_norm", 2: "linear", 4: "conv"}.get(rank, "other")

    def take(self, name: str, size: int, default: float) -> Array:
        """Return a vector of this size; one of `default` if the module has none."""
        found = self.tensors.get(name)
        if found is None:
            return np.full(size, default)
        if found.shape != (size,):
            raise _LayerError(f"tensor {self.name}.{name}: expected shape {(size,)}, found {found.shape}")
        return found


class _Modules:
    """The modules that no layer has yet. Those of a file without an order are chosen by kind and shape."""

    def __init__(self, modules: Sequence[_Module], *, ordered: bool) -> None:
        self.rest = list(modules)
        self.ordered = ordered
        self.was_ambiguous = False

    def take(self, kind: str, shape: tuple[int | None, ...]) -> _Module:
        """Return the next module of this kind, whose weights have these sizes where they are known."""
        fitting = [i for i, one in enumerate(self.rest) if one.kind == kind and _fits(one, shape)]
        if not fitting or (self.ordered and fitting[0] != 0):
            found = "no tensors" if not self.rest else _describe(self.rest[0])
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            raise _LayerError(f"expected weights of shape ({sizes}), found {found}")
        self.was_ambiguous |= not self.ordered and len(fitting) > 1 and None not in shape
        return self.rest.pop(fitting[0])


def _fits(module: _Module, shape: tuple[int | None, ...]) -> bool:
    weights = module.tensors.get("weight", module.tensors.get("running_mean"))
    found = () if weights is None else weights.shape
    return len(found) == len(shape) and all(want in (None, size) for want, size in zip(shape, found, strict=True))


def _describe(module: _Module) -> str:
    named = sorted(module.tensors.items(), key=lambda item: (item[0] != "weight", item[0]))  # files have any order
    return ", ".join(f"{module.name}.{name} of shape {tensor.shape}" for name, tensor in named)


def read_pytorch(path: Path, job: Path | None, shape: Sequence[int] | None) -> ImportedModel:
    """Return the network of a job's layers with the weights of a file.

    shape: of an image, (height, width) or (height, width, channels). ModelImportError names the layer and the tensor
    that do not fit.
    """
    if job is None:
        fix = "name the job file whose [network] layers they are for"
        raise ModelImportError(f"{path}: expected --job, because the file has weights without layers; {fix}")
    data = read_file(path)
    budget = Budget.of(len(data))
    if path.suffix.lower() == ".safetensors":
        tensors, ordered, producer = _read_safetensors(path, data), False, "PyTorch (safetensors)"
    else:
        tensors, ordered, producer = *_read_state_dict(path, data), "PyTorch"
    modules = _Modules(_group(path, tensors, budget, ordered=ordered), ordered=ordered)
    layers, output = _job_layers(job)
    reader = _LayerReader(modules)
    try:
        value: Features | Layers = _input(path, modules, layers, shape, budget)
    except BudgetError as error:
        raise ModelImportError(f"{path}: input: {error}") from error
    if len(modules.rest) > len(layers) + 1:  # before each layer looks for its own in all of them
        found = f"expected tensors of {len(layers) + 1} layers at most, found {len(modules.rest)}"
        raise ModelImportError(f"{job}: network.layers ({path.name}): {found}")
    for i, layer in enumerate([*layers, None]):
        location = f"{job}: network.layers.{i}" if layer is not None else f"{job}: the output layer"
        try:
            read = reader.output_layer if layer is None else reader.layer
            value = budget.step(value, partial(read, value, output if layer is None else layer))
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ModelImportError(f"{location} ({path.name}): {error}") from error
    if modules.rest:
        problem = f"expected a layer for each tensor, found none for {_describe(modules.rest[0])}"
        raise ModelImportError(f"{job}: network.layers ({path.name}): {problem}")
    note = "Tensors of equal shape were given to the layers in the order of their names: compare with --golden."
    notes = (note,) if modules.was_ambiguous else ()
    return ImportedModel.of(describe_source("pytorch", path, data, producer), enter(value, _DTYPE), notes=notes)


def _read_safetensors(path: Path, data: bytes) -> dict[str, Array]:
    try:
        from safetensors import SafetensorError  # noqa: PLC0415
        from safetensors.numpy import load  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(path, "safetensors", "safetensors") from error
    try:
        return load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # KeyError: bfloat16
        fix = "save float32"
        raise ModelImportError(f"{path}: expected tensors of numbers that NumPy has; {error}; {fix}") from error


def _read_state_dict(path: Path, data: bytes) -> tuple[dict[str, Array], bool]:
    try:
        import torch  # noqa: PLC0415
    except ImportError as error:
        fix = f"install torch, or save {_CONVERT}"
        raise ModelImportError(f"{path}: needs torch to read it without running code; {fix}") from error
    if zipfile.is_zipfile(BytesIO(data)):
        with open_zip(path, data):
            pass  # what its members unpack to has a limit
    try:
        found = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of pickle, zipfile and its own
        problem = "expected a state_dict, which torch.load(weights_only=True) reads"
        raise ModelImportError(f"{path}: {problem}; save model.state_dict(); {str(error)[:300]}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(hasattr(tensor, "numpy") for tensor in found.values()):
        raise ModelImportError(f"{path}: expected a state_dict of tensors, found {type(found).__name__}")
    return {str(name): tensor.detach().numpy() for name, tensor in found.items()}, True


def _group(path: Path, tensors: Mapping[str, Array], budget: Budget, *, ordered: bool) -> list[_Module]:
    grouped: dict[str, dict[str, Array]] = {}
    for name, tensor in tensors.items():
        module, _, last = name.rpartition(".")
        if last not in _NAMES:
            raise ModelImportError(f"{path}: tensor {name}: expected one of {', '.join(sorted(_NAMES))} in a module")
        if last == "num_batches_tracked":
            continue
        if tensor.dtype.kind != "f":
            raise ModelImportError(f"{path}: tensor {name}: expected floating point, found {tensor.dtype}")
        try:
            budget.spend(shape_values(tensor.shape))
        except BudgetError as error:
            raise ModelImportError(f"{path}: tensor {name}: {error}") from error
        if not tensor.size:
            raise ModelImportError(f"{path}: tensor {name}: expected numbers, found none of shape {tensor.shape}")
        grouped.setdefault(module, {})[last] = tensor
    names = list(grouped) if ordered else sorted(grouped, key=_natural)
    return [_Module(name, grouped[name]) for name in names]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts 2 before 10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _job_layers(job: Path) -> tuple[list[Any], str | None]:
    """Return `[network] layers` of a job file, and its `output`."""
    with open_regular(job) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ModelImportError(f"{job}: expected {MAX_BYTES} bytes at most, found more")
    try:
        found = parse_toml(data.decode("utf-8-sig"))
    except (TomlError, UnicodeDecodeError) as error:
        raise ModelImportError(f"{job}: expected TOML, found an error: {error}") from error
    network = found.get("network")
    layers = network.get("layers") if isinstance(network, dict) else None
    if not isinstance(layers, list):
        raise ModelImportError(f"{job}: network.layers: expected a list such as [16, 'tanh'], found {layers!r}")
    if len(layers) > _MAX_LAYERS:
        raise ModelImportError(f"{job}: network.layers: expected {_MAX_LAYERS} layers at most, found {len(layers)}")
    output = network.get("output") if isinstance(network, dict) else None
    return layers, output


def _input(
    path: Path, modules: _Modules, layers: Sequence[Any], shape: Sequence[int] | None, budget: Budget
) -> Features | Layers:
    """Return the input: an image of the given shape, or as many numbers as the first dense layer has.

    BudgetError if a file of this size may not have so many.
    """
    if any(isinstance(layer, dict) and not {"conv", "pool", "average_pool"}.isdisjoint(layer) for layer in layers):
        if shape is None or len(shape) not in (2, 3):
            fix = 'write {"shape": [height, width, channels]} into the file for --signature'
            raise ModelImportError(f"{path}: expected the shape of an image, found none; {fix}")
        stored = (int(shape[0]), int(shape[1]), int(shape[2]) if len(shape) == 3 else 1)
        budget.spend_row(stored)
        index = np.arange(math.prod(stored)).reshape(stored).transpose(2, 0, 1)
        return array_input(ArrayColumn(ARRAY_NAME, tuple(map(int, shape))), stored, index, _DTYPE)
    first = next((module for module in modules.rest if module.kind == "linear"), None)
    if first is None:
        raise ModelImportError(f"{path}: expected the weights of a dense layer, found none")
    count = first.tensors["weight"].shape[1]
    if count > _MAX_NUMBERS:
        budget.spend_row((count,))
        return array_input(ArrayColumn(ARRAY_NAME, (count,)), (count,), np.arange(count), _DTYPE)
    names = tuple(f"{ARRAY_NAME}{i}" for i in range(count))
    return Features(tuple(NumberFeature(name) for name in names), names, is_named=False)


class _LayerReader:
    """Adds one layer of a job at a time."""

    def __init__(self, modules: _Modules) -> None:
        self.modules = modules

    def layer(self, value: Features | Layers, layer: Any) -> Features | Layers:
        """Return the value after a layer of the job. ValueError for one that a state_dict cannot have."""
        if isinstance(layer, int) and not isinstance(layer, bool):
            return self._dense(value, layer)
        if isinstance(layer, dict) and "conv" in layer:
            return self._conv(as_image(value, _DTYPE), layer)
        if isinstance(layer, dict) and ("pool" in layer or "average_pool" in layer):
            pool = max_pool if "pool" in layer else average_pool
            size = int(layer["pool" if "pool" in layer else "average_pool"])
            stride, padding = int(layer.get("stride", size)), int(layer.get("padding", 0))
            return pool(as_image(value, _DTYPE), [size, size], ConvolutionSpec((stride, stride), (padding,) * 4))
        if isinstance(layer, dict) and "dropout" in layer:
            return value
        value = enter(value, _DTYPE)
        if layer == "flatten":
            return _flat(value)
        if layer == "batch_norm":
            size = value.shape[0]
            module = self.modules.take("batch_norm", (size,))
            defaults = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
            scale, shift, mean, variance = (module.take(name, size, one) for name, one in defaults.items())
            return batch_norm(value, scale, shift, mean, variance, _EPSILON)
        if layer == "layer_norm":
            size = value.shape[-1]
            module = self.modules.take("layer_norm", (size,))
            return layer_norm(value, module.take("weight", size, 1), module.take("bias", size, 0), _EPSILON)
        if isinstance(layer, str) and layer in ACTIVATIONS:
            return value.then(ACTIVATIONS[layer]())
        raise _LayerError(f"expected a layer that PyTorch has, too, found {layer!r}")

    def output_layer(self, value: Features | Layers, output: Any) -> Layers:
        """Return the value after the output layer, which a job does not list."""
        value = self._dense(value, None)
        if output in (None, "identity"):
            return value
        if output == "softmax":
            return softmax(value, 0)
        if output == "exp":
            return value.then(Exp())
        if output in ACTIVATIONS:
            return value.then(ACTIVATIONS[output]())
        raise _LayerError(f"network.output: expected an activation, found {output!r}")

    def _dense(self, value: Features | Layers, size: int | None) -> Layers:
        if isinstance(value, Layers):
            value = _flat(value)
        inputs = len(value.items) if isinstance(value, Features) else value.shape[0]
        module = self.modules.take("linear", (size, inputs))
        weights = module.tensors["weight"]
        return linear(value, weights, module.take("bias", len(weights), 0), _DTYPE)

    def _conv(self, value: Layers, layer: Mapping[str, Any]) -> Layers:
        kernel, stride, padding = (int(layer.get(key, one)) for key, one in _CONV_DEFAULTS.items())
        module = self.modules.take("conv", (layer["conv"], value.shape[0], kernel, kernel))
        bias = module.take("bias", layer["conv"], 0)
        return convolution(value, module.tensors["weight"], bias, ConvolutionSpec((stride, stride), (padding,) * 4))


def _flat(value: Layers) -> Layers:
    return replace(value, index=value.index.reshape(-1))
