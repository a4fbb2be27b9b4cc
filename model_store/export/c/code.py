"""The parts of a C program while it is written: constants, functions, static buffers, and the lines of `predict`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model_store.export.c import literals
from model_store.nn import Array

_ITEM_BYTES = {"float": 4, "double": 8, "unsigned char": 1, "uint32_t": 4, "size_t": 4}


class Values(NamedTuple):
    """Values of one row in the program: the array that holds them, and their shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass
class Code:
    """A program of a network of `dtype`; its type `real` is float or double.

    `constant_bytes` counts the constants, `buffers` the values of each static buffer.
    """

    dtype: np.dtype[Any]
    constants: list[str] = field(default_factory=list)
    functions: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    buffers: list[int] = field(default_factory=list)
    constant_bytes: int = 0

    @property
    def real(self) -> str:
        """The type of the network's values."""
        return "float" if self.dtype == np.float32 else "double"

    @property
    def ram_bytes(self) -> int:
        """The bytes of the static buffers."""
        return sum(self.buffers) * self.dtype.itemsize

    def constant(self, name: str, values: npt.ArrayLike, kind: str = "") -> str:
        """Add a constant array, of the type `real` if no other is given, and return its name."""
        found: Array = np.asarray(values)
        found = found if kind else found.astype(self.dtype)
        kind = kind or self.real
        self.constants.append(literals.array(kind, name, found))
        self.constant_bytes += found.size * _ITEM_BYTES[kind]
        return name

    def texts(self, name: str, texts: Iterable[str]) -> str:
        """Add a constant array of texts, which the rest of the user's program may read, and return its name."""
        found = list(texts)
        items = ",\n    ".join(map(literals.string, found))
        self.constants.append(f"const char *const {name}[{len(found)}] = {{\n    {items}}};\n")
        self.constant_bytes += sum(len(text.encode()) + 1 + 4 for text in found)
        return name

    def use(self, name: str, library: Mapping[str, str]) -> str:
        """Add a function of a library, once; return its name. `$F` in its text is the suffix of C's float functions."""
        self.functions.setdefault(name, library[name].replace("$F", "f" if self.real == "float" else ""))
        return name

    def run(self, line: str) -> None:
        """Add a line to `predict`."""
        self.lines.append(line)

    def buffer(self, shape: tuple[int, ...], kept: frozenset[str]) -> Values:
        """Return a static buffer for values of this shape that is none of `kept`."""
        size = math.prod(shape)
        index = next(i for i in range(len(self.buffers) + 1) if f"buffer_{i}" not in kept)
        if index == len(self.buffers):
            self.buffers.append(0)
        self.buffers[index] = max(self.buffers[index], size)
        return Values(f"buffer_{index}", shape)

    def writable(self, values: Values, kept: frozenset[str]) -> Values:
        """Return the values, in another buffer if they are the input, or kept for later."""
        if values.name.startswith("buffer_") and values.name not in kept:
            return values
        copy = self.buffer(values.shape, kept | {values.name})
        self.run(f"for (size_t i = 0; i < {values.size}; i++) {copy.name}[i] = {values.name}[i];")
        return copy
