"""Trace element-wise NumPy expressions into calls on arrays that stay in place.

A formula such as `1 - y * y` allocates an array for every operation and looks its functions up again each time. The
tracer evaluates the formula once on `TracedValue`s, which record each operation instead of computing it; one that
occurs twice is recorded once. `Tracer.calls` gives each value an array, and reuses the arrays of values that are no
longer needed. To make the calls one after the other computes, bit for bit, what the formula computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from model_store.nn import Array

Call = tuple[Callable[..., Any], tuple[Any, ...]]
MakeArray = Callable[[np.dtype[Any], int], Array]  # of a type; the number counts the arrays made before

_KEYWORD_OUT = (np.maximum, np.minimum)  # NumPy deprecates a third positional argument of these
# A constant is written out as an array for these: with a 0-d operand they miss their vector loop.
_SLOW_WITH_SCALARS = (np.maximum, np.minimum, np.greater, np.less)
_NEVER_USED, _USED_TO_THE_END = -1, 2**62


def scalar(value: float, like: Array) -> Array:
    """Return a constant as a 0-d array of `like`'s type, which saves NumPy a conversion at every call."""
    return np.array(value, like.dtype)


def call_into(out: Array, function: Callable[..., Any], *operands: Any) -> Call:
    """Return a call that copies `function(*operands)` into `out`."""

    def call() -> None:
        out[...] = function(*operands)

    return call, ()


class TracedValue(NDArrayOperatorsMixin):
    """An input of a formula, or the result of an operation in it."""

    def __init__(self, tracer: Tracer, dtype: npt.DTypeLike, array: Array | None = None) -> None:
        self.tracer, self.dtype, self.array = tracer, np.dtype(dtype), array
        self.function: Callable[..., Any] | None = None  # None for an input
        self.operands: tuple[TracedValue | Array, ...] = ()
        self.reusable = False  # whether another value may take the array once this one is no longer needed
        self.last_use = _NEVER_USED
        self.index = len(tracer.values)
        tracer.values.append(self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> TracedValue:
        if method != "__call__" or options:
            raise TypeError(f"tracer: expected an element-wise operation, found {ufunc.__name__}.{method} {options}")
        return self.tracer.apply(ufunc, operands)

    def astype(self, dtype: npt.DTypeLike) -> TracedValue:
        return self.tracer.record(np.copyto, (self,), np.dtype(dtype))


class Tracer:
    """Records the operations of formulas over arrays that are all shaped like `like`.

    make: makes an array for an intermediate result.
    fill: whether constants are written out as arrays where that is faster.
    """

    def __init__(self, like: Array, make: MakeArray | None = None, *, fill: bool = True) -> None:
        self.values: list[TracedValue] = []
        self._like, self._fill = like, fill
        self._make: MakeArray = make or (lambda dtype, _: np.empty_like(like, dtype))
        self._made = 0
        self._known: dict[Any, TracedValue] = {}
        self._constants: dict[Any, Array] = {}
        self._outputs: dict[int, Array | None] = {}  # by index
        self._free: list[Array] = []
        self._next = 0  # the first value that has no call yet
        self._errors = np.geterr()

    def input(self, array: Array, *, reusable: bool = False) -> TracedValue:
        """Return the value of an array; a reusable one may be overwritten once it is no longer needed."""
        value = TracedValue(self, array.dtype, array)
        value.reusable = reusable
        return value

    def placeholder(self, dtype: npt.DTypeLike) -> TracedValue:
        """Return the value of a reusable array that is not known yet: set `array` before the calls that need it."""
        value = TracedValue(self, dtype)
        value.reusable = True
        return value

    def output(self, value: TracedValue, array: Array | None = None) -> None:
        """Have `value` computed into `array`. An array that is None here is to follow before its calls."""
        self._outputs[value.index] = array

    def apply(self, ufunc: np.ufunc, operands: tuple[Any, ...]) -> TracedValue:
        """Record `ufunc(*operands)`."""
        if ufunc is np.multiply and operands[0] is operands[1]:
            ufunc, operands = np.square, operands[:1]  # the same bits for one operand less
        types = (one.dtype if isinstance(one, (TracedValue, np.generic, np.ndarray)) else type(one) for one in operands)
        *wanted, dtype = ufunc.resolve_dtypes((*types, None))
        filled = self._fill and ufunc in _SLOW_WITH_SCALARS
        arguments = tuple(
            one if isinstance(one, TracedValue) else self._constant(one, into, filled)
            for one, into in zip(operands, wanted, strict=True)
        )
        return self.record(ufunc, arguments, dtype)

    def record(
        self, function: Callable[..., Any], operands: tuple[TracedValue | Array, ...], dtype: np.dtype[Any]
    ) -> TracedValue:
        key = (function, dtype, *(one.index if isinstance(one, TracedValue) else (id(one),) for one in operands))
        if key not in self._known:
            value = self._known[key] = TracedValue(self, dtype)
            value.function, value.operands, value.reusable = function, operands, True
            if (errors := np.geterr()) != self._errors:  # the formula is within an `np.errstate`
                value.function = np.errstate(**errors)(function)
        return self._known[key]

    def calls(self, until: TracedValue | None = None) -> list[Call]:
        """Return the calls that compute the outputs, or those of them that are recorded up to `until`.

        Asked again, those that are left. Everything is recorded before the first time.
        """
        if not self._next:
            self._find_last_uses()
        stop = len(self.values) if until is None else until.index + 1
        started, self._next = self._next, max(self._next, stop)
        return [self._call(value) for value in self.values[started:stop] if value.function and value.last_use >= 0]

    def _find_last_uses(self) -> None:
        """Find the last use of every value that an output needs."""
        for index in self._outputs:
            self.values[index].last_use = _USED_TO_THE_END
        for value in reversed(self.values):
            if value.last_use != _NEVER_USED:
                for one in value.operands:
                    if isinstance(one, TracedValue):
                        one.last_use = max(one.last_use, value.index)
        inputs = {id(value.array) for value in self.values if value.function is None}
        self._free = [array for array in self._outputs.values() if array is not None and id(array) not in inputs]

    def _call(self, value: TracedValue) -> Call:
        unneeded = [
            one.array
            for one in value.operands
            if isinstance(one, TracedValue) and one.last_use == value.index and one.reusable and one.array is not None
        ]
        free = [array for array in self._free if all(array is not one for one in unneeded)]
        # NumPy takes 0.2 µs for one number, and 0.7 if the operand is the result.
        self._free = free if self._like.size == 1 else [*unneeded, *free]
        out = value.array = self._array_for(value)
        self._free = [array for array in (*unneeded, *free) if array is not out]
        operands = tuple(one.array if isinstance(one, TracedValue) else one for one in value.operands)
        if value.function is np.copyto:
            return np.copyto, (out, *operands)
        if value.function in _KEYWORD_OUT:
            return partial(value.function, out=out), operands
        return value.function, (*operands, out)  # type: ignore[return-value]  # inputs have no call

    def _array_for(self, value: TracedValue) -> Array:
        target = self._outputs.get(value.index)
        if target is not None:
            if any(one.array is target and one.last_use > value.index for one in self.values[: value.index]):
                raise ValueError("tracer: expected an array that is no longer needed for an output, found one in use")
            return target
        for array in self._free:
            meant_for = (index for index, output in self._outputs.items() if output is array)
            if array.dtype == value.dtype and value.last_use <= next(meant_for, _USED_TO_THE_END):
                return array
        self._made += 1
        return self._make(value.dtype, self._made - 1)

    def _constant(self, value: Any, dtype: np.dtype[Any], filled: bool) -> Array:
        key = (repr(value), dtype, filled)
        if key not in self._constants:
            shape = self._like.shape if filled else ()
            self._constants[key] = np.full_like(self._like, value, dtype) if shape else np.array(value, dtype)
        return self._constants[key]
