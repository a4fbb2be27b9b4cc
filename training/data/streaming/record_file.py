"""The spool: records of a fixed size in a temporary file, and the order in which an epoch reads them."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.errors import DataError

CHUNK_ROWS, CHUNK_BYTES = 1024, 128 << 10  # neighbours that stay together until they are shuffled in a block, at most


class Spool:
    """Records in a temporary file without a name, which goes at `close`, or when this object does, or the process.

    `source` is what a message says that they are of.
    """

    def __init__(self, dtype: np.dtype[Any], source: str) -> None:
        self.dtype, self.source = dtype, source
        self._rows = 0
        with self._room():
            self._file, name = tempfile.mkstemp()
        self.close = weakref.finalize(self, os.close, self._file)
        Path(name).unlink()

    def __len__(self) -> int:
        return self._rows

    @property
    def chunk_rows(self) -> int:
        """Neighbours that are read together: few where they are large, so that a block has many chunks."""
        return max(1, min(CHUNK_ROWS, CHUNK_BYTES // self.dtype.itemsize))

    def append(self, records: NDArray[Any]) -> None:
        """DataError where there is no room for them."""
        content = memoryview(records.tobytes())
        with self._room():
            while content:
                content = content[os.write(self._file, content) :]
        self._rows += len(records)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.gather([(start, stop)])

    def gather(self, ranges: list[tuple[int, int]]) -> NDArray[Any]:
        """The records of several ranges, one after the other; for any number of threads at a time."""
        size = self.dtype.itemsize
        records = np.empty(sum(stop - start for start, stop in ranges), self.dtype)
        room: Any = records.view(np.uint8).reshape(-1)
        at = 0
        for start, stop in ranges:
            location, end = start * size, stop * size
            while location < end:
                got = os.preadv(self._file, [room[at : at + end - location]], location)
                location, at = location + got, at + got
        return records

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"its rows cannot be kept in {tempfile.gettempdir()}: {error.strerror}"
            raise DataError(self.source, [Fault("", problem, "set TMPDIR to a directory with more room")]) from error

    def order(self, seed: int | None) -> Chunks:
        """That of an epoch; without a seed, the one they came in."""
        return Chunks(len(self), self.chunk_rows, seed)

    def sample(self, rows: int) -> NDArray[Any]:
        """At most so many records, evenly chosen; all of them where they are no more."""
        if len(self) <= rows:
            return self.read(0, len(self))
        chunks = max(1, rows // self.chunk_rows)
        starts = [i * len(self) // chunks for i in range(chunks)]
        return self.gather([(start, min(start + rows // chunks, len(self))) for start in starts])


class Chunks:
    """The rows in the order of an epoch: chunks of `length` neighbours, in an order that `seed` decides."""

    def __init__(self, rows: int, length: int, seed: int | None) -> None:
        self.rows, self.length, self.seed = rows, length, seed
        count = math.ceil(rows / length)
        self.order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
        lengths = np.minimum((self.order + 1) * length, rows) - self.order * length
        self.ends = np.cumsum(lengths)

    def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Where the rows from `start` to `stop` of this order lie."""
        found = []
        i = int(np.searchsorted(self.ends, start, side="right"))
        while start < stop:
            first = int(self.order[i]) * self.length
            begin = int(self.ends[i - 1]) if i else 0
            end = min(stop, int(self.ends[i]))
            found.append((first + start - begin, first + end - begin))
            start, i = end, i + 1
        return found
