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
from collections.abc import Iterator, Mapping, Set
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

    def inc(self, amount: float = 1.0) -> None:
        with self.file.lock:
            self.cells[self.index] += amount

    def set(self, value: float) -> None:
        with self.file.lock:
            self.cells[self.index] = value


class CellFile:
    """The file `KIND_PID.SUFFIX` of this process. A cell is made when its key is first used."""

    def __init__(self, directory: Path, kind: str, suffix: str = "db") -> None:
        self._directory, self._name = directory, (kind, suffix)
        self._counters: list[CounterCell] = []
        self._open()

    def counter(self, key: str) -> CounterCell:
        """Return a handle of a cell that stays valid after a fork."""
        counter = CounterCell(self, key)
        self._counters.append(counter)
        return counter

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

    def reopen(self) -> None:
        """In a forked process: count from zero in a file of its own."""
        self._open()
        for counter in self._counters:
            counter.remap()

    def drop(self, keys: Set[str]) -> None:
        """Replace the file by one without the cells of these keys. Readers find the old file or the whole new one.

        Handles of dropped cells write to the old file's memory, which no process reads.
        """
        with self.lock:
            self._counters = [counter for counter in self._counters if counter.key not in keys]
            self._private = False
            self._create({each.key: each.cells[each.index] for each in self._counters}, len(self._mapped))
            for counter in self._counters:
                counter.remap()

    def _open(self) -> None:
        self.lock = threading.Lock()
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
