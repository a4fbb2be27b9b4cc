"""The protocol of a column kind: what training, the store and the service ask a column.

Each kind is one class in a module of its own, listed in `columns.KINDS`. A column handles all rows at once. It adds
faults to a `FaultCollector` and continues, so that one response reports every fault of a batch.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from marshmallow import fields

from model_store.errors import Fault, InputError
from model_store.nn import Array
from model_store.utils.values import integral_floats_to_ints, parse_texts

MISSING_CELLS = frozenset({"", "na", "n/a", "nan", "null", "?"})


def parse_text_cell(text: str) -> str | None:
    """Return a text without spaces around it, None if it means a missing value.

    Training reads all cells with it, and every protocol of the service all categories: equal texts are equal features.
    """
    text = text.strip()
    return None if len(text) < 5 and text.lower() in MISSING_CELLS else text


_Fix = str | Callable[[], str]


class FaultCollector:
    """Counts faults, and keeps those of the first rows, up to `InputError.MAX_FAULTS`.

    It ends the validation at `InputError.MAX_COUNTED`: to count more costs more than it tells. A fix that is costly to
    find is given as a function, and called for the first `MAX_HINTS` faults only. `replaced`, if not None, collects the
    missing values that were filled in and the unknown categories, however many.
    """

    MAX_HINTS = 10

    # Defaults of the class: every request makes a collector, and few add a fault.
    total = 0
    replaced: FaultCollector | None = None
    max_counted: float = InputError.MAX_COUNTED
    _end: float = math.inf  # faults of this row and later ones are only counted
    _known_texts: dict[Hashable, dict[Any, Any]] | None = None

    def __init__(self) -> None:
        self._kept: list[tuple[int, str, str, _Fix]] = []

    def known_texts(self, key: Hashable) -> dict[Any, Any]:
        """Return the texts of the request that were parsed so far, and their values, for columns with this key.

        Columns that parse texts equally share them: one row may repeat a date in a thousand columns.
        """
        if self._known_texts is None:
            self._known_texts = {}
        return self._known_texts.setdefault(key, {})

    def add(self, location: str, problem: str, fix: _Fix) -> None:
        """Add a fault. InputError with all faults so far if there are too many to go on."""
        self.total += 1
        row = _row(location)
        if row < self._end:
            self._kept.append((row, location, problem, fix))
            if len(self._kept) >= 2 * InputError.MAX_FAULTS:
                self._drop_later_rows()
        if self.total >= self.max_counted:
            self.raise_if_any()

    def add_rows(
        self, rows: Sequence[int], locations: RowLocations, column: str, describe: Callable[[int], tuple[str, _Fix]]
    ) -> None:
        """Add a fault of `column`, "" for the whole row, for each of these rows, ascending.

        `describe` returns problem and fix of a row.

        A row after the first faults is only counted: formatting a million of them took 5 s.
        """
        for k, i in enumerate(rows):
            if k == InputError.MAX_FAULTS or locations.rows[i] >= self._end:
                self.total += len(rows) - k
                break
            self.add(f"{locations[i]}.{column}" if column else locations[i], *describe(i))
        if self.total >= self.max_counted:
            self.raise_if_any()

    @property
    def faults(self) -> list[Fault]:
        """The faults of the first rows, sorted by row."""
        self._drop_later_rows()
        found, hints = [], 0
        for _, location, problem, fix in self._kept:
            hints += not isinstance(fix, str)
            if isinstance(fix, str):
                text = fix
            else:
                text = fix() if hints <= self.MAX_HINTS else "see the fixes of the first errors"
            found.append(Fault(location, problem, text))
        return found

    def raise_if_any(self) -> None:
        """Raise InputError if there are faults, sorted by row."""
        if self.total:
            raise InputError(self.faults, self.total)

    def _drop_later_rows(self) -> None:
        self._kept.sort(key=itemgetter(0))
        del self._kept[InputError.MAX_FAULTS :]
        if len(self._kept) == InputError.MAX_FAULTS:
            self._end = self._kept[-1][0]


class ReplacedValues(FaultCollector):
    """Counts missing values that were filled in and unknown categories, however many."""

    max_counted = math.inf


_ROW_NUMBER = re.compile(r"(?:^|\.)([0-9]{1,18})(?=\.|$)")


def _row(location: str) -> int:
    """Return the row number in a location such as `instances.7.island`, -1 if there is none."""
    found = _ROW_NUMBER.search(location)
    return -1 if found is None else int(found[1])


class RowLocations(Sequence[str]):
    """The locations of rows, such as `instances.7`; each is formatted only when it is read."""

    def __init__(self, prefix: str, rows: Sequence[int]) -> None:
        self.prefix, self.rows = prefix, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return f"{self.prefix}.{self.rows[i]}"

    def part(self, rows: slice) -> RowLocations:
        return RowLocations(self.prefix, self.rows[rows])


def replacement_warnings(replaced: FaultCollector, location: str) -> list[Fault]:
    """Return a warning for each replaced value, the first ones and the number of others if they are many."""
    warnings = replaced.faults
    if replaced.total > len(warnings):
        problem = f"{replaced.total - len(warnings)} more values were missing or unknown"
        warnings.append(Fault(location, problem, _FILL_FIX))
    return warnings


_FILL_FIX = "the prediction is less certain; send the value if you know it"


class Bins(NamedTuple):
    """Bins for the drift of a column: the training rows in each, and how features are assigned to them.

    Features are assigned by `edges`, upper edges of scaled numbers, or by `feature_bins`, the bin of each feature.
    """

    expected: Array
    edges: Array | None
    feature_bins: Array | None


class FormField(NamedTuple):
    """How a page shows a column: its values as chips or text with a note, and the widget of its field in a form.

    The widget is "select" with `options`, "number", "text", "drawing", or "json" for a value without a field.
    """

    widget: str
    text: str = ""
    note: str = ""
    chips: Sequence[str] = ()
    options: Sequence[str] = ()
    fill: str = ""


class Column(ABC):
    """One input column of a model. A kind implements the abstract methods, and overrides defaults where it differs."""

    name: str
    statistics: Mapping[str, Any]  # of the training rows; untrusted in an artifact
    kind: str
    fill: Any = None  # replaces a missing value; if None, the column is required and a missing value is rejected
    shape: tuple[int, ...] = ()  # of one value
    offset: float = 0.0  # a scaled feature is `(value - offset) / scale`
    scale: float = 1.0
    linear_width: float | None = None  # if given, the feature is `(asinh(value / linear_width) - offset) / scale`
    format: Any = None  # how texts spell the values, if they are more than plain ones
    is_whole_row: ClassVar[bool] = False  # True: a value is a row by itself, and the column the only input
    in_number_table: ClassVar[bool] = False  # True: parsed values are finite numbers, one scaled feature each
    newer_attributes: ClassVar[tuple[str, ...]] = ()  # not in the JSON of a column that has their default
    tensor_datatype: ClassVar[str]  # of the Open Inference Protocol

    # Encoding ---------------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of features."""

    @abstractmethod
    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted values as an array of what `encode` takes."""

    @abstractmethod
    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, width)."""

    missing_value: ClassVar[float | None] = math.nan  # as `parse` returns it

    def to_feature(self, values: Array) -> Array:
        """Return numbers as a scaled feature, in float64; infinite if one overflows."""
        feature: Array = (values - self.offset) / self.scale
        return feature

    def from_feature(self, feature: float) -> float:
        """Return the number that `to_feature` scales to a feature, up to rounding."""
        return feature * self.scale + self.offset

    def missing_values(self, count: int) -> Array:
        """Return so many missing values as `parse` does."""
        return np.full(count, self.missing_value)

    def count_missing(self, values: Array) -> int:
        """Return how many of the parsed values are missing."""
        return sum(value is None for value in values) if self.missing_value is None else int(np.isnan(values).sum())

    def parse_cell(self, text: str) -> Any:
        """Return the value of a cell of a CSV file. Invalid text stays text, and `parse` rejects it."""
        value = parse_text_cell(text)
        return None if value is None else self._parse_text(value)

    @cached_property
    def cell_key(self) -> Hashable:
        """Equal for columns whose `parse_cell` returns the same for each text."""
        return self.kind, repr(self.format)

    @property
    def takes_files(self) -> bool:
        """Return True if a value may be the bytes of a file, which a tensor of BYTES has as they are."""
        return False

    def parse_characters(self, text: str) -> int:
        """Return as how many characters of text it counts to parse this one, once for all columns of a `cell_key`."""
        del text
        return 0

    def _parse_cells(self, cells: Sequence[Any], faults: FaultCollector) -> list[Any]:
        """Return the values of the cells of a tensor, which are read as those of a CSV file; None is missing."""
        texts = [cell if cell is None or type(cell) is str else str(cell) for cell in cells]
        known = faults.known_texts(("cell", self.cell_key))
        parse_texts(self.parse_cell, (text for text in texts if text is not None), known)
        return [None if text is None else known[text] for text in texts]

    def _parse_text(self, text: str) -> Any:
        return text

    def missing_text_fix(self, value: Any) -> str:
        """Return the fix of a text that means a missing value, "" if it means none or null is not accepted either."""
        is_missing = self.fill is not None and isinstance(value, str) and parse_text_cell(value) is None
        return "send null for a missing value" if is_missing else ""

    def shown_fill(self) -> Any:
        """Return `fill` as JSON and messages show it."""
        return integral_floats_to_ints([self.fill])[0]

    def describe_missing(self, format_value: Callable[[Any], str]) -> str:
        """Return what happens to a missing value, for a table."""
        if self.fill is None:
            return "rejected"
        return f"filled with {format_value(self.shown_fill()) or 'an empty text'}"

    def to_json(self, values: Array) -> list[Any]:
        """Return parsed values as a client sends them."""
        return [None if isinstance(value, float) and math.isnan(value) else value for value in values.tolist()]

    def note_filled(self, rows: Sequence[int], locations: RowLocations, faults: FaultCollector) -> None:
        """Report that missing values of these rows were replaced by `fill`."""
        if faults.replaced is not None:
            problem = f"the value is missing; {self.shown_fill()!r} was used"
            faults.replaced.add_rows(rows, locations, self.name, lambda _: (problem, _FILL_FIX))

    # The signature as JSON --------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def json_fields(cls) -> dict[str, fields.Field[Any]]:
        """Return a field of marshmallow for each attribute but `kind`, `name` and `statistics`."""

    def find_problem(self) -> str | None:
        """Return what is wrong in a column whose attributes are valid one by one, as "attribute: problem"."""
        return None

    # Descriptions -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def value_schemas(self) -> list[dict[str, Any]]:
        """Return the JSON Schema of each form of a value, for the OpenAPI document."""

    def public_details(self) -> dict[str, Any]:
        """Return the column as `GET /models/NAME` shows it."""
        details = {"name": self.name, "kind": self.kind, "required": self.fill is None}
        if self.fill is not None:
            details["fill"] = self.shown_fill()
        return details

    @abstractmethod
    def form_field(self) -> FormField:
        """Return how the reference page describes the values and asks for one."""

    @classmethod
    @abstractmethod
    def from_public_details(cls, details: Mapping[str, Any]) -> Self:
        """Return a column with what is needed to read a file, from `public_details`."""

    @abstractmethod
    def describe(self, format_value: Callable[[Any], str]) -> str:
        """Return the values of a column for a table."""

    @abstractmethod
    def describe_statistics(self, statistics: Mapping[str, Any], shorten: Callable[[str], str]) -> str:
        """Return validated statistics for a report, with names of any length shortened."""

    def describe_acceptance(self, other: Column | None) -> list[str]:
        """Return what values a column accepts. It equals that of `other` where clients see no difference."""
        del other
        return []

    @abstractmethod
    def summarize(self, format_number: Callable[[float], str]) -> str:
        """Return the training values for the plan of a job."""

    @property
    @abstractmethod
    def is_constant(self) -> bool:
        """Whether all training rows have the same value."""

    def training_range(self) -> dict[str, float]:
        """Return the minimum, mean and maximum in training, as far as they are recorded as numbers."""
        recorded: dict[str, Any] = {key: self.statistics.get(key) for key in ("min", "mean", "max")}
        return {key: value for key, value in recorded.items() if type(value) in (int, float) and abs(value) < 1e300}

    # Serving ----------------------------------------------------------------------------------------------------------

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of the column's tensor; -1 is the number of rows."""
        return (-1, 1)

    def tensor_shapes(self, count: int) -> list[tuple[int, ...]]:
        """Return the shapes that a tensor of so many rows may have."""
        return [(count,), (count, 1)]

    @abstractmethod
    def from_tensor(self, tensor: Array, datatype: str, location: str, faults: FaultCollector) -> Array | None:
        """Return a tensor of an allowed shape as `parse` does; add a fault and return None if it is invalid."""

    @abstractmethod
    def typical_value(self) -> Any:
        """Return a value for examples."""

    @abstractmethod
    def draw_values(self, count: int, rng: np.random.Generator) -> list[Any]:
        """Return made-up values for synthetic rows, from nothing but the statistics; the first one is typical."""

    @abstractmethod
    def repairs(self, value: Any) -> Iterable[Any]:
        """Return values that may be meant by an invalid one, and the value itself first."""

    def bins(self, dtype: Any) -> Bins | None:
        """Return the bins of features of `dtype` for drift; None without valid statistics."""
        del dtype
        return None

    def range_limits(self) -> tuple[float, float]:
        """Return the lowest and highest feature of the training rows, infinite if unknown.

        They are those of the first feature, and of each feature of an array.
        """
        return -math.inf, math.inf

    def range_problem(self, feature: float) -> str:
        """Return the warning of a feature outside `range_limits`."""
        raise NotImplementedError(f"{self.kind} columns have no range: {feature}")


def missing_count(statistics: Mapping[str, Any]) -> float:
    """Return the number of missing values in training."""
    return max(0, *finite_numbers([statistics.get("missing")]), 0)


def finite_numbers(found: Any) -> list[float]:
    """Return the list if it is one of finite numbers, else an empty list."""
    if not isinstance(found, list) or not all(type(value) in (int, float) and abs(value) < 1e300 for value in found):
        return []
    return found
