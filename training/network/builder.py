"""The network builder: the modules of a list of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_store.errors import Fault
from model_store.nn import (
    ELU,
    GELU,
    SELU,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Embedding,
    ExactGELU,
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
    SiLU,
)
from training.config.layer_spec import IMAGE_TABLES, OUTPUT_ACTIVATIONS, LayerSpec
from training.errors import JobError
from training.network.feature_kinds import FeatureKinds

_ACTIVATION_INITIALIZERS: dict[type[Module], str] = {
    **dict.fromkeys((ReLU, LeakyReLU, GELU, ExactGELU, SiLU, ELU, Mish), "he_normal"),
    SELU: "lecun_normal",
}


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
    draws the weights and later the dropout masks. The default initializer is he_normal before ReLU and
    activations like it, lecun_normal before SELU, else glorot_uniform.

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
    kind = next(name for name in IMAGE_TABLES if name in layer)
    if len(shape) == 1:
        raise ValueError(f"expected images for '{kind}', found rows of {shape[0]} values")
    settings = {key: value for key, value in layer.items() if key != kind}
    if kind != "conv":
        return (MaxPool2D if kind == "pool" else AveragePool2D)(shape, layer[kind], **settings)
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
