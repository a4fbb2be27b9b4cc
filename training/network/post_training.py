"""Changes to a trained network: features that were constant no longer count, outputs stay in the training range, and
probabilities are calibrated.

`copy_arrays` gives the weights of a trained network to another one, which continues from them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.nn import Clip, ConstantInputs, Dropout, Flatten, Linear, Sequential, Sigmoid, Softmax


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


def has_logits(network: Sequential) -> bool:
    """Return True if a network ends in a dense layer and a softmax or sigmoid, whose logits `divide_logits` scales."""
    last = network.modules[-2:]
    return len(last) == 2 and isinstance(last[0], Linear) and isinstance(last[1], (Softmax, Sigmoid))


def divide_logits(network: Sequential, temperature: float) -> None:
    """Divide the logits of a network by a temperature: weights and bias of its last dense layer, without a new layer.

    ValueError unless the network `has_logits`.
    """
    if not has_logits(network):
        raise ValueError("modules: expected a Linear and a Softmax or Sigmoid at the end")
    last: Any = network.modules[-2]
    last.weights /= temperature
    last.bias /= temperature


def copy_arrays(trained: Sequential, network: Sequential) -> None:
    """Copy the weights of a trained network to one that was built alike. ValueError if a layer differs.

    The constant features that `hold_constant_features` put before the first layer may vary from now on.
    """
    modules = [module for module in trained.modules if not isinstance(module, ConstantInputs)]
    if [type(module) for module in modules] != [type(module) for module in network.modules]:
        names = [[type(module).__name__ for module in found] for found in (network.modules, modules)]
        raise ValueError(f"modules: expected the layers {names[0]}, found {names[1]}")
    for i, (module, source) in enumerate(zip(network.modules, modules, strict=True)):
        found = source.arrays()
        for name, array in module.arrays().items():
            if found[name].shape != array.shape:
                raise ValueError(f"modules.{i}.{name}: expected {array.shape}, found {found[name].shape}")
            array[...] = found[name]
