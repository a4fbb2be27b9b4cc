"""The record file: records of fixed size in a temporary file, and the order in which an epoch reads them."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.errors import DataError

# A chunk, at most: neighbouring records that stay together until they are shuffled in a block.
CHUNK_ROWS, CHUNK_BYTES = 1024, 128 << 10
_BLOCK_BYTES = 4 << 20  # read at a time


class RecordFile:
    """Records in an unnamed temporary file, which is deleted by `close`, or with this object or the process.

    `source` is the name of the data in error messages.
    """

    def __init__(self, dtype: np.dtype[Any], source: str) -> None:
        self.dtype, self.source = dtype, source
        self._rows = 0
        with self._translate_write_errors():
            self._file, name = tempfile.mkstemp()
        self.close = weakref.finalize(self, os.close, self._file)
        Path(name).unlink()

    def __len__(self) -> int:
        return self._rows

    @property
    def chunk_rows(self) -> int:
        """Records per chunk: few if they are large, so that a block has many chunks."""
        return max(1, min(CHUNK_ROWS, CHUNK_BYTES // self.dtype.itemsize))

    def append(self, records: NDArray[Any]) -> None:
        """Write records to the end. DataError if the disk is full."""
        content = memoryview(records.tobytes())
        with self._translate_write_errors():
            while content:
                content = content[os.write(self._file, content) :]
        self._rows += len(records)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read the records from `start` to `stop`."""
        return self.read_ranges([(start, stop)])

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all records in order, a few megabytes at a time."""
        size = max(1, _BLOCK_BYTES // self.dtype.itemsize)
        for start in range(0, len(self), size):
            yield self.read(start, min(start + size, len(self)))

    def read_ranges(self, ranges: list[tuple[int, int]]) -> NDArray[Any]:
        """Read the records of several ranges, one after the other. Several threads may do so at a time."""
        size = self.dtype.itemsize
        records = np.empty(sum(stop - start for start, stop in ranges), self.dtype)
        buffer: Any = records.view(np.uint8).reshape(-1)
        at = 0
        for start, stop in ranges:
            offset, end = start * size, stop * size
            while offset < end:
                count = os.preadv(self._file, [buffer[at : at + end - offset]], offset)
                offset, at = offset + count, at + count
        return records

    @contextmanager
    def _translate_write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"cannot write its rows to {tempfile.gettempdir()}: {error.strerror}"
            raise DataError(self.source, [Fault("", problem, "set TMPDIR to a directory with more space")]) from error

    def epoch_order(self, seed: int | None) -> ChunkOrder:
        """Return the order of an epoch; without a seed, that of the file."""
        return ChunkOrder(len(self), self.chunk_rows, seed)

    def sample(self, rows: int) -> NDArray[Any]:
        """Read at most so many records, evenly spaced in the file."""
        if len(self) <= rows:
            return self.read(0, len(self))
        chunks = max(1, rows // self.chunk_rows)
        starts = [i * len(self) // chunks for i in range(chunks)]
        return self.read_ranges([(start, min(start + rows // chunks, len(self))) for start in starts])


class JoinedRecords:
    """Several record files, read as one."""

    def __init__(self, files: Sequence[RecordFile]) -> None:
        self._files, self.dtype = files, files[0].dtype
        self._ends = np.cumsum([len(file) for file in files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read_ranges(self, ranges: list[tuple[int, int]]) -> NDArray[Any]:
        """Read the records of several ranges, one after the other, as `RecordFile` does."""
        found = []
        for start, stop in ranges:
            at = start
            while at < stop:
                i = int(np.searchsorted(self._ends, at, side="right"))
                before, end = int(self._ends[i]) - len(self._files[i]), min(stop, int(self._ends[i]))
                found.append(self._files[i].read(at - before, end - before))
                at = end
        return np.concatenate([np.empty(0, self.dtype), *found])

    def epoch_order(self, seed: int | None) -> ChunkOrder:
        """Return the order of an epoch; without a seed, that of the files."""
        return ChunkOrder(len(self), self._files[0].chunk_rows, seed)


class ChunkOrder:
    """The order of rows in an epoch: chunks of `length` neighbours, shuffled by `seed`."""

    def __init__(self, rows: int, length: int, seed: int | None) -> None:
        self.rows, self.length, self.seed = rows, length, seed
        count = math.ceil(rows / length)
        self.order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
        lengths = np.minimum((self.order + 1) * length, rows) - self.order * length
        self.ends = np.cumsum(lengths)

    def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the ranges of the file that hold the rows from `start` to `stop` of this order."""
        found = []
        i = int(np.searchsorted(self.ends, start, side="right"))
        while start < stop:
            first = int(self.order[i]) * self.length
            begin = int(self.ends[i - 1]) if i else 0
            end = min(stop, int(self.ends[i]))
            found.append((first + start - begin, first + end - begin))
            start, i = end, i + 1
        return found
