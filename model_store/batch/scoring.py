"""Score one part of a batch job: read its rows, predict, and put a Parquet file under the part's name.

The file appears complete or not at all, and only if nobody has put it before: its bytes follow from the plan alone, so
it does not matter which of several processes wins.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from model_store.artifact.model import Model
from model_store.batch.encoding import encode_record_batch
from model_store.batch.parquet_memory import check_kept_types, plain_tables, rows_of_batch, shared_texts
from model_store.batch.plan import TEXT_BUFFER_BYTES, BatchOptions, Part, ScoredModel, open_input_table
from model_store.errors import Fault, InputError, StoreError, did_you_mean
from model_store.nn import Array
from model_store.schema.outputs import ClassificationOutput, Output, RegressionOutput
from model_store.schema.prediction_table import prediction_columns, prediction_header
from model_store.schema.row_parser import RowBatch, RowTable, count_filled
from model_store.schema.signature import Signature
from model_store.storage.base import translate_os_errors
from model_store.storage.open_storage import open_storage
from model_store.tables.arrow_file import ArrowFile
from model_store.tables.line_span import open_span
from model_store.tables.table_file import DelimitedFile, TableFile
from model_store.tables.text_file import FILE_NULL
from model_store.utils.values import list_names

_BATCH_VALUES, _MAX_BATCH_ROWS = 1 << 21, 1 << 14  # features, or cells, that are encoded at once
_ROW_GROUP_BYTES = 32 << 20  # of an output before it is compressed
_METADATA_KEY = b"forward_pass"


@dataclass(frozen=True)
class PartJob:
    """What a process needs to score parts of a job, apart from the model itself."""

    output: str
    model: ScoredModel
    options: BatchOptions


@dataclass(frozen=True)
class PartResult:
    """What became of a part: written by this process, or there already; or why it failed."""

    number: int
    rows: int = 0
    written: bool = False
    filled: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    fault_count: int = 0
    store_error: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.fault_count or self.store_error)


def score_part(job: PartJob, part: Part, model: Model) -> PartResult:
    """Put the predictions of a part into the output folder. Never raises for invalid rows or a failing storage."""
    try:
        with translate_os_errors(part.location, "score the part", {}):
            return _score(job, part, model)
    except InputError as e:
        faults = [Fault(f"{part.location} {f.location}".rstrip(), f.problem, f.fix) for f in e.faults]
        return PartResult(part.number, faults=tuple(faults), fault_count=e.total)
    except StoreError as e:
        return PartResult(part.number, store_error=str(e))


def _score(job: PartJob, part: Part, model: Model) -> PartResult:
    storage = open_storage(job.output)
    if storage.keys(part.key):
        return PartResult(part.number)
    rows, filled, metadata = 0, Counter[str](), _metadata(job, part)
    notes: list[str] = []
    with storage.stage(part.key) as staged, closing(_read_batches(job.options, part, model, notes)) as batches:
        writer, waiting, waiting_bytes = None, [], 0
        for kept, features, batch_filled in batches:
            filled += batch_filled
            found = _output_table(model.signature.output, kept, _predict(model, features, part.first_row + rows))
            for table in plain_tables(found):
                if writer is None:
                    writer = parquet.ParquetWriter(staged.file, table.schema.with_metadata(metadata))
                rows, waiting_bytes = rows + table.num_rows, waiting_bytes + table.nbytes
                waiting.append(table)
                if waiting_bytes >= _ROW_GROUP_BYTES:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, waiting_bytes = [], 0
        if writer is not None:
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
            writer.close()
        written = staged.commit(part.key)
    return PartResult(part.number, rows, written, dict(filled), tuple(f"{part.location}: {note}" for note in notes))


def _metadata(job: PartJob, part: Part) -> dict[bytes, bytes]:
    """Return what the output says of its origin."""
    origin: dict[str, Any] = {**asdict(job.model), "input": part.file.location, "etag": part.file.etag}
    if part.row_group is not None:
        origin["row_group"] = part.row_group
    if part.span is not None:
        origin["bytes"] = list(part.span)
    return {_METADATA_KEY: json.dumps(origin, ensure_ascii=False).encode()}


def _predict(model: Model, features: Array, rows_before: int) -> dict[str, Array]:
    if not len(features):
        return model.signature.decode_arrays(np.empty((0, model.network.output_size or 1), features.dtype))
    try:
        return model.signature.decode_arrays(model.network(features))
    except InputError as e:  # a prediction that is not finite
        raise _with_rows(e, rows_before) from e


def _output_table(output: Output, kept: dict[str, Any], found: dict[str, Array]) -> Any:
    """Return the kept columns and the predictions as a table of pyarrow's."""
    predicted: list[Any] = prediction_columns(found, output)
    if isinstance(output, ClassificationOutput) and all(isinstance(label, int) for label in output.labels):
        predicted[0] = pa.array(predicted[0], pa.int64())
    elif not isinstance(output, RegressionOutput):
        predicted[0] = pa.array(map(str, predicted[0]), pa.string())
    return pa.table([*kept.values(), *map(pa.array, predicted)], names=prediction_header(output, list(kept)))


def batch_rows(signature: Signature) -> int:
    """Return how many rows are encoded and predicted at once: some megabytes."""
    written = len(prediction_header(signature.output, []))
    return max(1, min(_MAX_BATCH_ROWS, _BATCH_VALUES // max(signature.width, len(signature.inputs), written)))


Batch = tuple[dict[str, Any], Array, Counter[str]]  # kept columns, features, numbers of values that were filled in


def _read_batches(options: BatchOptions, part: Part, model: Model, notes: list[str]) -> Generator[Batch]:
    table = open_input_table(part.file, options)
    if isinstance(table, ArrowFile) and table.is_parquet:
        return _read_row_group(table, options, part, model)
    return _read_rows(table, options, part, model, notes)


def check_columns(table: TableFile, options: BatchOptions, signature: Signature) -> None:
    """Raise InputError if the header of a table lacks columns that the model needs, or that are to be kept."""
    if is_named(table, options, signature):
        try:
            RowTable(iter([(0, list(table.names))]), "", signature, "present", ignore_unknown=True)
        except InputError as e:
            raise InputError([Fault("", f.problem, f.fix) for f in e.faults], e.total) from e
        _check_kept(options.keep, table.all_names)
        if isinstance(table, ArrowFile) and table.is_parquet:
            check_kept_types(table, table.all_names if options.keep is None else options.keep)


def _check_kept(keep: Sequence[str] | None, names: Sequence[str]) -> None:
    fixes = {name: did_you_mean(name, names) or f"the columns are {list_names(names)}" for name in keep or ()}
    faults = [Fault("--keep", f"no column {name!r}", fix) for name, fix in fixes.items() if name not in names]
    if faults:
        raise InputError(faults)


def is_named(table: TableFile, options: BatchOptions, signature: Signature) -> bool:
    """Return True if the first row of a table is a header for certain, as `models predict` decides it."""
    if not isinstance(table, DelimitedFile) or options.header is not None:
        return options.header != "absent" or not isinstance(table, DelimitedFile)
    return not set(signature.names).isdisjoint(table.names)


def _read_row_group(table: ArrowFile, options: BatchOptions, part: Part, model: Model) -> Generator[Batch]:
    """Read a row group by columns; only those that are used are fetched."""
    signature, row = model.signature, part.first_row
    check_columns(table, options, signature)
    kept = table.all_names if options.keep is None else options.keep
    whole_row = signature.inputs[0].is_whole_row
    inputs = [name for name in table.names if whole_row or name in signature.names]
    wanted = list(dict.fromkeys((*inputs, *kept)))
    group = part.row_group or 0
    size = rows_of_batch(table, wanted, group, batch_rows(signature))
    with closing(table.batches(wanted, size, [group])) as batches:
        for batch in batches:
            try:
                features, filled = encode_record_batch(signature, batch.select(inputs), model.network.dtype)
            except InputError as e:
                raise _with_rows(e, row) from e
            row += batch.num_rows
            yield {name: batch.column(name) for name in kept}, features, filled
    if row == part.first_row:
        yield {name: pa.array([], table.column_type(name)) for name in kept}, _no_features(model), Counter()


def _with_rows(error: InputError, row: int) -> InputError:
    """Return the error with rows of the file, from 1, in place of those after `row`."""
    return InputError([_with_row(fault, row) for fault in error.faults], error.total)


def _with_row(fault: Fault, row: int) -> Fault:
    _, _, rest = fault.location.partition(".")
    number, dot, column = rest.partition(".")
    if not number.isdigit():
        return fault
    return Fault(f"row {row + int(number) + 1}" + (f", column {column}" if dot else ""), fault.problem, fault.fix)


def _no_features(model: Model) -> Array:
    return np.empty((0, model.signature.width), model.network.dtype)


def _read_rows(table: TableFile, options: BatchOptions, part: Part, model: Model, notes: list[str]) -> Generator[Batch]:
    """Read the rows of a text file, or of its range of bytes, or of another table."""
    signature, count = model.signature, 0
    with _open_rows(table, options, part, signature, notes) as rows:
        names = rows.names or [f"column_{i + 1}" for i in range(rows.width)]
        _check_kept(options.keep, names)
        plain = not set(table.decimal_commas).intersection(signature.names)
        kept = {name: names.index(name) for name in (names if options.keep is None else options.keep)}
        while (batch := _read_cells(rows, part, batch_rows(signature))).cells:
            count += len(batch.cells)
            as_array = partial(pa.array, type=pa.string()) if isinstance(table, DelimitedFile) else shared_texts
            cells = {name: as_array([row[i] for row in batch.cells]) for name, i in kept.items()}
            yield cells, *_encode_cells(rows, batch, model, plain)
    if not count:
        yield {name: pa.array([], pa.string()) for name in kept}, _no_features(model), Counter()


def _encode_cells(rows: RowTable, batch: RowBatch, model: Model, by_column: bool) -> tuple[Array, Counter[str]]:
    """Return the features of rows of texts, and how many values of each column were filled in.

    A column at a time takes half as long as rows, which are made if a cell is invalid: their errors name the line.
    """
    signature = model.signature
    if by_column and not signature.inputs[0].is_whole_row:
        indices = {name: i for i, name in enumerate(rows.names) if name in signature.names}
        columns = {name: pa.array([row[i] or None for row in batch.cells], pa.string()) for name, i in indices.items()}
        with suppress(InputError):
            return encode_record_batch(signature, pa.record_batch(columns), model.network.dtype)
    batch = rows.with_rows(batch)
    try:
        return model.encode(batch.rows), count_filled(signature, batch.rows)
    except InputError as e:
        raise batch.with_lines(e) from e


def _read_cells(rows: RowTable, part: Part, size: int) -> RowBatch:
    try:
        return rows.read_cells(size)
    except InputError as e:
        if part.span is None:
            raise
        fix = "if quoted cells hold line breaks, use --whole-files"
        raise InputError(
            [Fault(f.location, f.problem, f"{f.fix}; {fix}".lstrip("; ")) for f in e.faults], e.total
        ) from e


@contextmanager
def _open_rows(
    table: TableFile, options: BatchOptions, part: Part, signature: Signature, notes: list[str]
) -> Iterator[RowTable]:
    """Open the rows of a part. The header and the dialect of a range of bytes are those of its file.

    What the reader changed in the rows is added to `notes` at the end.
    """
    named, source, header = is_named(table, options, signature), table, options.header
    is_later = part.span is not None and part.span[0] > 0
    if part.span is not None and isinstance(table, DelimitedFile):
        opener = partial(open_span, partial(part.file.open, TEXT_BUFFER_BYTES), *part.span)
        source = DelimitedFile(table.name, opener, options.table, drop_row_names=False)
        source.dialect = replace(table.dialect, skipped_lines=0) if is_later else table.dialect
    with closing(source.named_records() if named and not is_later else source.records()) as records:
        rows: Iterator[tuple[int, list[str]]] = records
        if is_later:
            rows = chain([(0, table.names)], source.named_rows(records, table.header)) if named else records
            header = "present" if named else "absent"
        yield RowTable(
            rows, "", signature, header, ignore_unknown=True, row_unit=table.row_unit, null=FILE_NULL,
            plain_numbers=table.decimal_commas,
        )  # fmt: skip
        notes += source.ragged.notes()
