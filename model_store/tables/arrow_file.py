"""Parquet and Arrow files: columns of pyarrow's as texts. pyarrow is installed by the extra `arrow`.

A file of 1 kB can hold a dictionary of one text of 1 MB that 30,000 rows refer to. So the values of a dictionary are
converted once and shared by the rows, the texts and bytes of Parquet files are read as dictionaries, and how often a
batch repeats long texts is bounded, since each repetition takes time. pyarrow trusts the offsets and indices of an
Arrow file, so each batch is validated before it is converted.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any

from model_store.errors import Fault, InputError
from model_store.tables.header import Header
from model_store.tables.table_file import Block, Record, TableFile
from model_store.utils.extras import install_command

_BATCH_ROWS, _BATCH_CELLS = 65_536, 1 << 22  # a file of 90 kB can have 1,500 columns and a million rows
MAX_REPETITION, MIN_REPEATED_CHARACTERS = 100, 1 << 28  # for each character of a dictionary, and of any dictionary
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # the name of pandas' row index


class ArrowFile(TableFile):
    """A Parquet file, or Arrow's own format (IPC, Feather), which may be a stream."""

    row_unit = "row"

    @property
    def header(self) -> Header:
        return Header(self._fields[0], [], len(self._fields[0]))

    @property
    def all_names(self) -> list[str]:
        return list(self._schema.names)

    def column_type(self, name: str) -> Any:
        """Return the type of a column, of pyarrow's."""
        return self._schema.field(name).type

    @property
    def unsupported(self) -> list[str]:
        return self._fields[1]

    @cached_property
    def _schema(self) -> Any:
        with self._reader() as reader:
            return reader.schema_arrow if self.is_parquet else reader.schema

    @cached_property
    def _fields(self) -> tuple[list[str], list[str]]:
        """The names of columns of numbers and texts, and of the others."""
        schema = self._schema
        names: list[str] = []
        unsupported: list[str] = []
        faults, seen = [], set[str]()
        for index, (name, kind) in enumerate(zip(schema.names, schema.types, strict=True), 1):
            if not name:
                faults.append(Fault("", f"column {index} has no name", "name every column"))
            elif name in seen:
                faults.append(Fault("", f"two columns are named '{name}'", "rename one of them"))
            seen.add(name)
            used = _is_supported(kind) and not _PANDAS_INDEX.fullmatch(name)
            (names if used else unsupported).append(name)
        if not names and not faults:
            faults = [Fault("", "expected columns of numbers or texts, found none", "add one")]
        if faults:
            raise InputError(faults)
        return names, unsupported

    def count_rows(self) -> int:
        """Return the number of rows. Of Arrow files, the first column of each batch is read."""
        with self._reader(arrow_columns=[0]) as reader:
            if self.is_parquet:
                return int(reader.metadata.num_rows)
            return sum(batch.num_rows for batch in _record_batches(reader))

    def row_group_counts(self) -> list[int]:
        """Return the number of rows of each row group of a Parquet file."""
        with self._reader() as reader:
            return [int(reader.metadata.row_group(i).num_rows) for i in range(reader.metadata.num_row_groups)]

    def row_group_metadata(self, row_group: int) -> Any:
        """Return what the footer of a Parquet file says of a row group, as pyarrow's `RowGroupMetaData`."""
        with self._reader() as reader:
            return reader.metadata.row_group(row_group)

    def batches(
        self, columns: list[str], rows: int = _BATCH_ROWS, row_groups: Sequence[int] | None = None
    ) -> Generator[Any]:
        """Yield record batches of pyarrow's with these columns, of some row groups of a Parquet file or of all.

        rows: of a batch, at most; fewer of many columns. InputError if the file is damaged.
        """
        rows = max(1, min(rows, _BATCH_CELLS // max(1, len(columns))))
        with self._reader([name for name in columns if _is_text_or_bytes(self.column_type(name))]) as reader:
            if self.is_parquet:
                for batch in reader.iter_batches(rows, row_groups, columns, use_threads=False):
                    batch.validate(full=True)
                    yield batch
                return
            for batch in _record_batches(reader):
                selected = batch.select(columns)
                selected.validate(full=True)
                for start in range(0, len(selected), rows):
                    yield selected.slice(start, rows)

    def blocks(self) -> Generator[Block]:
        at = 1
        with closing(self.batches(self.names)) as batches:
            for batch in batches:
                with self._translate_errors():
                    columns = {
                        name: to_texts(array, name) for name, array in zip(self.names, batch.columns, strict=True)
                    }
                if batch.num_rows:
                    yield Block(list(range(at, at + batch.num_rows)), columns)
                at += batch.num_rows

    def records(self) -> Generator[Record]:
        yield 0, self.names
        with closing(self.blocks()) as blocks:
            for block in blocks:
                rows = zip(*block.columns.values(), strict=True)
                for line, row in zip(block.lines, rows, strict=True):
                    yield line, ["" if cell is None else cell for cell in row]

    def named_records(self) -> Generator[Record]:
        return self.records()

    @property
    def is_parquet(self) -> bool:
        return self.name.lower().endswith(".parquet")

    @contextmanager
    def _reader(self, texts: Sequence[str] = (), arrow_columns: list[int] | None = None) -> Iterator[Any]:
        """Open the file. InputError if it is damaged.

        texts: columns of Parquet that are read as dictionaries. arrow_columns: those that are read of Arrow, or all.
        """
        try:
            from pyarrow import ipc, parquet  # noqa: PLC0415  # an extra
        except ImportError as error:
            problem = "reading this file requires pyarrow, which is not installed"
            raise InputError([Fault("", problem, install_command("arrow"))]) from error
        with self._translate_errors(), self._open() as file:
            if self.is_parquet:
                with parquet.ParquetFile(file, read_dictionary=texts) as reader:
                    yield reader
                return
            start = file.read(6)
            file.seek(0)
            options = ipc.IpcReadOptions(included_fields=arrow_columns)
            with (ipc.open_file if start == b"ARROW1" else ipc.open_stream)(file, options=options) as reader:
                yield reader

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise InputError in place of the errors of pyarrow's."""
        import pyarrow as pa  # noqa: PLC0415

        kind = "a readable Parquet file" if self.is_parquet else "a readable Arrow file"
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            message = (str(error).splitlines() or [type(error).__name__])[0]
            fix = "write the file again"
            if self.is_parquet and message.startswith("Not yet implemented"):  # such as deltas of texts
                fix += ", with dictionaries or plain values"
            raise InputError([Fault("", f"not {kind}: {message}", fix)]) from error


def _record_batches(reader: Any) -> Iterator[Any]:
    """Yield the batches of an Arrow file or stream."""
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def to_texts(array: Any, column: str) -> list[str | None]:
    """Return a column of pyarrow's as texts, None for null. Rows with the same value of a dictionary share a text.

    InputError that names the `column` if the rows repeat long texts of a dictionary too often.
    """
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_dictionary(array.type):
        values, codes = dictionary_parts(array, column)
        return list(map(values.__getitem__, codes))
    if pa.types.is_duration(array.type):
        array = to_seconds(array)
    texts: list[str | None] = array.cast(pa.string()).to_pylist()
    return texts


def to_seconds(array: Any) -> Any:
    """Return durations of pyarrow's as seconds in float64."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    return compute.divide(array.cast(pa.int64()).cast(pa.float64(), safe=False), float(units[array.type.unit]))


def dictionary_parts(array: Any, column: str) -> tuple[list[str | None], list[int]]:
    """Return the texts of a dictionary and None, and the index of each row's text. InputError as of `to_texts`."""
    import pyarrow as pa  # noqa: PLC0415

    values = [*to_texts(array.dictionary, column), None]
    codes: list[int] = array.indices.cast(pa.int64()).fill_null(len(values) - 1).to_pylist()
    lengths = [len(text or "") for text in values]
    repeated = sum(map(lengths.__getitem__, codes))
    if repeated > max(MIN_REPEATED_CHARACTERS, MAX_REPETITION * sum(lengths)):
        problem = f"expected short texts in a dictionary, found {len(codes)} rows with {repeated} characters"
        raise InputError([Fault(f"column {column}", problem, "shorten the texts, or leave out the column")])
    return values, codes


def _is_supported(kind: Any) -> bool:
    """Return True for types of pyarrow's that are numbers, strings, dates, times, durations, and dictionaries of them.

    Run-end encoded columns have 2^30 rows in 1 kB.
    """
    from pyarrow import types  # noqa: PLC0415

    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = [types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal]
    checks += [types.is_date, types.is_time, types.is_timestamp, types.is_duration]
    return _is_text(kind) or any(check(kind) for check in checks)


def _is_text(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    return any(check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view))


def _is_text_or_bytes(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    return _is_text(kind) or any(
        check(kind) for check in (types.is_binary, types.is_large_binary, types.is_binary_view)
    )
