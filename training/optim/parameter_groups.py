"""Parameter groups: factors of the learning rate and the weight decay for arrays of one kind.

The groups are layers by their name in a job file, and the arrays `weights` and `bias` of all other layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from model_store.nn import (
    Array,
    BatchNorm,
    Conv2D,
    Embedding,
    FeatureScale,
    LayerNorm,
    Linear,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
    Sequential,
)

_LAYER_GROUPS: dict[type[Module], str] = {
    FeatureScale: "feature_scale",
    ParametricActivation: "parametric",
    Embedding: "embedding",
    PeriodicEmbedding: "periodic",
    BatchNorm: "batch_norm",
    LayerNorm: "layer_norm",
}
PARAMETER_GROUPS = ("weights", "bias", *_LAYER_GROUPS.values())


def group_factors(module: Module, factors: Mapping[str, float]) -> list[float]:
    """Return a factor for each of `module.parameters()`, by the name of its group; 1 for groups without one."""
    return [factors.get(group, 1.0) for group, _ in _grouped_arrays(module)]


def ntk_factors(module: Module, *, normalized: bool) -> list[float]:
    """Return the factor of the learning rate of each of `module.parameters()` in the neural-tangent parametrization.

    There a layer is `Y = X Vᵀ / √n + b`, n its inputs and V standard normal (Jacot, Gabriel & Hongler 2018). In terms
    of `W = V / √n`, the weights of `Linear`, `∂E/∂V = ∂E/∂W / √n`, so that a step of V by its gradient is 1/n of that
    of W. If the optimizer normalizes gradients, as Adam does, the steps of V and W are equal: then W takes 1/√n of it.
    """
    power = 0.5 if normalized else 1.0
    return [
        math.prod(array.shape[1:]) ** -power if group == "weights" else 1.0 for group, array in _grouped_arrays(module)
    ]


def _grouped_arrays(module: Module) -> Iterator[tuple[str, Array]]:
    """Yield every array of parameters with the name of its group, in the order of `module.parameters()`."""
    if isinstance(module, Sequential):
        for inner in module.modules:
            yield from _grouped_arrays(inner)
        return
    names = getattr(module, "parameter_names", ())
    for i, array in enumerate(module.parameters()):
        own = names[i] if i < len(names) and isinstance(module, (Linear, Conv2D)) else ""
        yield _LAYER_GROUPS.get(type(module), own), array
