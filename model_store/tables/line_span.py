"""A range of bytes of a text file as whole lines, so that processes read parts of one file.

A line belongs to the range in which its first byte lies. Each line of the file thus belongs to exactly one of several
adjacent ranges, and no process reads more than its own range and the rest of one line.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from model_store.tables.text_file import Open

_PIECE_BYTES = 1 << 20


class LineSpan(io.RawIOBase):
    """The lines whose first byte lies at `start` or later, and before `end`. Lines end with a line feed."""

    def __init__(self, open_file: Open, start: int, end: int) -> None:
        self._file, self._position, self._end = open_file(), start, end
        self._complete = start >= end
        if start:
            self._file.seek(start - 1)
            self._position -= 1
            while not self._read_line(_PIECE_BYTES).endswith(b"\n"):
                if self._complete:
                    break
            self._complete |= self._position >= end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._complete:
            return 0
        if self._position < self._end - 1:
            data = self._file.read(min(len(buffer), self._end - 1 - self._position))
            self._position += len(data)
            self._complete = not data
        else:
            data = self._read_line(len(buffer))
            self._complete |= data.endswith(b"\n")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _read_line(self, limit: int) -> bytes:
        """Return the next bytes up to a line feed; at the end of the file none, and the span is complete."""
        data = self._file.readline(limit)
        self._position += len(data)
        self._complete = not data
        return data


def open_span(open_file: Open, start: int, end: int) -> BinaryIO:
    """Open the lines of a range of bytes."""
    return io.BufferedReader(LineSpan(open_file, start, end), _PIECE_BYTES)
