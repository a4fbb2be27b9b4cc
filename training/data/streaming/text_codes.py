"""The distinct texts of a streamed column and their codes: in memory while they are few, the others in a file.

A record holds the code of its text. A text that is not in memory gets another code in each batch of the source. Of a
text in the file only the characters are kept that features are made of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.schema.columns.text import MAX_HASHED_CHARACTERS
from training.data.streaming.record_file import RecordFile
from training.data.text_hash import hash_text

MAX_REMEMBERED_TEXTS, MAX_REMEMBERED_CHARACTERS = 1 << 16, 8 << 20  # of a column
_READ_TEXTS = 4096  # at a time, of up to 16 KB
_COUNTED_HASHES = 1 << 20  # about, at a time

Codes = NDArray[np.int32]


class TextCodes:
    """Gives each text of a column a code, from 0; None, a missing value, has the code 0.

    `source` is the name of the data in error messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self.remembered: dict[str | None, int] = {None: 0}
        self._remembered_texts: list[str | None] = [None]
        self._characters = 0
        self._ends: RecordFile | None = None  # where each of the other texts begins in `_bytes`, and the last one ends
        self._bytes: RecordFile | None = None

    def __len__(self) -> int:
        return len(self.remembered) + (0 if self._ends is None else len(self._ends) - 1)

    @property
    def are_remembered(self) -> bool:
        """True if all texts are in memory, each with one code."""
        return self._ends is None

    def encode(self, texts: Iterable[Any]) -> Codes:
        """Return the codes of different texts, or labels. DataError if the disk is full."""
        codes: list[int] = []
        others: list[bytes] = []
        for text in texts:
            if (code := self.remembered.get(text)) is None:
                if self._ends is None and not others and self._has_space(str(text)):
                    code = len(self.remembered)
                    self.remembered[text] = code
                    self._remembered_texts.append(text)
                    self._characters += len(str(text))
                else:
                    code = len(self) + len(others)
                    others.append(str(text)[:MAX_HASHED_CHARACTERS].encode("utf-8", "surrogatepass"))
            codes.append(code)
        if others:
            self._write(others)
        return np.array(codes, np.int32)

    def texts(self, codes: NDArray[np.integer]) -> list[str | None]:
        """Return the texts of codes."""
        remembered = self._remembered_texts
        found = [remembered[code] if code < len(remembered) else None for code in codes.tolist()]
        if self._ends is None or self._bytes is None:
            return found
        others = np.flatnonzero(codes >= len(remembered))
        places, of_place = np.unique(codes[others] - len(remembered), return_inverse=True)
        written: list[str] = []
        for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):  # texts side by side are read at once
            if len(run):
                ends = self._ends.read(int(run[0]), int(run[-1]) + 2)
                content = self._bytes.read(int(ends[0]), int(ends[-1])).tobytes()
                bounds = pairwise((ends - ends[0]).tolist())
                written += [content[start:stop].decode("utf-8", "surrogatepass") for start, stop in bounds]
        for i, place in zip(others.tolist(), of_place.tolist(), strict=True):
            found[i] = written[place]
        return found

    def close(self) -> None:
        """Delete the file of texts. Codes of texts in memory stay valid."""
        for file in (self._ends, self._bytes):
            if file is not None:
                file.close()

    def _has_space(self, text: str) -> bool:
        return (
            len(self.remembered) <= MAX_REMEMBERED_TEXTS and self._characters + len(text) <= MAX_REMEMBERED_CHARACTERS
        )

    def _write(self, texts: Sequence[bytes]) -> None:
        if self._ends is None or self._bytes is None:
            self._bytes = RecordFile(np.dtype(np.uint8), self._source)
            self._ends = RecordFile(np.dtype(np.int64), self._source)
            self._ends.append(np.zeros(1, np.int64))
        self._ends.append(len(self._bytes) + np.cumsum([len(text) for text in texts], dtype=np.int64))
        self._bytes.append(np.frombuffer(b"".join(texts), np.uint8))


def count_texts(texts: TextCodes, codes: Iterable[Codes], most: int) -> tuple[dict[str, int], int]:
    """Return how often the `most` frequent texts occur among `codes`, and how many different ones there are.

    Exact but for texts with an equal hash of 64 bits. The hashes are written to a file, and counted in parts that
    memory holds.
    """
    hashes = RecordFile(np.dtype([("hash", np.uint64), ("code", np.int32)]), "texts")
    for block in codes:
        for start in range(0, len(block), _READ_TEXTS):
            own = block[start : start + _READ_TEXTS]
            present = own[own > 0]
            records = np.empty(len(present), hashes.dtype)
            records["code"] = present
            records["hash"] = [hash_text(str(text)) for text in texts.texts(present)]
            hashes.append(records)
    parts, distinct = math.ceil(len(hashes) / _COUNTED_HASHES), 0
    frequent: list[tuple[int, str]] = []
    for part in range(parts):
        found = np.concatenate([block[block["hash"] % parts == part] for block in hashes.blocks()])
        _, first, counts = np.unique(found["hash"], return_index=True, return_counts=True)
        distinct += len(counts)
        kept = np.argsort(-counts, kind="stable")[:most]
        names = texts.texts(found["code"][first[kept]])
        frequent += [(-int(count), str(name)) for count, name in zip(counts[kept], names, strict=True)]
        frequent = sorted(frequent)[:most]
    return {name: -count for count, name in frequent}, distinct
