"""Embeddings: one feature of the input, a category's number or a number, becomes several features that are learned.

Both layers take the features at some `positions` of X (batch, input_size). Y begins with the other features in their
order; after them come the embeddings, in the order of the positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.config_fields import INDEX_LIST, POSITIVE_INT
from model_store.nn.module import Shape
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule

_MIN_WAVE_BY_WAVE_NUMBERS = 256  # fewer take less time than the calls of NumPy for each wave


class _PositionalLayer(ParametrizedModule):
    """The base of both: `positions` are the features that it embeds; it passes on the others.

    It keeps no list of the others: `input_size` is a claim of a manifest that no array has to prove.
    """

    batch_invariant = True
    input_size: int
    positions: tuple[int, ...]

    def _check_positions(self) -> None:
        """Check the fields. ValueError for positions that are not ascending."""
        self.positions = tuple(int(index) for index in self.positions)
        self._check_fields()
        if list(self.positions) != sorted(set(self.positions)) or self.positions[-1] >= self.input_size:
            expected = f"ascending positions below {self.input_size}"
            raise ValueError(f"{type(self).__name__}.positions: expected {expected}, found {list(self.positions)[:10]}")
        self.chosen = np.array(self.positions)

    def is_other(self) -> Array:
        """Return True for each feature that the layer passes on, (input_size,)."""
        is_other = np.ones(self.input_size, bool)
        is_other[self.chosen] = False
        return is_other

    @property
    def embedded_size(self) -> int:
        """The number of features of one embedding."""
        raise NotImplementedError(f"{type(self).__name__} has no embedded_size")

    @property
    def output_size(self) -> int:
        return self.others_size + len(self.positions) * self.embedded_size

    @property
    def others_size(self) -> int:
        return self.input_size - len(self.positions)

    @property
    def input_shape(self) -> Shape:
        return (self.input_size,)

    def output_shape(self, input_shape: Shape | None) -> Shape:
        if input_shape not in (None, self.input_shape):
            raise ValueError(f"input_size: expected {input_shape}, the shape before it; found {self.input_size}")
        return (self.output_size,)


class Embedding(_PositionalLayer):
    """`yₛ = [others of xₛ, E₁[xₛₚ₁], E₂[xₛₚ₂], ...]`: a row of a table for each category; Guo & Berkhahn 2016.

    X (batch, input_size) has the number of a category, from 0 to `counts[i] - 1`, at `positions[i]`; a number outside
    counts as the nearest one, NaN as the last. The tables Eᵢ (counts[i], size) lie one below the other in `weights`
    (Σ counts, size), which start standard normal. Y (batch, others + len(positions) · size).
    `∂E/∂Eᵢ[k] += Σ ∂E/∂Y` of the rows with category k; `∂E/∂X` is 0 for the numbers of categories.
    """

    config_fields: ClassVar = {
        "input_size": POSITIVE_INT,
        "positions": INDEX_LIST,
        "counts": INDEX_LIST,
        "size": POSITIVE_INT,
    }
    parameter_names = ("weights",)
    build_options = ("dtype", "rng", "arrays")

    weights = ArrayAttribute()
    _weights: Array
    weights_grad: Array

    def __init__(
        self,
        input_size: int,
        positions: Sequence[int],
        counts: Sequence[int],
        size: int = 8,
        *,
        dtype: npt.DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self.input_size, self.positions, self.size = input_size, tuple(positions), size
        self.counts = tuple(int(count) for count in counts)
        self._check_positions()
        if len(self.counts) != len(self.positions) or min(self.counts) < 1:
            expected = f"{len(self.positions)} numbers of at least 1, one for each position"
            raise ValueError(f"Embedding.counts: expected {expected}, found {list(self.counts)[:10]}")
        self.last_codes = np.array(self.counts) - 1
        self.offsets = np.cumsum(self.counts) - self.counts  # the first row of each table
        if arrays is not None:
            self.load_read_only(dtype, arrays)
            return
        rng = np.random.default_rng() if rng is None else rng
        self.initialize(dtype, weights=rng.standard_normal(self.shapes()["weights"]))

    def shapes(self) -> dict[str, Shape]:
        return {"weights": (sum(self.counts), self.size)}

    @property
    def embedded_size(self) -> int:
        return self.size

    def table_rows(self, inputs: Array) -> Array:
        """Return the row of `weights` of each category, (batch, len(positions))."""
        codes = np.fmax(np.fmin(np.rint(inputs[:, self.chosen]), self.last_codes), 0)
        table_rows: Array = codes.astype(np.intp) + self.offsets
        return table_rows

    def __call__(self, inputs: Array) -> Array:
        embedded = self._weights[self.table_rows(inputs)].reshape(len(inputs), -1)
        return np.concatenate([inputs[:, self.is_other()], embedded], axis=1)

    def forward(self, inputs: Array) -> Array:
        self.inputs = inputs
        return self(inputs)

    def sum_by_table_row(self, table_rows: Array, embedded: Array) -> Array:
        """Return the sums of the values (batch, len(positions) · size) by table row, shaped like `weights`.

        `np.add.at` of single values is 20 to 40 times as fast as of rows, and adds them in the same order.
        """
        sums = np.zeros((self.size, len(self._weights)), embedded.dtype)
        for total, values in zip(sums, np.ascontiguousarray(embedded.reshape(-1, self.size).T), strict=True):
            np.add.at(total, table_rows.reshape(-1), values)
        return sums.T

    def backward(self, output_grad: Array) -> Array:
        if self.learns:
            embedded = output_grad[:, self.others_size :]
            self.weights_grad += self.sum_by_table_row(self.table_rows(self.inputs), embedded)
        input_grad = np.zeros_like(self.inputs)
        input_grad[:, self.is_other()] = output_grad[:, : self.others_size]
        return input_grad


class PeriodicEmbedding(_PositionalLayer):
    """`zᵢ = [cos(2π wᵢ xᵢ + bᵢ) Vᵢ + cᵢ, xᵢ]`: waves of learned frequencies for each number xᵢ, and the number itself.

    X (batch, input_size) has numbers at `positions`, n of them; Y (batch, others + n · size). For each number: `waves`
    frequencies wᵢ and phases bᵢ, (n, waves), weights Vᵢ (n, waves, size - 1) and bias cᵢ (n, size - 1). Gorishniy,
    Rubachev & Babenko 2022, in the form "PBLD" of Holzmüller, Grinsztajn & Steinwart 2024.

    With `a = 2π w x + b`, `D = ∂E/∂z` without its last column and sums over the batch:
    `∂E/∂V += cos(a)ᵀ D`, `∂E/∂c += Σ D`, `A = ∂E/∂a = -sin(a) ⊙ (D Vᵀ)`, `∂E/∂b += Σ A`, `∂E/∂w += 2π Σ A x`,
    `∂E/∂x = 2π A w` summed over the waves, plus the last column of `∂E/∂z`.

    `rng` draws w from a normal distribution of standard deviation `sigma`, b uniformly from ±π, V and c uniformly from
    ±1/√waves.
    """

    config_fields: ClassVar = {
        "input_size": POSITIVE_INT,
        "positions": INDEX_LIST,
        "waves": POSITIVE_INT,
        "size": POSITIVE_INT,
    }
    parameter_names = ("frequencies", "phases", "weights", "bias")
    build_options = ("dtype", "rng", "arrays")

    frequencies, phases, weights, bias = ArrayAttribute(), ArrayAttribute(), ArrayAttribute(), ArrayAttribute()
    _frequencies: Array
    _phases: Array
    _weights: Array
    _bias: Array
    frequencies_grad: Array
    phases_grad: Array
    weights_grad: Array
    bias_grad: Array

    def __init__(
        self,
        input_size: int,
        positions: Sequence[int],
        waves: int = 16,
        size: int = 4,
        *,
        sigma: float = 0.1,
        dtype: npt.DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self.input_size, self.positions, self.waves, self.size = input_size, tuple(positions), waves, size
        self._check_positions()
        if self.size < 2:
            raise ValueError(f"PeriodicEmbedding.size: expected at least 2, the number itself included; found {size}")
        if arrays is not None:
            self.load_read_only(dtype, arrays)
            return
        rng = np.random.default_rng() if rng is None else rng
        shapes, bound = self.shapes(), 1 / np.sqrt(self.waves)
        self.initialize(
            dtype,
            frequencies=sigma * rng.standard_normal(shapes["frequencies"]),
            phases=rng.uniform(-np.pi, np.pi, shapes["phases"]),
            weights=rng.uniform(-bound, bound, shapes["weights"]),
            bias=rng.uniform(-bound, bound, shapes["bias"]),
        )

    def shapes(self) -> dict[str, Shape]:
        n, waves, outputs = len(self.positions), self.waves, self.size - 1
        return {
            "frequencies": (n, waves),
            "phases": (n, waves),
            "weights": (n, waves, outputs),
            "bias": (n, outputs),
        }

    @property
    def embedded_size(self) -> int:
        return self.size

    def _angles(self, numbers: Array) -> Array:
        """Return `2π w x + b`, (n, batch, waves), of numbers (n, batch)."""
        scaled = self._frequencies * self.dtype.type(2 * np.pi)
        angles: Array = numbers[:, :, None] * scaled[:, None, :] + self._phases[:, None, :]
        return angles

    def _join(self, inputs: Array, embedded: Array, numbers: Array) -> Array:
        """Return Y of the embeddings (n, batch, size - 1) and the numbers (n, batch)."""
        joined = np.concatenate([embedded, numbers[:, :, None]], axis=2).transpose(1, 0, 2)
        return np.concatenate([inputs[:, self.is_other()], joined.reshape(len(inputs), -1)], axis=1)

    def __call__(self, inputs: Array) -> Array:
        """Compute Y with sums over the waves that do not depend on the other rows, as a product of a BLAS would.

        Both ways add the waves in the same order. One row takes 24 µs the first way, 80 the second; 448 rows of 33
        numbers take 24 ms the first way, 2 ms the second. With one wave output NumPy sums the first way in pairs.
        """
        numbers = inputs[:, self.chosen].T
        if numbers.size < _MIN_WAVE_BY_WAVE_NUMBERS or self.size == 2:
            cosines = np.cos(self._angles(numbers))
            embedded = (cosines[..., None] * self._weights[:, None]).sum(axis=2) + self._bias[:, None, :]
            return self._join(inputs, embedded, numbers)
        numbers, scaled = np.ascontiguousarray(numbers), self._frequencies * self.dtype.type(2 * np.pi)
        sums: Array = np.zeros((len(numbers), self.size - 1, len(inputs)), self.dtype)
        for wave in range(self.waves):
            cosines = np.cos(numbers * scaled[:, wave, None] + self._phases[:, wave, None])
            sums += cosines[:, None, :] * self._weights[:, wave, :, None]
        return self._join(inputs, (sums + self._bias[:, :, None]).transpose(0, 2, 1), numbers)

    def forward(self, inputs: Array) -> Array:
        self.inputs, self.numbers = inputs, inputs[:, self.chosen].T
        self.angles = self._angles(self.numbers)
        self.cosines = np.cos(self.angles)
        return self._join(inputs, self.cosines @ self._weights + self._bias[:, None, :], self.numbers)

    def backward(self, output_grad: Array) -> Array:
        n, batch = self.numbers.shape
        dz = output_grad[:, self.others_size :].reshape(batch, n, self.size).transpose(1, 0, 2)
        d = np.ascontiguousarray(dz[:, :, :-1])
        da = -np.sin(self.angles) * (d @ self._weights.transpose(0, 2, 1))
        two_pi = self.dtype.type(2 * np.pi)
        if self.learns:
            self.weights_grad += self.cosines.transpose(0, 2, 1) @ d
            self.bias_grad += d.sum(axis=1)
            self.phases_grad += da.sum(axis=1)
            self.frequencies_grad += two_pi * (da * self.numbers[:, :, None]).sum(axis=1)
        input_grad = np.zeros_like(self.inputs)
        input_grad[:, self.is_other()] = output_grad[:, : self.others_size]
        input_grad[:, self.chosen] = (two_pi * (da * self._frequencies[:, None, :]).sum(axis=2) + dz[:, :, -1]).T
        return input_grad
