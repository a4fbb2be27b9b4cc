"""JSON lines: one object per line, its keys the columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cached_property
from itertools import islice
from typing import Any

from model_store.errors import Fault, InputError
from model_store.tables import text_file
from model_store.tables.table_file import Record, TableFile
from model_store.utils.values import describe_value

_FIRST_ROWS = 10_000  # that have every column
_MAX_DEPTH = 8  # of objects whose values are columns
MAX_NAME_CHARACTERS = 1000  # of a value in an object: 99 kB with one long key that holds 5,000 made names of 225 MB
_SHOWN_CHARACTERS = 40  # of a longer name
MAX_SPARSITY, MIN_SPARSE_CELLS = 100, 1 << 22  # cells of the table for each value in the file, and in any file


class JsonLinesFile(TableFile):
    """Objects of numbers, strings, booleans and null. A number is read as it is written; a key that lacks is missing.

    The values of an object in a row are columns such as `user.age`. The first rows decide what the columns are. Columns
    of lists are ignored.
    """

    @cached_property
    def _columns(self) -> tuple[list[str], list[str], set[str]]:
        """The names of the columns, in order of appearance, those of lists in the first rows, and of objects there."""
        names: dict[str, bool] = {}
        parents: set[str] = set()
        try:
            with closing(self._objects()) as objects:
                for number, row in islice(objects, _FIRST_ROWS):
                    parents.update(_object_names(row, number))
                    for name, value in _flatten(row, number).items():
                        names[name] = names.get(name, False) or isinstance(value, (list, dict))
        except InputError:
            if not names:
                raise
            # `records` raises it, after the rows before it
        parents &= names.keys()  # an object in some rows, null in others
        flat = [name for name, nested in names.items() if not (nested or name in parents)]
        return flat, [name for name in names if names[name]], parents

    @property
    def unsupported(self) -> list[str]:
        return self._columns[1]

    def records(self) -> Generator[Record]:
        names, nested, parents = self._columns
        known = {*names, *nested, *parents}
        if not known:
            return
        yield 1, names
        values = cells = 0
        with closing(self._objects()) as objects:
            for line, found in objects:
                row = _flatten(found, line)
                values, cells = values + len(row) + 1, cells + len(names)
                if cells > max(MIN_SPARSE_CELLS, MAX_SPARSITY * values):
                    problem = f"expected rows with most of the {len(names)} columns, found few values in each"
                    raise InputError([Fault(f"line {line}", problem, "leave out columns that few rows have")])
                yield line, _cells(line, row, names, known)

    def _objects(self) -> Generator[tuple[int, dict[str, Any]]]:
        head, _ = text_file.read_head(self._open)
        encoding = text_file.choose_encoding(head[:4], self.options.encoding)
        number = 0
        with text_file.translate_read_errors(), text_file.open_text(self._open, encoding) as text:
            try:
                for number, line in enumerate(text_file.read_lines(text), 1):
                    if line := line.strip("\ufeff \t\r\n"):
                        yield number, _parse_object(line, number)
            except UnicodeDecodeError as error:
                raise text_file.encoding_error(error, number, encoding) from error


_JSON_BOOLEANS: dict[Any, str] = {True: "true", False: "false"}


def _parse_object(line: str, number: int) -> dict[str, Any]:
    """Return the object of a line, its numbers as they are written. InputError if it is none."""
    try:
        found = json.loads(line, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        fix = 'write one object per line: {"column": 1}'
        raise InputError([Fault(f"line {number}", f"not JSON: {error}", fix)]) from error
    if not isinstance(found, dict):
        problem = f"expected an object, found {'a list' if isinstance(found, list) else describe_value(found)}"
        raise InputError([Fault(f"line {number}", problem, 'write one object per line: {"column": 1}')])
    return found


def _flatten(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a row with the values of its objects by dotted names. InputError if two have the same name."""
    if not any(isinstance(value, dict) for value in row.values()):
        return row
    pairs = list(_leaves(row, number))
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InputError([Fault(f"line {number}", f"two values are named {twice!r}", "rename one of them")])
    return found


def _object_names(row: dict[str, Any], number: int, prefix: str = "", depth: int = 0) -> Iterator[str]:
    for key, value in row.items():
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            name = _join(prefix, key, number)
            yield name
            yield from _object_names(value, number, f"{name}.", depth + 1)


def _leaves(row: dict[str, Any], number: int, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = _join(prefix, key, number)
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            yield from _leaves(value, number, f"{name}.", depth + 1)
        else:
            yield name, value


def _join(prefix: str, key: str, number: int) -> str:
    """Return the name of a value in an object. InputError if it is too long: each value of the object repeats it."""
    if prefix and len(prefix) + len(key) > MAX_NAME_CHARACTERS:
        name = f"{prefix[:_SHOWN_CHARACTERS]}{key}"[:_SHOWN_CHARACTERS]
        problem = (
            f"expected names of at most {MAX_NAME_CHARACTERS} characters of the values in objects, "
            f"found one of {len(prefix) + len(key)} that begins with {name!r}"
        )
        raise InputError([Fault(f"line {number}", problem, "shorten the keys")])
    return f"{prefix}{key}"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} is written twice")
    return found


def _cells(line: int, row: dict[str, Any], names: list[str], known: set[str]) -> list[str]:
    """Return the cells of an object. InputError with its unknown keys, and its lists and objects."""
    faults = [
        Fault(
            f"line {line}, column {name}",
            f"none of the first {_FIRST_ROWS} rows has this column",
            "add it to the first row, with null",
        )
        for name in row
        if name not in known
    ]
    cells = []
    for name in names:
        value = row.get(name)
        if isinstance(value, (list, dict)):
            kind = "a list" if isinstance(value, list) else "an object"
            problem = f"expected a number, a string, a boolean or null, found {kind}"
            faults.append(Fault(f"line {line}, column {name}", problem, "write one column for each value"))
            continue
        cells.append("" if value is None else _JSON_BOOLEANS.get(value, value))
    if faults:
        raise InputError(faults)
    return cells
