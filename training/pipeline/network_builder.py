"""The design: the network that a job's settings and a signature ask for, the loss, and the targets it is given.

Sizes of the input and the output follow from the signature, the last activation from the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.nn import (
    GELU,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    Module,
    ReLU,
    Sequential,
)
from model_store.schema.signature import ArrayColumn, ClassificationOutput, RegressionOutput, Signature
from training.config.layer_spec import ACTIVATIONS, OUTPUT_ACTIVATIONS, LayerSpec, needs_images
from training.config.settings import Settings
from training.errors import JobError
from training.losses import LOSSES, Loss

_BOUNDED = ("tanh", "sigmoid", "relu", "gelu")
_RELU_FAMILY = (ReLU, LeakyReLU, GELU)
_CLASS_LOSSES = ("cross_entropy", "binary_cross_entropy")


@dataclass(frozen=True)
class NetworkSpec:
    """What is decided about a network before its first weight is drawn. `output` is None for no last activation."""

    layers: Sequence[LayerSpec]
    initializer: str | None
    dtype: str
    input_shape: tuple[int, ...]
    output_size: int
    output: str | None
    loss: str
    source: str = "job"
    class_weights: tuple[float, ...] | None = None

    def network(self, rng: np.random.Generator) -> Sequential:
        """The network. `rng` draws the first weights, and while it trains what its dropout layers drop."""
        last = [] if self.output in (None, "identity") else [self.output]
        plan: list[LayerSpec] = [*self.layers, self.output_size, *last]
        return Sequential(
            modules(plan, self.input_shape, dtype=self.dtype, rng=rng, initializer=self.initializer, source=self.source)
        )

    def criterion(self) -> Loss:
        loss = LOSSES[self.loss]
        return loss() if self.class_weights is None else loss(self.class_weights)

    def targets(self, answers: NDArray[Any], output: ClassificationOutput | RegressionOutput) -> NDArray[Any]:
        """Answers (see `Dataset`) as what the network is to put out, (n, outputs)."""
        if isinstance(output, RegressionOutput):
            scaled: NDArray[Any] = (answers - output.offset) / output.scale
            return scaled.astype(self.dtype)
        if self.output_size == 1:
            return answers.reshape(-1, 1).astype(self.dtype)
        one_hot: NDArray[Any] = np.eye(self.output_size, dtype=self.dtype)[answers]
        return one_hot

    def resolved(self, settings: Settings) -> Settings:
        """The settings with what was inferred written out."""
        network = replace(settings.network, output=self.output or "identity")
        return replace(settings, network=network, train=replace(settings.train, loss=self.loss))


def design(settings: Settings, signature: Signature, source: str = "job") -> NetworkSpec:
    """JobError where loss or output do not suit the task, or layers the data."""
    network = settings.network
    output: str | None
    if isinstance(signature.output, ClassificationOutput):
        output, loss = _for_classes(settings, len(signature.output.labels), source)
        size = 1 if output == "sigmoid" else len(signature.output.labels)
    else:
        output, loss = _for_values(settings, source)
        size = len(signature.output.names)
    shape = _image_shape(signature, source) if needs_images(network.layers) else (signature.width,)
    plan = NetworkSpec(network.layers, network.initializer, network.dtype, shape, size, output, loss, source)
    if len(shape) > 1:
        replace(plan, initializer="zeros").network(np.random.default_rng(0))  # do the shapes fit one another?
    return plan


def _image_shape(signature: Signature, source: str) -> tuple[int, ...]:
    column = signature.inputs[0]
    shape = column.shape if isinstance(column, ArrayColumn) else ()
    if len(shape) == 2:
        return (*shape, 1)
    if len(shape) != 3:
        found = f"arrays of shape {shape}" if shape else "columns of a table"
        fix = "conv and pool are for arrays of (height, width) or (height, width, channels)"
        raise JobError(source, [Fault("network.layers", f"expected images; found {found}", fix)])
    return shape


def _for_classes(settings: Settings, labels: int, source: str) -> tuple[str, str]:
    output, loss = settings.network.output, settings.train.loss
    faults = []
    if output not in (None, "softmax", "sigmoid"):
        fix = "leave it out: a classification ends in softmax"
        faults.append(Fault("network.output", f"expected 'softmax' or 'sigmoid'; found '{output}'", fix))
    binary = output == "sigmoid" or (output is None and loss == "binary_cross_entropy")
    if binary and labels != 2:
        location = "network.output" if output == "sigmoid" else "train.loss"
        fix = "leave it out: more classes end in softmax, with cross_entropy"
        faults.append(Fault(location, f"expected two classes for one probability; found {labels}", fix))
    wrong = "cross_entropy" if binary else "binary_cross_entropy"
    if loss == wrong and (binary or output == "softmax"):
        ending = "sigmoid" if binary else "softmax"
        faults.append(Fault("train.loss", f"'{wrong}' does not suit an output of '{ending}'", "leave it out"))
    if settings.train.class_weights is not None and loss not in (None, *_CLASS_LOSSES):
        fix = "leave the loss out, or the weights"
        faults.append(Fault("train.class_weights", f"expected a loss that weighs classes; found '{loss}'", fix))
    if faults:
        raise JobError(source, faults)
    return ("sigmoid", loss or "binary_cross_entropy") if binary else ("softmax", loss or "cross_entropy")


def _for_values(settings: Settings, source: str) -> tuple[str | None, str]:
    output, loss = settings.network.output, settings.train.loss
    faults = []
    if output == "softmax":
        fix = f"one of {', '.join(ACTIVATIONS)}, or leave it out"
        faults.append(Fault("network.output", "'softmax' is for classifications; found a regression", fix))
    elif output in _BOUNDED and settings.data.scale == "standard":
        problem = f"'{output}' cannot reach all values of a standardised target"
        faults.append(Fault("network.output", problem, "leave it out, or write scale = 'none' in [data]"))
    if loss in _CLASS_LOSSES:
        faults.append(Fault("train.loss", f"'{loss}' is for classifications; found a regression", "'mse', for example"))
    if faults:
        raise JobError(source, faults)
    return output, loss or "mse"


def modules(
    layers: Sequence[LayerSpec],
    input_shape: tuple[int, ...],
    *,
    dtype: str,
    rng: np.random.Generator,
    initializer: str | None,
    source: str = "job",
) -> list[Module]:
    """The modules of these layers for samples of `input_shape`. JobError where a layer does not fit there.

    Images are flattened before the first dense layer. `rng` draws the weights and, later, what dropout drops; no
    initializer is he_normal before a ReLU and its kin, else glorot_uniform.
    """
    made: list[Module] = []
    shape = input_shape
    for i, layer in enumerate(layers):
        learned = {"dtype": np.dtype(dtype), "rng": rng, "initializer": initializer or _initializer(layers[i + 1 :])}
        if len(shape) > 1 and (isinstance(layer, int) or layer == "flatten"):
            made.append(Flatten(shape))
            shape = made[-1].output_shape(shape) or shape
        if layer == "flatten":
            continue
        try:
            made.append(_module(layer, shape, rng, learned))
            shape = made[-1].output_shape(shape) or shape
        except ValueError as error:
            raise JobError(source, [Fault(f"network.layers.{i}", str(error))]) from error
    return made


def _module(layer: LayerSpec, shape: tuple[int, ...], rng: np.random.Generator, learned: dict[str, Any]) -> Module:
    if isinstance(layer, int):
        return Linear(shape[0], layer, **learned)
    if layer == "batch_norm":
        return BatchNorm(shape[-1], dtype=learned["dtype"])
    if layer == "layer_norm":
        return LayerNorm(shape[-1], dtype=learned["dtype"])
    if isinstance(layer, str):
        activation: Module = OUTPUT_ACTIVATIONS[layer]()
        return activation
    if "dropout" in layer:
        return Dropout(layer["dropout"], rng=rng)
    kind = "conv" if "conv" in layer else "pool"
    if len(shape) == 1:
        raise ValueError(f"expected images for '{kind}'; found {shape[0]} values in a row")
    settings = {key: value for key, value in layer.items() if key != kind}
    if kind == "pool":
        return MaxPool2D(shape, layer["pool"], **settings)
    return Conv2D(shape, layer["conv"], **settings, **learned)


def _initializer(followers: Sequence[LayerSpec]) -> str:
    """By the first activation that follows before other weights do."""
    for layer in followers:
        if isinstance(layer, int) or (isinstance(layer, dict) and "conv" in layer):
            break
        if isinstance(layer, str) and layer in OUTPUT_ACTIVATIONS:
            return "he_normal" if OUTPUT_ACTIVATIONS[layer] in _RELU_FAMILY else "glorot_uniform"
    return "glorot_uniform"


def zero_unseen_features(network: Sequential, seen: NDArray[np.bool_]) -> None:
    """Zero the weights of features that no training row has: a bucket for the unknown, a pixel that is always off.

    No gradient would ever reach them, so a row that has such a feature would meet the noise they were drawn from.
    """
    first = next(module for module in network.modules if isinstance(module, Linear))
    if network.modules[0] is first:
        first.weights[:, ~seen] = 0


def parameters_of(network: Sequential) -> list[tuple[str, str, int]]:
    """Each layer's type, the shapes that go in and come out where they tell, and its number of parameters."""
    rows = []
    for module, (before, after) in zip(network.modules, network.shapes(), strict=True):
        tells = before and after and (before != after or module.parameters())
        sizes = f"{_shape(before or ())} -> {_shape(after or ())}" if tells else ""
        rows.append((type(module).__name__, sizes, sum(array.size for array in module.parameters())))
    return rows


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
