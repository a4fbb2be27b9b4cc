"""The memory that columns of a Parquet file take, decided before they are decoded.

A file of 1 kB can hold one value of 1 MB that 10,000 rows refer to, or 10,000 values that are alike. So texts and bytes
are read as dictionaries and written as plain values a few megabytes at a time; a batch has fewer rows where they are
wide; and columns whose size the footer does not bound are not kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import compute

from model_store.errors import Fault, InputError
from model_store.nn import Array
from model_store.tables.arrow_file import MAX_REPETITION, MIN_REPEATED_CHARACTERS, ArrowFile

_BATCH_BYTES = 32 << 20  # of the columns of a batch, on average
_CODE_BYTES = 4  # of a value in a dictionary, and at least of any value
_MAX_NUMBER_BYTES = 32  # of a decimal number
_MIN_CHECKED_BYTES = 64 << 20  # of the columns of a row group, from which they are compared with its file


class _Leaf(NamedTuple):
    """A column of a Parquet file: one of the table, or a part of a nested one. `width` in bytes is None for texts."""

    column: str
    width: int | None
    nested: bool


def check_kept_types(table: ArrowFile, names: Sequence[str]) -> None:
    """Raise InputError if the size of columns to be kept has no bound: texts and bytes in lists, maps and structs."""
    unbounded = {leaf.column for leaf in _leaves(table) if leaf.nested and leaf.width is None}
    problem = "texts or bytes within lists, maps, structs or extension types cannot be kept: their size has no bound"
    faults = [
        Fault(f"column {name}", f"{problem}; found {table.column_type(name)}", "name the columns to keep in --keep")
        for name in names
        if name in unbounded
    ]
    if faults:
        raise InputError(faults)


def rows_of_batch(table: ArrowFile, names: Sequence[str], row_group: int, most: int) -> int:
    """Return how many rows of a row group are decoded at once, at most `most`.

    InputError if columns could take far more memory than they have bytes in the file.
    """
    metadata = table.row_group_metadata(row_group)
    leaves = list(_leaves(table))
    if len(leaves) != metadata.num_columns:
        raise InputError([Fault("", f"expected {len(leaves)} columns, found {metadata.num_columns}", "write it again")])
    size, wanted = 0, set(names)
    decoded, compressed = Counter[str](), 0  # of columns that may take more memory than one batch of them
    for i, leaf in enumerate(leaves):
        if leaf.column not in wanted:
            continue
        chunk = metadata.column(i)
        values = chunk.num_values * max(_CODE_BYTES, leaf.width or 0)
        if leaf.width is None:  # pyarrow keeps what is not in a dictionary until the end of the row group
            decoded[leaf.column] += chunk.total_uncompressed_size
            compressed += chunk.total_compressed_size
            values += chunk.total_uncompressed_size
        elif leaf.nested or leaf.width > _MAX_NUMBER_BYTES:
            decoded[leaf.column] += values
            compressed += chunk.total_compressed_size
        size += values
    if (total := decoded.total()) > max(_MIN_CHECKED_BYTES, MAX_REPETITION * compressed):
        ((column, _),) = decoded.most_common(1)
        problem = f"expected values that differ, found {total} bytes of values in {compressed} bytes of the file"
        raise InputError([Fault(f"column {column}", problem, "leave it out of --keep, or write smaller row groups")])
    return int(max(1, min(most, _BATCH_BYTES * metadata.num_rows // max(1, size))))


def _leaves(table: ArrowFile) -> Iterator[_Leaf]:
    """Yield the columns that the file has for those of the table, in its order."""
    for name in table.all_names:
        kind = table.column_type(name)
        for leaf in _leaf_types(kind):
            yield _Leaf(name, _width(leaf), leaf is not kind or isinstance(kind, pa.BaseExtensionType))


def _leaf_types(kind: Any) -> Iterator[Any]:
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if storage.num_fields and not pa.types.is_dictionary(storage):
        for i in range(storage.num_fields):
            yield from _leaf_types(storage.field(i).type)
    else:
        yield kind


def _width(kind: Any) -> int | None:
    """Return the bytes of a value, None if they differ."""
    if pa.types.is_dictionary(kind):
        return None
    try:
        return int(kind.bit_width + 7) // 8
    except ValueError:
        return 0 if pa.types.is_null(kind) else None


def plain_tables(table: Any) -> Iterator[Any]:
    """Yield a table's rows without dictionaries, some megabytes at a time, in their order; at least one table.

    InputError that names the column if rows repeat long values of a dictionary too often.
    """
    sizes = np.zeros(table.num_rows, np.int64)
    for name, column in zip(table.column_names, table.columns, strict=True):
        for array in column.chunks if pa.types.is_dictionary(column.type) else ():
            sizes += _value_sizes(array, name)
    start, ends = 0, np.cumsum(sizes)
    while start < table.num_rows or not start:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BATCH_BYTES, "right")))
        yield _without_dictionaries(table.slice(start, stop - start))
        start = stop


def _value_sizes(array: Any, name: str) -> Array:
    """Return the bytes of each row's value in a dictionary of texts or bytes; 0 for null."""
    lengths = np.zeros(len(array.dictionary) + 1, np.int64)
    lengths[:-1] = compute.binary_length(array.dictionary).fill_null(0).to_numpy(zero_copy_only=False)
    sizes: Array = lengths[array.indices.fill_null(len(lengths) - 1).to_numpy(zero_copy_only=False)]
    if (repeated := int(sizes.sum())) > max(MIN_REPEATED_CHARACTERS, MAX_REPETITION * int(lengths.sum())):
        problem = f"expected short values in a dictionary, found {len(array)} rows with {repeated} bytes"
        raise InputError([Fault(f"column {name}", problem, "shorten the values, or leave out the column")])
    return sizes


def _without_dictionaries(table: Any) -> Any:
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def shared_texts(texts: list[str]) -> Any:
    """Return texts as a dictionary of pyarrow's, with each distinct one once."""
    codes: dict[str, int] = {}
    indices = pa.array([codes.setdefault(text, len(codes)) for text in texts], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(codes), pa.string()))
