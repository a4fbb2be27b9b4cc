"""The plan of a batch job: the model, the options, the input files, and how they are divided into parts.

A part is a row group of a Parquet file, a range of bytes of a large text file, or another file as a whole. Its number
follows from the inputs alone, so every process finds the same parts, and the name of a part's output tells which rows
are in it. The plan is an object of the output folder: see job.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from model_store.errors import ConflictError, Fault, InputError, StoreError
from model_store.schema.row_parser import Header
from model_store.storage.base import translate_os_errors
from model_store.storage.input_files import InputFile
from model_store.tables.arrow_file import ArrowFile
from model_store.tables.formats import is_table, open_table
from model_store.tables.options import TableOptions
from model_store.tables.table_file import DelimitedFile, TableFile
from model_store.tables.text_file import Open, is_compressed_text
from model_store.utils.values import describe_value

FORMAT = 1
RANGE_BYTES = 64 << 20  # of a part of a text file
MAX_PARTS = 999_999
_THREADS = 16  # that read the footers of files
_SPLITTABLE_ENCODINGS = ("utf-8", "utf-8-sig", "ascii", "latin-1", "iso-8859-1", "iso8859-1", "cp1252")
_SAMPLE_ROWS = 1000
T = TypeVar("T")


@dataclass(frozen=True)
class ScoredModel:
    """The version of a model that predicts."""

    name: str
    version: int
    digest: str


@dataclass(frozen=True)
class BatchOptions:
    """How the inputs are read, and which of their columns are written before the predictions; None for all."""

    keep: tuple[str, ...] | None = ()
    header: Header | None = None
    table: TableOptions = field(default_factory=TableOptions)
    whole_files: bool = False
    range_bytes: int = field(default_factory=lambda: RANGE_BYTES)


@dataclass(frozen=True)
class Part:
    """Rows of a file: those of a row group, of a range of bytes, or all. `first_row` precede it in the file."""

    number: int
    file: InputFile
    row_group: int | None = None
    first_row: int = 0
    span: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """The name of the part's output."""
        return f"part-{self.number:06}.parquet"

    @property
    def location(self) -> str:
        """The file, and where in it the part is."""
        if self.row_group is not None:
            return f"{self.file.location} row group {self.row_group}"
        if self.span is not None:
            return f"{self.file.location} bytes {self.span[0]} to {self.span[1]}"
        return self.file.location


@dataclass(frozen=True)
class PlannedFile:
    """A file with the number of rows of each row group, or the ends of its ranges of bytes, or neither."""

    file: InputFile
    row_groups: tuple[int, ...] | None = None
    range_ends: tuple[int, ...] | None = None

    @property
    def parts(self) -> int:
        return len(self.row_groups if self.row_groups is not None else self.range_ends or (0,))


@dataclass(frozen=True)
class Plan:
    """A batch job, complete: two processes with equal plans write equal bytes under equal names."""

    model: ScoredModel
    options: BatchOptions
    files: tuple[PlannedFile, ...]

    @cached_property
    def part_count(self) -> int:
        return sum(planned.parts for planned in self.files)

    def parts(self) -> Iterator[Part]:
        """Yield the parts by number, in the order of the rows."""
        number = 0
        for planned in self.files:
            first_row = 0
            for i in range(planned.parts):
                if planned.row_groups is not None:
                    yield Part(number, planned.file, i, first_row)
                    first_row += planned.row_groups[i]
                elif planned.range_ends is not None:
                    start = planned.range_ends[i - 1] if i else 0
                    yield Part(number, planned.file, span=(start, planned.range_ends[i]))
                else:
                    yield Part(number, planned.file)
                number += 1

    def to_json(self) -> bytes:
        """Return the plan as JSON, one file a line."""
        head = {"format": FORMAT, "model": asdict(self.model), "options": asdict(self.options)}
        files = ",\n".join(json.dumps(_file_to_json(planned), ensure_ascii=False) for planned in self.files)
        return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "files": [\n{files}\n]}}\n'.encode()

    @classmethod
    def from_json(cls, data: bytes, location: str) -> Plan:
        """Return the plan in an output folder. StoreError if it is none that this version wrote."""
        try:
            plain = json.loads(data)
            if plain["format"] != FORMAT:
                raise ValueError(f"format {plain['format']}")
            options = dict(plain["options"])
            keep = None if options["keep"] is None else tuple(options["keep"])
            options |= {"keep": keep, "table": _checked(TableOptions(**options["table"]))}
            files = tuple(map(_file_from_json, plain["files"]))
            return cls(_checked(ScoredModel(**plain["model"])), _checked(BatchOptions(**options)), files)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as e:
            problem = f"expected the plan of a batch job, format {FORMAT}; found {type(e).__name__}: {e}"
            raise StoreError(f"{location}: {problem[:300]}; choose another output folder") from e

    def check_equal(self, found: Plan, location: str) -> None:
        """Raise ConflictError if the plan found in an output folder is another job than this one."""
        fix = "choose another folder for --output"
        if found.model != self.model:
            one = f"{found.model.name}/{found.model.version} (digest {found.model.digest[:12]})"
            other = f"{self.model.name}/{self.model.version} (digest {self.model.digest[:12]})"
            fix = f"continue it with {found.model.name}/{found.model.version}, or {fix}"
            raise ConflictError(f"{location}: expected predictions of {other}, found those of {one}; {fix}")
        if found.options != self.options:
            found_options, own = _flat(asdict(found.options)), _flat(asdict(self.options))
            differing = next(name for name in own if found_options[name] != own[name])
            problem = f"expected {differing} = {own[differing]!r}, found {found_options[differing]!r}"
            raise ConflictError(f"{location}: {problem}; use the same options, or {fix}")
        ours, theirs = ({planned.file.location: planned for planned in plan.files} for plan in (self, found))
        for name in ours.keys() & theirs.keys():
            if ours[name] != theirs[name]:
                raise ConflictError(f"{location}: {name} has changed since the job began; {fix}")
        if others := sorted(ours.keys() ^ theirs.keys()):
            what = "is new" if others[0] in ours else "is no longer among them"
            problem = f"expected the {len(theirs)} input files of the job, found {len(ours)}: {others[0]} {what}"
            raise ConflictError(f"{location}: {problem}; use the same inputs, or {fix}")


def make_plan(
    model: ScoredModel, files: Sequence[InputFile], options: BatchOptions, check: Callable[[TableFile], None]
) -> Plan:
    """Return the plan of a job: reads the footer of each Parquet file, and the beginning of large text files.

    `check` raises InputError for a table that the model cannot score: it gets those tables, and the first file's.
    InputError if a file is no table or its footer is damaged.
    """
    faults = [
        Fault(file.location, "expected a table such as .parquet or .csv", "leave the file out")
        for file in files
        if not is_table(file.name)
    ]
    if faults:
        raise InputError(faults)
    with ThreadPoolExecutor(_THREADS) as pool:
        planned = pool.map(lambda file: _plan_file(file, options, check, is_first=file is files[0]), files)
        plan = Plan(model, options, tuple(planned))
    if plan.part_count > MAX_PARTS:
        problem = f"expected at most {MAX_PARTS} parts, found {plan.part_count}"
        raise InputError([Fault("", problem, "score the files in several jobs, with an output folder each")])
    return plan


@lru_cache(maxsize=16)
def open_input_table(file: InputFile, options: BatchOptions) -> TableFile:
    """Return the table in an input file. What is detected at its beginning is kept for its other parts."""
    parquet = file.name.lower().endswith(".parquet")
    return open_table(
        file.name, lambda: file.open(0 if parquet else TEXT_BUFFER_BYTES), options.table, drop_row_names=False
    )


TEXT_BUFFER_BYTES = 8 << 20  # that a request to a bucket fetches at least


def _plan_file(
    file: InputFile, options: BatchOptions, check: Callable[[TableFile], None], *, is_first: bool
) -> PlannedFile:
    try:
        with translate_os_errors(file.location, "read the file", {}):
            table = open_input_table(file, options)
            is_parquet = isinstance(table, ArrowFile) and table.is_parquet
            is_large = file.size > options.range_bytes and not options.whole_files
            if is_parquet or is_large or is_first:
                check(table)
            if isinstance(table, ArrowFile) and is_parquet:
                return PlannedFile(file, row_groups=tuple(table.row_group_counts()))
            if is_large and isinstance(table, DelimitedFile) and _is_splittable(table, file.open):
                ends = (*range(options.range_bytes, file.size, options.range_bytes), file.size)
                return PlannedFile(file, range_ends=ends)
    except InputError as e:
        raise located(e, file.location) from e
    return PlannedFile(file)


def _is_splittable(table: DelimitedFile, open_file: Open) -> bool:
    """Return True if the beginning of a text file is not compressed, and its rows are lines that end with \\n."""
    if table.dialect.encoding.lower() not in _SPLITTABLE_ENCODINGS or is_compressed_text(open_file):
        return False
    with closing(table.records()) as records:
        cells = (cell for _, row in islice(records, _SAMPLE_ROWS) for cell in row)
        return not any("\n" in cell or "\r" in cell for cell in cells)


def located(error: InputError, location: str) -> InputError:
    """Return the error with the location before those of its faults."""
    faults = [Fault(f"{location} {f.location}".rstrip(), f.problem, f.fix) for f in error.faults]
    return InputError(faults, error.total)


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    return {**options.pop("table"), **options}


def _file_to_json(planned: PlannedFile) -> dict[str, Any]:
    plain: dict[str, Any] = asdict(planned.file)
    splits = {"row_groups": planned.row_groups, "range_ends": planned.range_ends}
    return plain | {name: value for name, value in splits.items() if value is not None}


def _file_from_json(plain: dict[str, Any]) -> PlannedFile:
    splits = {name: tuple(plain.pop(name)) for name in ("row_groups", "range_ends") if name in plain}
    return _checked(PlannedFile(_checked(InputFile(**plain)), **splits))


def _checked(found: T) -> T:
    """Return a dataclass that was made from JSON. TypeError if a value is not of its field's type."""
    for name, kind in get_type_hints(type(found)).items():
        value = getattr(found, name)
        if not any(_is_of_type(value, one) for one in _members(kind)):
            raise TypeError(f"{name} is of the wrong type, {describe_value(value)}")
    return found


def _is_of_type(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return type(value) is tuple and all(type(one) is get_args(kind)[0] for one in value)
    return type(value) is kind


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
