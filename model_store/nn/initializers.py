"""Initializers: draw initial weights so that signals neither vanish nor explode from layer to layer.

A sum of `fan_in` values of variance 1 keeps the variance 1 if its weights have the variance 1/fan_in; likewise the
gradient on its way back with `fan_out`, the number of outputs that a value contributes to. A convolution shares its
weights, so its fans count one window: kernel² · channels in, kernel² · filters out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Initializer = Callable[["np.random.Generator", tuple[int, ...], int, int], Array]  # a string: the import takes time


def _normal(
    variance: Callable[[int, int], float], rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> Array:
    weights: Array = rng.standard_normal(shape) * np.sqrt(variance(fan_in, fan_out))
    return weights


def _uniform(
    variance: Callable[[int, int], float], rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> Array:
    """Draw from ±√(3 variance), a range of that variance."""
    weights: Array = rng.uniform(-1, 1, shape) * np.sqrt(3 * variance(fan_in, fan_out))
    return weights


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...], _: int, __: int) -> Array:
    """Draw orthonormal rows, or columns if there are fewer of them; Saxe et al. 2014."""
    rows, columns = shape[0], int(np.prod(shape[1:]))
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.where(np.diagonal(r) < 0, -1, 1)  # else QR's choice of signs would not be uniform
    return (q if rows >= columns else q.T).reshape(shape)


def _lecun_variance(fan_in: int, _: int) -> float:
    return 1 / fan_in


def _glorot_variance(fan_in: int, fan_out: int) -> float:
    return 2 / (fan_in + fan_out)


def _he_variance(fan_in: int, _: int) -> float:
    return 2 / fan_in  # a ReLU lets half of the variance through


DEFAULT_INITIALIZER = "glorot_uniform"

# name -> weights (outputs, ...) drawn from rng, given their shape, fan_in and fan_out
INITIALIZERS: dict[str, Initializer] = {
    "normal": partial(_normal, lambda *_: 1),  # the article's: standard normal for any size, too large for many inputs
    "lecun_normal": partial(_normal, _lecun_variance),  # LeCun et al. 1998
    "lecun_uniform": partial(_uniform, _lecun_variance),
    "glorot_normal": partial(_normal, _glorot_variance),  # Glorot & Bengio 2010, equations 12 and 16
    "glorot_uniform": partial(_uniform, _glorot_variance),
    "he_normal": partial(_normal, _he_variance),  # He et al. 2015, equation 10
    "he_uniform": partial(_uniform, _he_variance),
    "orthogonal": _orthogonal,
    "zeros": lambda _, shape, *__: np.zeros(shape),
}
# The same by the first names of their authors.
INITIALIZERS |= {
    "xavier_normal": INITIALIZERS["glorot_normal"],
    "xavier_uniform": INITIALIZERS["glorot_uniform"],
    "kaiming_normal": INITIALIZERS["he_normal"],
    "kaiming_uniform": INITIALIZERS["he_uniform"],
}


def initial_parameters(
    name: str, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> tuple[Array, Array]:
    """Return initial weights and bias; the bias is standard normal with "normal", as in the article, else 0.

    ValueError if `INITIALIZERS` has no such name.
    """
    if name not in INITIALIZERS:
        raise ValueError(f"initializer: expected one of {', '.join(INITIALIZERS)}; found {name!r}")
    bias = rng.standard_normal(shape[0]) if name == "normal" else np.zeros(shape[0])
    return INITIALIZERS[name](rng, shape, fan_in, fan_out), bias
