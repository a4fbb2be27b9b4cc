"""The compiled step: forward, loss and backward over batches of one size."""

from __future__ import annotations

import numpy as np

from model_store.nn import Array, Module
from model_store.nn.arrays import SMALL_FEATURES
from training.engine.compiled.compilers import FEATURE_MAJOR_TYPES, compile_module
from training.engine.compiled.layout import SMALL_BATCH, empty_bias_augmented, row_major
from training.engine.compiled.losses import compile_loss
from training.losses import Loss
from training.tracer import Call


class CompiledStep:
    """Sets the gradients to those of a batch of `size` samples, times `gradient_scale`, whatever they were before.

    x, y: samples and targets of which the first `size` show shapes and types.
    whole: whether every batch is all samples. This and shapes alone decide the layout of a batch in memory, and with it
        the BLAS kernel and the last bits; the blocks that a stream arrives in do not.
    rows_sum_to_1: whether all targets do, exactly (see `compile_loss`).
    """

    def __init__(
        self,
        module: Module,
        loss: Loss,
        x: Array,
        y: Array,
        size: int,
        gradient_scale: float = 1.0,
        *,
        whole: bool = False,
        rows_sum_to_1: bool = False,
    ) -> None:
        network, criterion = loss.fused(module)
        self.size = size
        self._copied = x if whole else None  # all samples are one batch, which need not be copied again
        small = x.ndim == 2 and size <= SMALL_BATCH and x.shape[1] <= SMALL_FEATURES
        small = small and type(network) in FEATURE_MAJOR_TYPES
        self._x = empty_bias_augmented(x) if small and whole else np.empty((size, *x.shape[1:]), x.dtype)
        self._y = np.empty((size, *y.shape[1:]), y.dtype)
        np.copyto(self._x, x[:size])
        np.copyto(self._y, y[:size])
        compiled = compile_module(network, self._x)
        outputs, to_rows = row_major(compiled.outputs)
        expected = outputs.shape
        if criterion.weight_columns:
            expected = (expected[0], expected[1] + criterion.weight_columns)
        if self._y.shape != expected:
            raise ValueError(f"train: expected targets of shape {expected} a batch, found {self._y.shape}")
        self._error = np.empty((), np.result_type(outputs.dtype, np.float32))  # float16 ends at 65504
        prime, compare, self._prime_factor, self._error_factor = compile_loss(
            criterion, self._y, outputs, self._error, rows_sum_to_1=rows_sum_to_1
        )
        self._scale = np.empty((), prime.dtype)
        self.rescale(gradient_scale)
        scaled = prime if prime.size > 1 else prime.copy()  # for one number NumPy is faster so (see training/tracer.py)
        _, backward = compiled.backward(scaled, False)
        self.calls: list[Call] = [
            *compiled.forward,
            *to_rows,
            *compare,
            (np.multiply, (prime, self._scale, scaled)),
            *backward,
        ]

    def rescale(self, gradient_scale: float) -> None:
        """Multiply the gradients by this from the next batch on."""
        self._scale[...] = self._prime_factor * gradient_scale

    def run(self, x: Array, y: Array, start: int, order: Array | None) -> float:
        """Return the loss of the batch that begins at `start`, in `order`, and set the gradients."""
        if order is not None:
            rows = order[start : start + self.size]
            x.take(rows, 0, self._x, "clip")
            y.take(rows, 0, self._y, "clip")
        elif x is not self._copied:
            np.copyto(self._x, x[start : start + self.size])
            np.copyto(self._y, y[start : start + self.size])
        for function, operands in self.calls:
            function(*operands)
        return float(self._error) * self._error_factor
