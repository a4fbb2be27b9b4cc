"""The block loader: training on the rows of a streamed dataset.

Once the statistics of all rows are known, the records are encoded once into a second temporary file: numbers as the
network takes them, categories as codes, integers of one or two bytes unchanged. An epoch reads these records in chunks
from random places, shuffles a block of chunks, on a thread that is one block ahead, and expands the block piece by
piece. Memory holds three blocks and a piece, regardless of the number of rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact.mean_row import MeanRow
from model_store.errors import Fault
from model_store.schema.columns import CategoryColumn, Column, FaultCollector, RowLocations
from model_store.schema.signature import Signature
from training.data.fitting.kinds import COLUMN_KINDS
from training.data.fitting.target_transform import find_invalid_target
from training.data.streaming.dataset import StreamedDataset
from training.data.streaming.record_file import ChunkOrder, JoinedRecords, RecordFile
from training.data.streaming.source import FOLD_FIELD
from training.data.streaming.text_codes import TextCodes
from training.engine.data_parallel import DataParallel
from training.engine.loop import Samples, TrainingState
from training.errors import DataError
from training.network.specification import NetworkSpec

# A block, at most: rows that are shuffled together. Not larger, as the network waits for the first block of an epoch.
BLOCK_ROWS, BLOCK_BYTES = 65_536, 8 << 20
PIECE_VALUES = 1 << 18  # expanded at a time: a megabyte, still in the cache when the network trains on it
_MAX_TABLE_VALUES = 1 << 21  # of the features of different texts: 8 MB


@dataclass(frozen=True)
class _FeatureGroup:
    """Neighbouring features of the network, and the field of a record that they are expanded from.

    The field holds indices of the rows of `table`, for the codes of texts that are in memory `indices`; integers, which
    are divided by `scale`; or the features themselves.
    """

    span: slice
    columns: list[Any]
    field: tuple[str, Any, tuple[int, ...]]
    table: NDArray[Any] | None = None
    indices: NDArray[np.int32] | None = None
    scale: np.float32 | None = None

    @property
    def name(self) -> str:
        return self.field[0]

    def encode(self, dataset: StreamedDataset, records: NDArray[Any], field: NDArray[Any]) -> None:
        """Write the columns of the stream's `records` into `field`. A number that does not fit becomes infinite."""
        values = records[self.columns[0].name]
        if self.indices is not None:
            field[...] = self.indices.take(values, mode="clip")
            others = np.flatnonzero(values >= len(self.indices))
            if len(others):
                read = dataset.values(self.columns[0].name, records[others])
                field[others] = _category_indices(self.columns[0], read)
            return
        if self.scale is not None:
            field[...] = values.reshape(field.shape)
            return
        at = 0
        for column in self.columns:
            values, count = dataset.values(column.name, records), len(records)
            field[:, at : at + column.width] = column.encode(values, RowLocations("", range(count)), FaultCollector())
            at += column.width

    def expand(self, field: NDArray[Any], x: NDArray[Any]) -> None:
        """Write the features into their columns of `x`."""
        if self.table is not None:
            x[:, self.span] = self.table.take(field, axis=0)
        elif self.scale is not None:
            np.divide(field, self.scale, out=x[:, self.span])
        else:
            x[:, self.span] = field


class _EncodedPart:
    """Encoded records of a fold, or of all rows: features with one value, the mean, the range of the targets."""

    def __init__(
        self, dtype: np.dtype[Any], source: str, network_spec: NetworkSpec, signature: Signature, outputs: int
    ) -> None:
        self.records, width = RecordFile(dtype, source), signature.width
        self.mean = MeanRow(signature)
        self.constant, self.first = np.ones(width, bool), np.zeros(width, network_spec.dtype)
        self.lowest = np.full(outputs, np.inf, network_spec.dtype)
        self.highest = -self.lowest

    def append(self, records: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> None:
        """Add records with their features and targets."""
        if not len(records):
            return
        if not len(self.records):
            self.first = x[0].copy()
        self.mean.add(x)
        self.constant &= (x == self.first).all(axis=0)
        self.lowest, self.highest = np.minimum(self.lowest, y.min(axis=0)), np.maximum(self.highest, y.max(axis=0))
        self.records.append(records)


class BlockLoader(Samples):
    """The training rows of a streamed dataset as the network takes them. DataError if a row cannot be encoded."""

    def __init__(self, dataset: StreamedDataset, signature: Signature, network_spec: NetworkSpec) -> None:
        self.dataset, self.signature, self.network_spec = dataset, signature, network_spec
        self.width = signature.width
        self._weights = int(network_spec.weighted)  # columns of `y` after those of the outputs
        self._groups = _group_features(dataset, signature, network_spec)
        labels = len(dataset.held_out.classes)
        self._class_targets = network_spec.encode_targets(np.arange(labels), signature.output) if labels else None
        y: Any = ("y", np.int32) if labels else ("y", network_spec.dtype, (network_spec.output_size,))
        fields = [*(group.field for group in self._groups), y, ("weight", network_spec.dtype, (self._weights,))]
        self._dtype, outputs = np.dtype(fields), network_spec.output_size + self._weights
        self._parts = [
            _EncodedPart(self._dtype, dataset.source.name, network_spec, signature, outputs)
            for _ in range(max(1, len(dataset.folds)))
        ]
        self._encode()
        self._records = JoinedRecords([part.records for part in self._parts])

    def without(self, fold: int) -> BlockLoader:
        """Return the rows that are not in a fold of an ensemble, from 0."""
        found = copy.copy(self)
        found._parts = [part for i, part in enumerate(self._parts) if i != fold]
        found._records = JoinedRecords([part.records for part in found._parts])
        return found

    def __len__(self) -> int:
        return len(self._records)

    @property
    def constant_features(self) -> NDArray[np.bool_]:
        constant = [part.constant & (part.first == self.first_sample) for part in self._parts]
        return np.asarray(np.logical_and.reduce(constant))

    @property
    def first_sample(self) -> NDArray[Any]:
        return self._parts[0].first

    @property
    def mean(self) -> MeanRow:
        """The mean of all rows."""
        return MeanRow.joined([part.mean for part in self._parts])

    @property
    def target_range(self) -> tuple[NDArray[Any], NDArray[Any]]:
        lowest, highest = ([getattr(part, key) for part in self._parts] for key in ("lowest", "highest"))
        return np.minimum.reduce(lowest), np.maximum.reduce(highest)

    @property
    def targets_sum_to_1(self) -> bool:
        if self._class_targets is None or self._weights:
            return False
        return bool((self._class_targets.sum(axis=1) == 1).all())

    def epoch_blocks(
        self, state: TrainingState, batch_size: int, parallel: DataParallel | None = None
    ) -> Iterator[tuple[Any, Any, None, int]]:
        seed = None if state.rng is None else state.draw_order(lambda rng: int(rng.integers(2**63)))
        order = self._records.epoch_order(seed)
        blocks = self._read_blocks(order, state.steps * batch_size, batch_size, parallel)
        size = _whole_batches(PIECE_VALUES // self.width, batch_size)
        buffers = self._allocate(size)
        with ThreadPoolExecutor(1, "stream") as reader:
            following = reader.submit(next, blocks, None)
            while (records := following.result()) is not None:
                following = reader.submit(next, blocks, None)
                for start in range(0, len(records), size):
                    piece = records[start : start + size]
                    if parallel is None:
                        yield *self._expand(piece, *buffers), None, 0
                    else:
                        own = parallel.rows_of(parallel.own, len(piece), batch_size)
                        x, y = (buffer[: len(piece)] for buffer in buffers)
                        x[own], y[own] = self._expand(piece[own], *self._allocate(len(own)))
                        yield x, y, None, 0

    def sample(self, rows: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return at most so many rows of one block, and their targets, with the weights after those of the outputs."""
        records = next(self._read_blocks(self._records.epoch_order(int(rng.integers(2**63))), 0, 1))[:rows]
        return self._expand(records, *self._allocate(len(records)))

    def _read_blocks(
        self, order: ChunkOrder, start: int, batch_size: int, parallel: DataParallel | None = None
    ) -> Iterator[NDArray[Any]]:
        """Yield the records from `start` on, shuffled in blocks of whole batches.

        With `parallel` each part of the batches in a block has chunks of its own, so that a rank reads only its parts;
        records of other ranks are zeros.
        """
        size = _whole_batches(min(BLOCK_ROWS, BLOCK_BYTES // self._records.dtype.itemsize), batch_size)
        block, skipped = divmod(start, size)
        for number in range(block, math.ceil(len(self) / size)):
            first, end = number * size, min((number + 1) * size, len(self))
            if parallel is None:
                records = self._read_shuffled(order, first, end, [number])
            else:
                records, at = np.zeros(end - first, self._records.dtype), first
                for part in range(parallel.parts):
                    rows = parallel.rows_of(range(part, part + 1), end - first, batch_size)
                    if part in parallel.own:
                        records[rows] = self._read_shuffled(order, at, at + len(rows), [number, part])
                    at += len(rows)
            yield records[skipped:]
            skipped = 0

    def _read_shuffled(self, order: ChunkOrder, start: int, stop: int, seed: list[int]) -> NDArray[Any]:
        records = self._records.read_ranges(order.ranges(start, stop))
        if order.seed is None:
            return records
        # `take` moves records 30 to 100 times as fast as an index does.
        return records.take(np.random.default_rng([order.seed, *seed]).permutation(len(records)))

    def _allocate(self, rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Allocate buffers for so many rows and their targets."""
        dtype = self.network_spec.dtype
        outputs = self.network_spec.output_size + self._weights
        return np.empty((rows, self.width), dtype), np.empty((rows, outputs), dtype)

    def _expand(self, records: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Expand records into `x` and `y`, as the network takes them."""
        x, y = x[: len(records)], y[: len(records)]
        for group in self._groups:
            group.expand(records[group.name], x)
        outputs = self.network_spec.output_size
        y[:, :outputs] = records["y"] if self._class_targets is None else self._class_targets.take(records["y"], axis=0)
        y[:, outputs:] = records["weight"]
        return x, y

    def _encode(self) -> None:
        """Write the encoded records, and find the features that have one value in every row."""
        dataset, raw = self.dataset, self.dataset.records
        size = _whole_batches(PIECE_VALUES // self.width, 1)
        buffers = self._allocate(size)
        for start in range(0, len(raw), size):
            raw_records = raw.read(start, min(start + size, len(raw)))
            records = np.zeros(len(raw_records), self._dtype)
            with np.errstate(over="ignore"):
                for group in self._groups:
                    group.encode(dataset, raw_records, records[group.name])
                targets = dataset.targets(raw_records)
                if fault := find_invalid_target(self.signature.output, targets):
                    location = f"column {dataset.source.target_names[fault[1]]}"
                    raise DataError(dataset.source.name, [Fault(location, *fault[2:])])
                is_class = bool(dataset.held_out.classes)
                records["y"] = targets if is_class else self.network_spec.encode_targets(targets, self.signature.output)
                if (weights := dataset.weights(raw_records)) is not None:
                    records["weight"] = weights.reshape(-1, 1)
            x, y = self._expand(records, *buffers)
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                by_feature = [column.name for column in self.signature.inputs for _ in range(column.width)]
                overflows = [by_feature[i] for i in np.flatnonzero(~np.isfinite(x).all(axis=0))]
                location = f"column {next(iter(overflows), ', '.join(dataset.source.target_names))}"
                problem = f"a scaled number does not fit {self.network_spec.dtype}"
                raise DataError(dataset.source.name, [Fault(location, problem, "write dtype = 'float64' in [network]")])
            if wrong := self.network_spec.find_invalid_target(y[:, : self.network_spec.output_size]):
                location = f"column {', '.join(dataset.source.target_names)}"
                raise DataError(dataset.source.name, [Fault(location, *wrong[1:])])
            for fold, part in enumerate(self._parts):
                if len(self._parts) == 1:
                    part.append(records, x, y)
                else:
                    own = raw_records[FOLD_FIELD] == fold
                    part.append(records[own], x[own], y[own])
        raw.close()
        for texts in dataset.statistics.codes.values():
            texts.close()


def _group_features(dataset: StreamedDataset, signature: Signature, network_spec: NetworkSpec) -> list[_FeatureGroup]:
    """Return the groups of features in order; neighbouring numeric columns share a field."""
    groups: list[_FeatureGroup] = []
    at = 0
    for column in signature.inputs:
        span, name = slice(at, at + column.width), str(at)
        at += column.width
        texts = dataset.statistics.codes.get(column.name)
        if texts is not None and (isinstance(column, CategoryColumn) or _are_few(texts, column)):
            table, indices = _feature_table(column, texts)
            field = (name, np.int32, ())
            groups.append(_FeatureGroup(span, [column], field, table.astype(network_spec.dtype), indices))
        elif _divides_exactly(column, dtype := dataset.records.dtype[column.name].base, network_spec.dtype):
            scale = np.float32(column.scale)
            groups.append(_FeatureGroup(span, [column], (name, dtype, (column.width,)), scale=scale))
        else:
            columns = [column]
            if groups and groups[-1].table is None and groups[-1].scale is None:
                previous = groups.pop()
                span, columns, name = slice(previous.span.start, at), [*previous.columns, column], previous.name
            groups.append(_FeatureGroup(span, columns, (name, network_spec.dtype, (span.stop - span.start,))))
    return groups


def _divides_exactly(column: Column, dtype: np.dtype[Any], network_dtype: str) -> bool:
    """Return True if a division in float32 gives the same bits as `encode`: both numbers are exact in float32."""
    exact = dtype.kind in "ui" and dtype.itemsize <= 2 and column.scale == np.float32(column.scale)
    return exact and column.offset == 0 and column.linear_width is None and network_dtype == "float32"


def _whole_batches(rows: int, batch_size: int) -> int:
    """Round so many rows down to whole batches, at least one."""
    return batch_size * max(1, rows // batch_size)


def _are_few(texts: TextCodes, column: Column) -> bool:
    """Return True if the features of all texts of a column fit in memory."""
    return texts.are_remembered and len(texts) * column.width <= _MAX_TABLE_VALUES


def _feature_table(column: Column, texts: TextCodes) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return the features of each category, or text, and the row of each code in memory in that table.

    A missing value of a column that has none gets any row, which is never looked up.
    """
    values = COLUMN_KINDS[column.kind].from_texts(list(texts.remembered), column.name)
    if not isinstance(column, CategoryColumn):
        encoded = column.encode(values, RowLocations("", range(len(values))), FaultCollector())
        return encoded, np.arange(len(values), dtype=np.int32)
    table = np.eye(column.codes) if column.encoding == "one_hot" else np.arange(column.codes).reshape(-1, 1)
    return table, _category_indices(column, values)


def _category_indices(column: Any, values: NDArray[Any]) -> NDArray[np.int32]:
    """Return the index of the category of each value."""
    encoded = replace(column, encoding="code").encode(values, RowLocations("", range(len(values))), FaultCollector())
    return np.asarray(encoded[:, 0].astype(np.int32))
