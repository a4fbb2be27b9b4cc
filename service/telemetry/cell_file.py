"""A file of float64 cells, each under a text key, that one process writes and every process reads.

The layout is that of prometheus_client's multiprocess mode, so its documented `MultiProcessCollector` can add up the
same files; the tests compare its sums with ours, and nothing here imports it:

    int32 bytes in use, 4 bytes of padding; then for each cell
    int32 length of the key, the key, 1 to 8 spaces up to a multiple of 8, float64 value, float64 time (always 0)

A process counts in files of its own, so it never waits for another one. What it counted stays in the file if it is
killed.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import IO

log = logging.getLogger("service")

HEADER_BYTES = 8
INITIAL_BYTES = 16 * 1024


def used_bytes(data: bytes) -> int:
    """Return how many bytes of a file are in use."""
    return int(struct.unpack_from("=i", data)[0]) or HEADER_BYTES


def read_keys(data: bytes, start: int = HEADER_BYTES) -> Iterator[tuple[str, int]]:
    """Yield the key of each cell from byte `start` on, and the index of its value if the file is read as float64."""
    used = used_bytes(data)
    while start < used:
        (length,) = struct.unpack_from("=i", data, start)
        key = data[start + 4 : start + 4 + length].decode()
        value = start + 4 + _padded(length)
        yield key, value // 8
        start = value + 16


def read_cells(path: Path) -> Iterator[tuple[str, float]]:
    """Yield the key and the value of each cell of a file."""
    data = path.read_bytes()
    for key, index in read_keys(data):
        yield key, struct.unpack_from("=d", data, 8 * index)[0]


def _padded(length: int) -> int:
    return length + 8 - (4 + length) % 8


class CounterCell:
    """One number. The threads of a process share it; every process has its own."""

    __slots__ = ("cells", "file", "index", "key")

    def __init__(self, file: CellFile, key: str) -> None:
        self.file, self.key = file, key
        self.remap()

    def remap(self) -> None:
        """Find the cell again, after a fork or when the file is rewritten."""
        self.cells, self.index = self.file.locate(self.key)

    def values(self) -> dict[str, float]:
        """Return the value by its key."""
        return {self.key: self.cells[self.index]}

    def inc(self, amount: float = 1.0) -> None:
        with self.file.lock:
            self.add(amount)

    def add(self, amount: float) -> None:
        """Add to the value while holding the lock."""
        self.cells[self.index] += amount

    def set(self, value: float) -> None:
        with self.file.lock:
            self.cells[self.index] = value


class HistogramCells:
    """A histogram: the count of each bucket, and the sum of the values.

    `keys` are those of the buckets, of which the last has no upper bound, and of the sum.
    """

    __slots__ = ("bounds", "cells", "file", "indices", "keys")

    def __init__(self, file: CellFile, bounds: Sequence[float], keys: Sequence[str]) -> None:
        self.file, self.bounds, self.keys = file, bounds, keys
        self.remap()

    def remap(self) -> None:
        """Find the cells again, after a fork or when the file is rewritten."""
        located = [self.file.locate(key) for key in self.keys]
        self.cells = located[-1][0]  # it has the others, too
        self.indices = [index for _, index in located]

    def values(self) -> dict[str, float]:
        """Return the values by their keys."""
        return {key: self.cells[index] for key, index in zip(self.keys, self.indices, strict=True)}

    def observe(self, value: float) -> None:
        with self.file.lock:
            self.add(value)

    def add(self, value: float) -> None:
        """Observe a value while holding the lock."""
        cells, indices = self.cells, self.indices
        cells[indices[bisect_left(self.bounds, value)]] += 1.0
        cells[indices[-1]] += value


class CellFile:
    """The file `KIND_PID.SUFFIX` of this process. A cell is made when its key is first used.

    `lock` protects its cells, and those of other files that are counted together.
    """

    def __init__(self, directory: Path, kind: str, suffix: str, lock: threading.Lock) -> None:
        self._directory, self._name = directory, (kind, suffix)
        self._handles: list[CounterCell | HistogramCells] = []
        self._open(lock)

    def counter(self, key: str) -> CounterCell:
        """Return a handle of a cell that stays valid after a fork."""
        counter = CounterCell(self, key)
        self._handles.append(counter)
        return counter

    def histogram(self, bounds: Sequence[float], keys: Sequence[str]) -> HistogramCells:
        """Return a handle of a histogram's cells that stays valid after a fork."""
        histogram = HistogramCells(self, bounds, keys)
        self._handles.append(histogram)
        return histogram

    def locate(self, key: str) -> tuple[memoryview[float], int]:
        """Return the mapped memory of a cell and its index there."""
        if key not in self._indices:
            text = key.encode()
            padded = text.ljust(_padded(len(text)))
            entry = struct.pack(f"=i{len(padded)}sdd", len(text), padded, 0.0, 0.0)
            if self._used + len(entry) > len(self._mapped):
                self._map(self._path, 2 * len(self._mapped))
            self._mapped[self._used : self._used + len(entry)] = entry
            self._used += len(entry)
            self._indices[key] = (self._used - 16) // 8
            self._mapped[:4] = struct.pack("=i", self._used)
        return self._cells, self._indices[key]

    def reopen(self, lock: threading.Lock) -> None:
        """In a forked process: count from zero in a file of its own."""
        self._open(lock)
        for handle in self._handles:
            handle.remap()

    def drop(self, keys: Set[str]) -> None:
        """Replace the file by one without the cells of these keys. Readers find the old file or the whole new one.

        Handles of dropped cells write to the old file's memory, which no process reads.
        """
        with self.lock:
            self._handles = [handle for handle in self._handles if keys.isdisjoint(handle.values())]
            self._private = False
            kept = {key: value for handle in self._handles for key, value in handle.values().items()}
            self._create(kept, len(self._mapped))
            for handle in self._handles:
                handle.remap()

    def _open(self, lock: threading.Lock) -> None:
        self.lock = lock
        self._private = False
        kind, suffix = self._name
        self._path = self._directory / f"{kind}_{os.getpid()}.{suffix}"
        if self._path.exists():  # an earlier process had the same number: add to its counts
            self._indices = dict(read_keys(data := self._path.read_bytes()))
            self._map(self._path, len(data))
            self._used = used_bytes(data)
        else:
            self._create({}, INITIAL_BYTES)

    def _create(self, values: Mapping[str, float], size: int) -> None:
        """Start a new file of `size` bytes, which is enough for a cell of each value."""
        self._indices = {}
        self._used = HEADER_BYTES
        new = self._path.with_suffix(".new")  # renamed once it is complete, so that no reader finds an empty file
        self._map(new, size)
        self._mapped[:4] = struct.pack("=i", self._used)
        for key, value in values.items():
            cells, index = self.locate(key)
            cells[index] = value
        if self._private:
            new.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        else:
            new.replace(self._path)

    def _map(self, path: Path, size: int) -> None:
        """Map the file, grown to `size` bytes. Earlier mappings share its memory while cells still use them.

        Without space for the file, new cells live in private memory and are missing at /metrics: writing to a page that
        the file system cannot allocate raises SIGBUS.
        """
        if not self._private:
            try:
                with path.open("a+b") as file:
                    _grow(file, size)
                    self._mapped = mmap.mmap(file.fileno(), size)
            except OSError as e:
                self._private = True
                log.error("%s: %s; new counts of this process are missing at /metrics", self._path, e.strerror)
        if self._private:
            self._mapped = mmap.mmap(-1, size)
        self._cells = memoryview(self._mapped).cast("d")


def _grow(file: IO[bytes], size: int) -> None:
    """Set a file's size, with its memory allocated where the system supports that."""
    before = file.seek(0, os.SEEK_END)
    file.truncate(size)
    if size > before and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), before, size - before)
