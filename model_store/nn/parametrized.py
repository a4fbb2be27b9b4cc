"""The learned layer: a module with arrays of its own, and how they are held, assigned, saved and given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, overload

import numpy as np
import numpy.typing as npt

from model_store.nn.module import Module, Shape
from model_store.nn.tape import Array


class ArrayAttribute:
    """An array of a layer as an attribute. Assigning copies into it, so that views into a network's vector survive."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type) -> ArrayAttribute: ...
    @overload
    def __get__(self, layer: object, owner: type | None = None) -> Array: ...
    def __get__(self, layer: object | None, owner: type | None = None) -> ArrayAttribute | Array:
        if layer is None:  # of the class, which has none
            return self
        array: Array = vars(layer)[f"_{self.name}"]
        return array

    def __set__(self, layer: Any, value: npt.ArrayLike) -> None:
        array = self.__get__(layer)
        if value is array:  # `layer.weights -= step` has already changed it in place
            return
        found = np.asarray(value)
        if array.ndim == 1 and found.shape == (*array.shape, 1):  # the article's column
            found = found[:, 0]
        if found.shape != array.shape:
            raise ValueError(f"{type(layer).__name__}.{self.name}: expected shape {array.shape}, found {found.shape}")
        array[...] = found


class ParametrizedModule(Module):
    """A module with arrays: the `learned`, each with a gradient beside it, and the `kept`, which it measures itself.

    The array `weights` lies in `_weights`, its gradient in `weights_grad`.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("weights", "bias")
    buffers: ClassVar[tuple[str, ...]] = ()
    dtype: np.dtype[Any]
    build_options: ClassVar[tuple[str, ...]] = ("dtype", "rng", "initializer", "arrays")

    def shapes(self) -> dict[str, Shape]:
        """The shape of every array, by name, in the order of saving."""
        raise NotImplementedError(f"{type(self).__name__} has no shapes()")

    def initialize(self, dtype: npt.DTypeLike, **first: Array) -> None:
        """Start from these values."""
        self.dtype = np.dtype(dtype).newbyteorder("=")
        if self.dtype not in (np.float32, np.float64, np.float16):
            raise ValueError(f"{type(self).__name__}.dtype: expected float32, float64 or float16, found {self.dtype}")
        for name in self.shapes():
            array = first[name].astype(self.dtype)
            setattr(self, f"_{name}", array)
            if name in self.parameter_names:
                setattr(self, f"{name}_grad", np.zeros_like(array))

    def adopt_read_only(self, dtype: npt.DTypeLike, arrays: Mapping[str, Array]) -> None:
        """Infer on these very arrays, uncopied: a read-only memory map stays one. ValueError where one does not fit.

        The gradients are read-only zeros that take no memory, so training such a layer by mistake is a ValueError.
        """
        self.dtype = np.dtype(dtype)
        for name, shape in self.shapes().items():
            array = _fitting(arrays, name, shape, self.dtype).view()
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


def _fitting(arrays: Mapping[str, Array], name: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
    if name not in arrays:
        raise ValueError(f"{name}: expected an array of shape {shape}, found none")
    array = arrays[name]
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, found {array.shape}")
    if array.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype}, found {array.dtype}")
    return array
