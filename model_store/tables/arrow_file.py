"""Parquet and Arrow files: columns of pyarrow's as texts. pyarrow is installed by the extra `arrow`."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any

from model_store.errors import Fault, InputError
from model_store.tables.header import Header
from model_store.tables.table_file import Block, Record, TableFile
from model_store.utils.extras import install_command

_BATCH_ROWS = 65_536
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # the name of pandas' row index


class ArrowFile(TableFile):
    """A Parquet file, or Arrow's own format (IPC, Feather), which may be a stream."""

    row_unit = "row"

    @property
    def header(self) -> Header:
        return Header(self._fields[0], [], len(self._fields[0]))

    @property
    def unsupported(self) -> list[str]:
        return self._fields[1]

    @cached_property
    def _fields(self) -> tuple[list[str], list[str]]:
        """The names of columns of numbers and texts, and of the others."""
        with self._reader() as reader:
            schema = reader.schema_arrow if self._is_parquet else reader.schema
        names: list[str] = []
        unsupported: list[str] = []
        faults, seen = [], set[str]()
        for index, (name, kind) in enumerate(zip(schema.names, schema.types, strict=True), 1):
            if not name:
                faults.append(Fault("", f"column {index} has no name", "name every column"))
            elif name in seen:
                faults.append(Fault("", f"two columns are named '{name}'", "rename one of them"))
            seen.add(name)
            ignored = _is_unsupported(kind) or _PANDAS_INDEX.fullmatch(name)
            (unsupported if ignored else names).append(name)
        if faults:
            raise InputError(faults)
        return names, unsupported

    def count_rows(self) -> int | None:
        """Return the number of rows, None if only reading them tells."""
        with self._reader() as reader:
            if self._is_parquet:
                return int(reader.metadata.num_rows)
            if not hasattr(reader, "num_record_batches"):
                return None
            return int(sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches)))

    def batches(self, columns: list[str], rows: int = _BATCH_ROWS) -> Generator[Any]:
        """Yield record batches of pyarrow's with these columns. InputError if the file is damaged."""
        with self._reader() as reader:
            if self._is_parquet:
                yield from reader.iter_batches(rows, columns=columns, use_threads=False)
                return
            if hasattr(reader, "num_record_batches"):
                found = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                found = iter(reader)
            for batch in found:
                selected = batch.select(columns)
                for start in range(0, len(selected), rows):
                    yield selected.slice(start, rows)

    def blocks(self) -> Generator[Block]:
        at = 1
        with closing(self.batches(self.names)) as batches:
            for batch in batches:
                columns = {name: to_texts(array) for name, array in zip(self.names, batch.columns, strict=True)}
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
    def _is_parquet(self) -> bool:
        return self.name.lower().endswith(".parquet")

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        """Open the file. InputError in place of the errors of pyarrow's."""
        try:
            import pyarrow as pa  # noqa: PLC0415  # an extra
            from pyarrow import ipc, parquet  # noqa: PLC0415
        except ImportError as error:
            problem = "reading this file requires pyarrow, which is not installed"
            raise InputError([Fault("", problem, install_command("arrow"))]) from error
        kind = "a readable Parquet file" if self._is_parquet else "a readable Arrow file"
        try:
            with self._open() as file:
                if self._is_parquet:
                    with parquet.ParquetFile(file) as reader:
                        yield reader
                    return
                start = file.read(6)
                file.seek(0)
                with (ipc.open_file if start == b"ARROW1" else ipc.open_stream)(file) as reader:
                    yield reader
        except (pa.ArrowException, OSError) as error:
            message = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError([Fault("", f"not {kind}: {message}", "write the file again")]) from error


def to_texts(array: Any) -> list[str | None]:
    """Return a column of pyarrow's as texts, None for null and NaN."""
    import pyarrow as pa  # noqa: PLC0415

    texts: list[str | None] = array.cast(pa.string()).to_pylist()
    return texts


def _is_unsupported(kind: Any) -> bool:
    """Return True for types of pyarrow's that are neither numbers nor strings. A duration would need a unit."""
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in (*checks, pa.types.is_binary_view, pa.types.is_duration))
