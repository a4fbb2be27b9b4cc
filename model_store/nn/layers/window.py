"""Sliding windows: the patches of an image that a convolution or a pooling layer covers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from model_store.nn.arrays import Array
from model_store.nn.module import Shape


class Window:
    """A window of `size` by `size` pixels at `rows` by `columns` positions, `stride` pixels apart."""

    def __init__(self, layer: str, shape: Shape, size: int, stride: int, padding: int = 0) -> None:
        height, width, self.channels = shape
        self.size, self.stride, self.padding = size, stride, padding
        self.height, self.width = height + 2 * padding, width + 2 * padding
        if size > min(self.height, self.width):
            raise ValueError(f"{layer}: expected a window within {self.height} x {self.width}, found {size} x {size}")
        self.rows, self.columns = (self.height - size) // stride + 1, (self.width - size) // stride + 1
        self.positions = self.rows * self.columns

    @property
    def offsets(self) -> Iterable[tuple[int, int]]:
        """The offset (u, v) of every pixel in the window."""
        return product(range(self.size), range(self.size))

    def pixels(self, images: Array, u: int, v: int) -> Array:
        """Return the pixel at (u, v) of every window: a view (batch, rows, columns, channels)."""
        below, right = u + self.stride * (self.rows - 1) + 1, v + self.stride * (self.columns - 1) + 1
        return images[:, u : below : self.stride, v : right : self.stride]

    def patches(self, images: Array) -> Array:
        """Return every window: a view (batch, rows, columns, size, size, channels)."""
        windows = sliding_window_view(images, (self.size, self.size), (1, 2))
        return windows[:, :: self.stride, :: self.stride].transpose(0, 1, 2, 4, 5, 3)

    def without_padding(self, images: Array) -> Array:
        """Return padded images without the padding: a view."""
        p = self.padding
        return images[:, p : self.height - p, p : self.width - p]

    def padded_zeros(self, batch: int, dtype: npt.DTypeLike) -> Array:
        """Return padded images of zeros."""
        return np.zeros((batch, self.height, self.width, self.channels), dtype)

    def empty_patches(self, batch: int, dtype: npt.DTypeLike) -> tuple[Array, Array]:
        """Return an array for `patches`, and a view of it as a matrix with a row for each window.

        Windows of one channel overlap in runs that are too short to copy fast, so their matrix is stored transposed: 64
        images of 28 x 28, kernel 3, take 0.1 ms, not 0.7. With more channels rows are faster: 0.2 ms, not 1.0.
        """
        count, values = batch * self.positions, self.size * self.size * self.channels
        shape = (batch, self.rows, self.columns, self.size, self.size, self.channels)
        if self.channels > 1:
            rows = np.empty((count, values), dtype)
            return rows.reshape(shape), rows
        columns = np.empty((values, count), dtype)
        return columns.reshape(*shape[3:], *shape[:3]).transpose(3, 4, 5, 0, 1, 2), columns.T
