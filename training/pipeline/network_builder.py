"""The network builder: the network, loss and encoded targets for a job's settings and a signature.

Input and output sizes follow from the signature, the last activation from the task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.nn import (
    GELU,
    SELU,
    BatchNorm,
    Clip,
    ConstantInputs,
    Conv2D,
    Dropout,
    Embedding,
    FeatureScale,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    Mish,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
    ReLU,
    Sequential,
)
from model_store.nn.activations import ACTIVATIONS
from model_store.schema.signature import ClassificationOutput, RegressionOutput, Signature
from training.config.layer_spec import OUTPUT_ACTIVATIONS, LayerSpec, needs_images
from training.config.settings import JobSettings, TrainSection
from training.engine.batch_checks import check_batch_norm
from training.errors import JobError
from training.losses import LOSSES, Loss, RowWeighted
from training.pipeline.feature_kinds import FeatureKinds

_RANGE_LIMITED_ACTIVATIONS = ("tanh", "sigmoid", "relu", "gelu", "selu", "mish", "smooth_clip", "exp")
_ACTIVATION_INITIALIZERS: dict[type[Module], str] = {
    **dict.fromkeys((ReLU, LeakyReLU, GELU, Mish), "he_normal"),
    SELU: "lecun_normal",
}
_POSITIVE_LOSSES = ("poisson", "gamma")
_CLASS_LOSSES = ("cross_entropy", "binary_cross_entropy")


@dataclass(frozen=True)
class NetworkSpec:
    """The specification of a network, before weights are drawn. `output` is None for no last activation."""

    layers: Sequence[LayerSpec]
    initializer: str | None
    dtype: str
    input_shape: tuple[int, ...]
    output_size: int
    output: str | None
    loss: str
    source: str = "job"
    class_weights: tuple[float, ...] | None = None
    quantile: float | None = None
    label_smoothing: float | None = None
    clip_outputs: bool = False
    weighted: bool = False
    features: FeatureKinds = field(default_factory=FeatureKinds)

    def build(self, rng: np.random.Generator) -> Sequential:
        """Build the network. `rng` draws the initial weights, and during training the dropout masks."""
        last = [] if self.output in (None, "identity") else [self.output]
        layers: list[LayerSpec] = [*self.layers, self.output_size, *last]
        modules = build_modules(
            layers,
            self.input_shape,
            self.features,
            dtype=self.dtype,
            rng=rng,
            initializer=self.initializer,
            source=self.source,
        )
        if self.clip_outputs:
            modules.append(Clip(self.output_size, dtype=np.dtype(self.dtype)))
        return Sequential(modules)

    def criterion(self, *, smoothed: bool = True) -> Loss:
        """Return the loss with its settings; not `smoothed`, without label smoothing, as rows are judged."""
        smoothing = self.label_smoothing if smoothed else None
        settings = {"weights": self.class_weights, "quantile": self.quantile, "label_smoothing": smoothing}
        loss = LOSSES[self.loss](**{name: value for name, value in settings.items() if value is not None})
        return RowWeighted(loss) if self.weighted else loss

    def encode_targets(self, targets: NDArray[Any], output: ClassificationOutput | RegressionOutput) -> NDArray[Any]:
        """Return targets (see `Dataset`) as the outputs that the network learns, (n, outputs)."""
        if isinstance(output, RegressionOutput):
            scaled: NDArray[Any] = (targets - output.offset) / output.scale
            return scaled.astype(self.dtype)
        if self.output_size == 1:
            return targets.reshape(-1, 1).astype(self.dtype)
        one_hot: NDArray[Any] = np.eye(self.output_size, dtype=self.dtype)[targets]
        return one_hot

    def find_invalid_target(self, encoded: NDArray[Any]) -> tuple[int, str, str] | None:
        """Return the first row whose encoded targets the loss cannot take, the problem and a fix; None if all fit."""
        loss = replace(self, weighted=False).criterion()
        invalid = np.flatnonzero(loss.find_invalid_targets(encoded).any(axis=1))
        if not len(invalid):
            return None
        return (
            int(invalid[0]),
            f"expected a target {loss.target_range} for the loss '{self.loss}'",
            "use 'mse', for example",
        )

    def resolved(self, settings: JobSettings) -> JobSettings:
        """Return the settings with inferred values filled in."""
        network = replace(settings.network, output=self.output or "identity")
        return replace(settings, network=network, train=replace(settings.train, loss=self.loss))


def specify_network(settings: JobSettings, signature: Signature, source: str = "job") -> NetworkSpec:
    """Return the network's specification. JobError if loss or output do not fit the task, or layers the data."""
    network = settings.network
    initializer = network.initializer or ("lecun_normal" if network.parametrization == "ntk" else None)
    output: str | None
    if isinstance(signature.output, ClassificationOutput):
        output, loss = _classification_head(settings, len(signature.output.labels), source)
        size = 1 if output == "sigmoid" else len(signature.output.labels)
    else:
        output, loss = _regression_head(settings, source)
        size = len(signature.output.names)
    shape = _image_shape(signature, source) if needs_images(network.layers) else (signature.width,)
    spec = NetworkSpec(
        network.layers,
        initializer,
        network.dtype,
        shape,
        size,
        output,
        loss,
        source,
        quantile=settings.train.quantile,
        label_smoothing=settings.train.label_smoothing,
        clip_outputs=bool(network.clip_outputs),
        features=FeatureKinds.of(signature),
    )
    if len(shape) > 1:
        replace(spec, initializer="zeros").build(np.random.default_rng(0))  # JobError if shapes do not fit
    return spec


def check_batches(spec: NetworkSpec, section: TrainSection, rows: int) -> list[str]:
    """Return a note if the last batch has too few rows for batch_norm. JobError if all batches have."""
    if "batch_norm" not in spec.layers:
        return []
    network = replace(spec, initializer="zeros").build(np.random.default_rng(0))
    try:
        note = check_batch_norm(network, rows, rows if section.batch_size == "all" else int(section.batch_size))
    except ValueError as error:
        fix = "write a batch_size of 2 or more, or use layer_norm"
        raise JobError(spec.source, [Fault("train.batch_size", str(error), fix)]) from error
    return [] if note is None else [note]


def _image_shape(signature: Signature, source: str) -> tuple[int, ...]:
    shape = signature.inputs[0].shape
    if len(shape) == 2:
        return (*shape, 1)
    if len(shape) != 3:
        found = f"arrays of shape {shape}" if shape else "columns of a table"
        fix = "conv and pool need arrays of (height, width) or (height, width, channels)"
        raise JobError(source, [Fault("network.layers", f"expected images, found {found}", fix)])
    return shape


def _classification_head(settings: JobSettings, labels: int, source: str) -> tuple[str, str]:
    output, loss = settings.network.output, settings.train.loss
    faults = []
    if output not in (None, "softmax", "sigmoid"):
        fix = "remove it: the default for classifications is softmax"
        faults.append(Fault("network.output", f"expected 'softmax' or 'sigmoid', found '{output}'", fix))
    binary = output == "sigmoid" or (output is None and loss == "binary_cross_entropy")
    if binary and labels != 2:
        location = "network.output" if output == "sigmoid" else "train.loss"
        fix = "remove it: more classes need softmax and cross_entropy"
        faults.append(Fault(location, f"expected two classes, found {labels}", fix))
    wrong = "cross_entropy" if binary else "binary_cross_entropy"
    if loss == wrong and (binary or output == "softmax"):
        ending = "sigmoid" if binary else "softmax"
        faults.append(Fault("train.loss", f"'{wrong}' does not fit the output '{ending}'", "remove it"))
    if settings.train.class_weights is not None and loss not in (None, *_CLASS_LOSSES):
        fix = "remove the loss or the weights"
        faults.append(Fault("train.class_weights", f"expected a loss with class weights, found '{loss}'", fix))
    if settings.train.label_smoothing is not None and loss not in (None, *_CLASS_LOSSES):
        fix = "remove the loss or the smoothing"
        faults.append(Fault("train.label_smoothing", f"expected a loss of probabilities, found '{loss}'", fix))
    if loss in _POSITIVE_LOSSES or loss == "pinball":
        faults.append(Fault("train.loss", f"'{loss}' is only for regressions, found a classification", "remove it"))
    if settings.network.clip_outputs:
        problem = "only for regressions, found a classification"
        faults.append(Fault("network.clip_outputs", problem, "remove it"))
    if faults:
        raise JobError(source, faults)
    return ("sigmoid", loss or "binary_cross_entropy") if binary else ("softmax", loss or "cross_entropy")


def _regression_head(settings: JobSettings, source: str) -> tuple[str | None, str]:
    output, loss = settings.network.output, settings.train.loss
    faults = []
    if output == "softmax":
        fix = f"use one of {', '.join(ACTIVATIONS)}, or remove it"
        faults.append(Fault("network.output", "'softmax' is only for classifications, found a regression", fix))
    elif loss in _POSITIVE_LOSSES and output not in (None, "exp"):
        fix = "remove it: the default for this loss is exp"
        faults.append(Fault("network.output", f"'{loss}' needs positive outputs, found '{output}'", fix))
    elif output in _RANGE_LIMITED_ACTIVATIONS and settings.data.scale != "none" and loss not in _POSITIVE_LOSSES:
        problem = f"'{output}' cannot produce all values of a standardised target"
        faults.append(Fault("network.output", problem, "remove it, or write scale = 'none' in [data]"))
    if loss in _CLASS_LOSSES:
        faults.append(
            Fault("train.loss", f"'{loss}' is only for classifications, found a regression", "use 'mse', for example")
        )
    if settings.train.label_smoothing is not None:
        problem = "only for classifications, found a regression"
        faults.append(Fault("train.label_smoothing", problem, "remove it"))
    if faults:
        raise JobError(source, faults)
    return "exp" if loss in _POSITIVE_LOSSES else output, loss or "mse"


def fit_positive_output(signature: Signature, loss: str | None) -> Signature:
    """Return the signature for a loss of positive targets: these are divided by their mean, but not shifted."""
    output = signature.output
    if loss not in _POSITIVE_LOSSES or not isinstance(output, RegressionOutput) or not any(output.offset):
        return signature
    means = tuple(mean if mean > 0 else 1.0 for mean in output.offset)
    return replace(signature, output=replace(output, offset=(0.0,) * len(means), scale=means))


def build_modules(
    layers: Sequence[LayerSpec],
    input_shape: tuple[int, ...],
    features: FeatureKinds | None = None,
    *,
    dtype: str,
    rng: np.random.Generator,
    initializer: str | None,
    source: str = "job",
) -> list[Module]:
    """Build the modules of layers for samples of `input_shape`. JobError if a layer does not fit its input.

    Images are flattened before the first dense layer. An embedding is left out if no feature is of its kind. `rng`
    draws the weights and later the dropout masks. The default initializer is he_normal before ReLU, LeakyReLU, GELU and
    Mish, lecun_normal before SELU, else glorot_uniform.

    features: the kinds of the first layer's inputs.
    """
    modules: list[Module] = []
    shape, features = input_shape, features or FeatureKinds()
    for i, layer in enumerate(layers):
        options = {
            "dtype": np.dtype(dtype),
            "rng": rng,
            "initializer": initializer or _default_initializer(layers[i + 1 :]),
        }
        if len(shape) > 1 and (isinstance(layer, int) or layer == "flatten"):
            modules.append(Flatten(shape))
            shape = modules[-1].output_shape(shape) or shape
        if layer == "flatten":
            continue
        if isinstance(layer, dict) and not layer.keys().isdisjoint(("embedding", "periodic")):
            taken = list(features.codes if "embedding" in layer else features.numbers)
            if not taken:
                continue
            modules.append(_build_embedding(layer, shape[0], features, options))
            features = features.after(taken)
            shape = modules[-1].output_shape(shape) or shape
            continue
        try:
            modules.append(_build_module(layer, shape, rng, options))
            if isinstance(layer, int):
                features = FeatureKinds()
            shape = modules[-1].output_shape(shape) or shape
        except ValueError as error:
            raise JobError(source, [Fault(f"network.layers.{i}", str(error))]) from error
    return modules


def _build_embedding(
    layer: dict[str, Any], inputs: int, features: FeatureKinds, options: dict[str, Any]
) -> Embedding | PeriodicEmbedding:
    drawn = {"dtype": options["dtype"], "rng": options["rng"]}
    if "embedding" in layer:
        counts = list(features.codes.values())
        embedding = Embedding(inputs, list(features.codes), counts, layer["embedding"], **drawn)
        embedding.weights[np.cumsum(counts) - 1] = 0  # an unknown category, of which nothing is learned, adds nothing
        return embedding
    settings = {key: value for key, value in layer.items() if key != "periodic"}
    return PeriodicEmbedding(inputs, features.numbers, layer["periodic"], **settings, **drawn)


def _build_module(
    layer: LayerSpec, shape: tuple[int, ...], rng: np.random.Generator, options: dict[str, Any]
) -> Module:
    if isinstance(layer, int):
        return Linear(shape[0], layer, **options)
    if layer == "batch_norm":
        return BatchNorm(shape[-1], dtype=options["dtype"])
    if layer == "layer_norm":
        if shape[-1] == 1:
            raise ValueError("expected two values or more for 'layer_norm', found 1, whose difference to its mean is 0")
        return LayerNorm(shape[-1], dtype=options["dtype"])
    if layer == "feature_scale":
        return FeatureScale(math.prod(shape), dtype=options["dtype"])
    if isinstance(layer, str):
        activation: Module = OUTPUT_ACTIVATIONS[layer]()
        return activation
    if "parametric" in layer:
        return ParametricActivation(math.prod(shape), layer["parametric"], dtype=options["dtype"])
    if "dropout" in layer:
        return Dropout(layer["dropout"], rng=rng)
    kind = "conv" if "conv" in layer else "pool"
    if len(shape) == 1:
        raise ValueError(f"expected images for '{kind}', found rows of {shape[0]} values")
    settings = {key: value for key, value in layer.items() if key != kind}
    if kind == "pool":
        return MaxPool2D(shape, layer["pool"], **settings)
    return Conv2D(shape, layer["conv"], **settings, **options)


def _default_initializer(followers: Sequence[LayerSpec]) -> str:
    """Choose the initializer by the first activation that follows before the next layer with weights."""
    for layer in followers:
        if isinstance(layer, int) or (isinstance(layer, dict) and "conv" in layer):
            break
        name = layer.get("parametric") if isinstance(layer, dict) else layer
        if isinstance(name, str) and name in OUTPUT_ACTIVATIONS:
            return _ACTIVATION_INITIALIZERS.get(OUTPUT_ACTIVATIONS[name], "glorot_uniform")
    return "glorot_uniform"


def hold_constant_features(network: Sequential, constant: NDArray[np.bool_], values: NDArray[Any]) -> Sequential:
    """Return the trained network such that features which had one value in training no longer change its answers.

    These are unknown categories, pixels that are always off, and columns with one value. Nothing was learned about
    other values of theirs: their weights are random, or act as a bias. A dense layer gets weights of 0, and their share
    in its bias. Before any other layer, which may mix features or share weights, `ConstantInputs` replaces them.

    constant: which features had one value, (features,); their `values`.
    """
    if not constant.any():
        return network
    first = next(module for module in network.modules if not isinstance(module, (Dropout, Flatten)))
    if isinstance(first, Linear):
        first.bias += first.weights[:, constant] @ values[constant]
        first.weights[:, constant] = 0
        return network
    held = ConstantInputs(len(constant), dtype=network.dtype)
    held.constant, held.values = constant, np.where(constant, values, 0)
    return Sequential([held, *network.modules])


def set_output_range(network: Sequential, low: NDArray[Any], high: NDArray[Any]) -> None:
    """Limit the outputs of a network that ends in a `Clip` to those of the training rows, (outputs,) each."""
    last = network.modules[-1]
    if isinstance(last, Clip):
        last.low, last.high = low, high


def summarize_layers(network: Sequential) -> list[tuple[str, str, int]]:
    """Return each layer's type, its input and output shapes if they differ, and its number of parameters."""
    rows = []
    for module, (before, after) in zip(network.modules, network.shapes(), strict=True):
        show_shapes = before and after and (before != after or module.parameters())
        sizes = f"{_shape(before or ())} -> {_shape(after or ())}" if show_shapes else ""
        rows.append((type(module).__name__, sizes, sum(array.size for array in module.parameters())))
    return rows


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
