"""Layers with arrays: how these are created, assigned, saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, overload

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.module import Module, Shape


class ArrayAttribute:
    """An array as an attribute of a layer. Assignment copies into it, so that it stays a view of a network's vector."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type) -> ArrayAttribute: ...
    @overload
    def __get__(self, layer: object, owner: type | None = None) -> Array: ...
    def __get__(self, layer: object | None, owner: type | None = None) -> ArrayAttribute | Array:
        if layer is None:  # read from the class
            return self
        array: Array = vars(layer)[f"_{self.name}"]
        return array

    def __set__(self, layer: Any, value: npt.ArrayLike) -> None:
        array = self.__get__(layer)
        if value is array:  # `layer.weights -= step` has changed it in place
            return
        found = np.asarray(value)
        if array.ndim == 1 and found.shape == (*array.shape, 1):  # the article's column
            found = found[:, 0]
        if found.shape != array.shape:
            raise ValueError(f"{type(layer).__name__}.{self.name}: expected shape {array.shape}, found {found.shape}")
        array[...] = found


class ParametrizedModule(Module):
    """A module with parameters, each with a gradient, and with buffers, which the module itself updates.

    The attribute `_weights` holds the array `weights`, `weights_grad` its gradient.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("weights", "bias")
    buffers: ClassVar[tuple[str, ...]] = ()
    learns = True  # False: `backward` leaves the gradients of the parameters alone and returns `∂E/∂X` only
    dtype: np.dtype[Any]
    build_options: ClassVar[tuple[str, ...]] = ("dtype", "rng", "initializer", "arrays")

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of every array, by name, in the order in which they are saved."""
        raise NotImplementedError(f"{type(self).__name__} has no shapes()")

    def initialize(self, dtype: npt.DTypeLike, **initial: Array) -> None:
        """Create the arrays with these initial values. ValueError for a type that cannot be trained."""
        self.dtype = np.dtype(dtype).newbyteorder("=")
        if self.dtype not in (np.float32, np.float64, np.float16):
            raise ValueError(f"{type(self).__name__}.dtype: expected float32, float64 or float16, found {self.dtype}")
        for name in self.shapes():
            array = initial[name].astype(self.dtype)
            setattr(self, f"_{name}", array)
            if name in self.parameter_names:
                setattr(self, f"{name}_grad", np.zeros_like(array))

    def load_read_only(self, dtype: npt.DTypeLike, arrays: Mapping[str, Array]) -> None:
        """Use these arrays for inference without copying them. ValueError names the array that does not fit.

        The gradients are read-only zeros that take no memory, so training such a layer raises ValueError.
        """
        self.dtype = np.dtype(dtype)
        for name, shape in self.shapes().items():
            array = _validate_array(arrays, name, shape, self.dtype).view()
            array.flags.writeable = False
            setattr(self, f"_{name}", array)
            if name in self.parameter_names:
                setattr(self, f"{name}_grad", np.broadcast_to(array.dtype.type(0), shape))

    def parameters(self) -> list[Array]:
        return [vars(self)[f"_{name}"] for name in self.parameter_names]

    def gradients(self) -> list[Array]:
        return [vars(self)[f"{name}_grad"] for name in self.parameter_names]

    def arrays(self) -> dict[str, Array]:
        return {name: vars(self)[f"_{name}"] for name in (*self.parameter_names, *self.buffers)}


def _validate_array(arrays: Mapping[str, Array], name: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
    if name not in arrays:
        raise ValueError(f"{name}: expected an array of shape {shape}, found none")
    array = arrays[name]
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, found {array.shape}")
    if array.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype}, found {array.dtype}")
    return array
