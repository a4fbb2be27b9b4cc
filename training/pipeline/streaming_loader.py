"""The blocks: how a network learns from the rows of a stream.

Once the statistics of all rows are known, the records are encoded for good into a second temporary file: numbers as the
network takes them, texts as codes, whole numbers of a byte or two as they are. An epoch reads these records in chunks
from random places, shuffles a block of chunks, on a thread of its own that is one block ahead, and expands the block
piece by piece. Memory holds three blocks and a piece, whatever the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.columns import ArrayColumn, CategoryColumn, FaultCollector, NumberColumn, RowLocations
from model_store.schema.signature import Signature
from training.data.streaming.dataset import Stream, texts_of
from training.data.streaming.record_file import Chunks, Spool
from training.engine.loop import Samples, TrainingState
from training.errors import DataError
from training.pipeline.network_builder import NetworkSpec

# Shuffled together, at most. No larger, since the network waits for the first block of an epoch.
BLOCK_ROWS, BLOCK_BYTES = 65_536, 8 << 20
PIECE_NUMBERS = 1 << 18  # expanded at a time: a megabyte, still in the cache when the network learns from it


@dataclass(frozen=True)
class _Part:
    """Features that lie side by side, and the field of a record that they come from.

    A field holds codes, of which `table` has the features, whole numbers to be divided by `scale`, or the features.
    """

    span: slice
    columns: list[Any]
    field: tuple[str, Any, tuple[int, ...]]
    table: NDArray[Any] | None = None
    scale: np.float32 | None = None

    @property
    def name(self) -> str:
        return self.field[0]

    def encode(self, records: NDArray[Any], field: NDArray[Any]) -> None:
        """What the columns say in the stream's `records`, put in the field; what does not fit is infinite."""
        if self.table is not None or self.scale is not None:
            field[...] = records[self.columns[0].name].reshape(field.shape)
            return
        at = 0
        for column in self.columns:
            field[:, at : at + column.width] = column.encode(
                records[column.name], RowLocations("", ()), FaultCollector()
            )
            at += column.width

    def expand(self, field: NDArray[Any], x: NDArray[Any]) -> None:
        """The features, put in their place in `x`."""
        if self.table is not None:
            x[:, self.span] = self.table.take(field, axis=0)
        elif self.scale is not None:
            np.divide(field, self.scale, out=x[:, self.span])
        else:
            x[:, self.span] = field


class Blocks(Samples):
    """The training rows of a stream as the network takes them. DataError where a row cannot be encoded."""

    def __init__(self, stream: Stream, signature: Signature, design: NetworkSpec) -> None:
        self.stream, self.signature, self.design = stream, signature, design
        self.width = signature.width
        self._parts = _parts(stream, signature, design)
        labels = len(stream.held.labels)
        self._answers = design.targets(np.arange(labels), signature.output) if labels else None
        y: Any = ("y", np.int32) if labels else ("y", design.dtype, (design.output_size,))
        self._spool = Spool(np.dtype([*(part.field for part in self._parts), y]), stream.source.name)
        self._seen = np.zeros(self.width, bool)
        self._encode()

    def __len__(self) -> int:
        return len(self._spool)

    @property
    def nonzero_features(self) -> NDArray[np.bool_]:
        return self._seen

    def epoch_blocks(self, state: TrainingState, batch_size: int) -> Iterator[tuple[Any, Any, None, int]]:
        seed = None if state.rng is None else state.draw_order(lambda rng: int(rng.integers(2**63)))
        blocks = self._blocks(self._spool.order(seed), state.steps * batch_size, batch_size)
        size = _whole(PIECE_NUMBERS // self.width, batch_size)
        room = self._room(size)
        with ThreadPoolExecutor(1, "stream") as ahead:
            following = ahead.submit(next, blocks, None)
            while (records := following.result()) is not None:
                following = ahead.submit(next, blocks, None)
                for start in range(0, len(records), size):
                    yield *self._expanded(records[start : start + size], *room), None, 0

    def some(self, rows: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """At most so many rows and their targets, of one block."""
        records = next(self._blocks(self._spool.order(int(rng.integers(2**63))), 0, 1))[:rows]
        return self._expanded(records, *self._room(len(records)))

    def _blocks(self, chunks: Chunks, start: int, batch_size: int) -> Iterator[NDArray[Any]]:
        """The records from `start` on, shuffled in blocks of whole batches."""
        size = _whole(min(BLOCK_ROWS, BLOCK_BYTES // self._spool.dtype.itemsize), batch_size)
        block, skipped = divmod(start, size)
        for number in range(block, math.ceil(len(self) / size)):
            records = self._spool.gather(chunks.ranges(number * size, min((number + 1) * size, len(self))))
            if chunks.seed is not None:
                # `take` moves records 30 to 100 times as fast as an index does.
                records = records.take(np.random.default_rng([chunks.seed, number]).permutation(len(records)))
            yield records[skipped:]
            skipped = 0

    def _room(self, rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Where so many rows and their targets go."""
        dtype = self.design.dtype
        return np.empty((rows, self.width), dtype), np.empty((rows, self.design.output_size), dtype)

    def _expanded(self, records: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Records and their targets as the network takes them, in `x` and `y`."""
        x, y = x[: len(records)], y[: len(records)]
        for part in self._parts:
            part.expand(records[part.name], x)
        y[...] = records["y"] if self._answers is None else self._answers.take(records["y"], axis=0)
        return x, y

    def _encode(self) -> None:
        """Fills the spool, and finds which features any row has."""
        stream, raw = self.stream, self.stream.spool
        size = _whole(PIECE_NUMBERS // self.width, 1)
        room = self._room(size)
        for start in range(0, len(raw), size):
            given = raw.read(start, min(start + size, len(raw)))
            records = np.zeros(len(given), self._spool.dtype)
            with np.errstate(over="ignore"):
                for part in self._parts:
                    part.encode(given, records[part.name])
                answers = stream.answers(given)
                records["y"] = answers if stream.held.labels else self.design.targets(answers, self.signature.output)
            x, y = self._expanded(records, *room)
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                problem = f"a number does not fit {self.design.dtype} once it is scaled"
                raise DataError(stream.source.name, [Fault("", problem, "write dtype = 'float64' in [network]")])
            self._seen |= x.any(axis=0)
            self._spool.append(records)
        raw.close()


def _parts(stream: Stream, signature: Signature, design: NetworkSpec) -> list[_Part]:
    """Where the features come from, in their order; columns of numbers that are neighbours share a field."""
    parts: list[_Part] = []
    at = 0
    for column in signature.inputs:
        span, name = slice(at, at + column.width), str(at)
        at += column.width
        if isinstance(column, CategoryColumn):
            table = _one_hot(column, stream.tally.texts[column.name]).astype(design.dtype)
            parts.append(_Part(span, [column], (name, np.int32, ()), table=table))
        elif _divides(column, given := stream.spool.dtype[column.name].base, design.dtype):
            parts.append(_Part(span, [column], (name, given, (column.width,)), scale=np.float32(column.scale)))
        else:
            columns = [column]
            if parts and parts[-1].table is None and parts[-1].scale is None:
                before = parts.pop()
                span, columns, name = slice(before.span.start, at), [*before.columns, column], before.name
            parts.append(_Part(span, columns, (name, design.dtype, (span.stop - span.start,))))
    return parts


def _divides(column: NumberColumn | ArrayColumn, given: np.dtype[Any], dtype: str) -> bool:
    """Whether to divide in float32 gives the bits of `encode`: both numbers are exact there. A float32 is 4 bytes."""
    exact = given.kind in "ui" and given.itemsize <= 2 and column.scale == np.float32(column.scale)
    return exact and column.offset == 0 and dtype == "float32"


def _whole(rows: int, batch_size: int) -> int:
    """So many rows in whole batches, at least one."""
    return batch_size * max(1, rows // batch_size)


def _one_hot(column: CategoryColumn, texts: dict[Any, int]) -> NDArray[Any]:
    """The features of each text by its code. Texts that no training row has are zeros, and will not be asked for."""
    return column.encode(texts_of(texts), RowLocations("", range(len(texts))), FaultCollector())
