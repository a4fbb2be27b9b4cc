"""Type inference: the kinds of columns, the labels of a target and the task, from the cells of a table.

A column is numeric if every cell that is not missing is a finite number (`are_numbers`); otherwise it is a category.
`fitting.infer_kind` asks the kinds in their order.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.columns.date_text import DateFormat, infer_date_format
from model_store.schema.columns.number_text import (
    MAX_MISSING_WORDS,
    MAX_NUMBER_TEXT,
    NumberFormat,
    are_durations,
    infer_number_format,
    split_bounds,
)
from model_store.utils.values import describe_value, parse_finite_number, parse_number
from training.data.invalid_cells import FINITE_NUMBER, InvalidCells
from training.data.readers import Table
from training.errors import DataError

MAX_CATEGORIES = 1000  # one-hot features of one column
FEW_CATEGORIES = 20  # up to this many distinct values may be categories, regardless of the number of rows
_ALWAYS_ALLOWED_CLASSES = 3  # distinct integers that may be classes, regardless of the number of rows
_INTEGER = re.compile(r"([+-]?[0-9]{1,400})(\.0*)?")
_MAX_INTEGER_LABEL = 2**53  # many JSON readers have no larger integers
_DATE = re.compile(r"\d{4}([-/.])\d\d?\1\d\d?([T ].*)?|\d\d?([-/.])\d\d?\3\d{2,4}([T ].*)?")
_LEADING_ZERO = re.compile(r"0[0-9]+")
_IDENTIFIER_NAME = re.compile(
    r"(?i:(?:^|[_\W])(?:id|ids|uuid|guid|index|key|row_?(?:id|num|number|no|names?)))$|[a-z]I[Dd]s?$"
)
_GROUP_NAME = re.compile(r"(?i:(?:^|[_\W])(?:id|uuid|guid))$|[a-z]I[Dd]$")
_MIN_IDENTIFIED_ROWS = 20
_IDENTIFIER_SHARE = 0.95  # of the cells are distinct
_MIN_WORDS = 3  # of a text, on average
_MAX_WORD_SHARE, _MAX_WORD_SHARE_OF_DATES = 0.1, 0.5  # of the cells are words that mean a missing value
_MAX_BOUND_SHARE = 0.5  # of the cells are bounds or ranges: where all are, they are classes such as 25-34
_MIN_DATES_BESIDE_WORDS = 4
_MAX_ROUNDING_ERROR = 16 * float(np.finfo(np.float64).eps)  # of sums of up to about a hundred terms, relative
_FORMATTED_NUMBER = re.compile(r"[$€£¥]?\s*[+-]?\d[\d.,' ]*([%$€£¥]|[A-Za-z]{1,3})?")


def find_number_format(cells: Sequence[str | None]) -> NumberFormat | None:
    """Return how the cells spell numbers if all do, and not all are plain numbers, else None.

    Up to five words without digits, in at most a tenth of the cells among many distinct numbers, mean a missing value.
    Among as many numbers, at most half of the cells may be bounds and ranges, such as "<5", "65+" and "1-2".
    """
    counts = Counter(cell for cell in cells if cell is not None)
    if all(parse_number(text) is not None for text in counts):
        return None
    if (found := infer_number_format(counts)) is not None:
        return found
    if are_durations(counts):
        return NumberFormat(group=":")
    words = _missing_words(counts, _MAX_WORD_SHARE)
    texts = counts.keys() - set(words)
    bounds = {text: parts for text in texts if parse_number(text) is None and (parts := split_bounds(text))}
    if len(texts) - len(bounds) <= FEW_CATEGORIES or not (words or bounds):
        return None
    if sum(map(counts.__getitem__, bounds)) > _MAX_BOUND_SHARE * counts.total():
        return None
    numbers = (texts - bounds.keys()).union(*bounds.values())
    plain = all(parse_finite_number(text) is not None for text in numbers)
    found = NumberFormat() if plain else infer_number_format(numbers)
    return None if found is None else replace(found, missing=tuple(sorted(words)), bounds=bool(bounds))


def find_date_format(cells: Sequence[str | None]) -> DateFormat | None:
    """Return how the cells spell dates or times of day if all do, else None.

    Up to five words without digits, in at most half of the cells among several dates, mean a missing value.
    """
    counts = Counter(cell for cell in cells if cell is not None)
    if (found := infer_date_format(counts)) is not None:
        return found
    words = _missing_words(counts, _MAX_WORD_SHARE_OF_DATES)
    if not words or len(counts) - len(words) < _MIN_DATES_BESIDE_WORDS:
        return None
    found = infer_date_format(counts.keys() - set(words))
    return None if found is None else replace(found, missing=tuple(sorted(words)))


def _missing_words(counts: Counter[str], share: float) -> list[str]:
    """Return the texts without digits if they are few, and in at most this share of the cells, else nothing."""
    words = [text for text in counts if len(text) <= MAX_NUMBER_TEXT and not any(map(str.isdigit, text))]
    rare = sum(counts[word] for word in words) <= share * counts.total()
    return words if rare and len(words) <= MAX_MISSING_WORDS else []


def are_codes(cells: Sequence[str | None]) -> bool:
    """Return True if all cells are digits and some have leading zeros, such as 02134: they are no quantities."""
    present = {cell for cell in cells if cell is not None}
    return any(_LEADING_ZERO.fullmatch(cell) for cell in present) and all(
        cell.isascii() and cell.isdigit() for cell in present
    )


def is_constant_range(low: float, high: float) -> bool:
    """Return True if numbers from `low` to `high` are finite and equal up to a few units in the last place."""
    return math.isfinite(high - low) and high - low <= _MAX_ROUNDING_ERROR * max(abs(low), abs(high))


def is_identifier_name(name: str) -> bool:
    """Return True if a column has the name of an identifier, such as id, customer_id or customerId."""
    return _IDENTIFIER_NAME.search(name) is not None


def identifies_groups(name: str, cells: Sequence[str | None]) -> bool:
    """Return True if a column has the name of an identifier, and many values, each in several rows on average."""
    distinct = len(set(cells) - {None})
    return _GROUP_NAME.search(name) is not None and FEW_CATEGORIES < distinct <= len(cells) / 2


def identifier_reason(name: str, cells: Sequence[str | None]) -> str:
    """Return why a column identifies rows and tells nothing about other rows, "" if it does not seem to."""
    present = [cell for cell in cells if cell is not None]
    distinct = set(present)
    if len(present) < _MIN_IDENTIFIED_ROWS or len(distinct) < _IDENTIFIER_SHARE * len(present):
        return ""
    integers = [_parse_integer(cell) for cell in present]
    if None not in integers and not are_codes(present):
        numbers = {number for number in integers if number is not None}
        if len(numbers) < len(present):
            return ""
        if max(numbers) - min(numbers) + 1 == len(numbers) and min(numbers) in (0, 1):
            return "row numbers"
        return "identifiers" if is_identifier_name(name) else ""
    if looks_like_text(present) or (are_numbers(present) and not are_codes(present)):
        return ""
    if find_date_format(present) is not None or find_number_format(present) is not None:
        return ""
    return f"identifiers, {len(distinct)} distinct values in {len(present)} rows"


def looks_like_text(present: Sequence[str]) -> bool:
    """Return True for free text: distinct texts of several words."""
    distinct = set(present)
    words = sum(text.count(" ") + 1 for text in distinct)
    return len(distinct) > FEW_CATEGORIES and words >= _MIN_WORDS * len(distinct) and len(distinct) > len(present) / 2


def are_numbers(cells: Sequence[str | None]) -> bool:
    """Return True if all cells that are not missing are numbers.

    Infinite numbers, such as inf and 1e999, are numbers here too: `parse_numbers` reports them. They are no categories.
    """
    return all(
        cell is None or parse_finite_number(cell) is not None or parse_number(cell) is not None for cell in cells
    )


def looks_like_identifier(cells: Sequence[str | None]) -> bool:
    """Return True if the cells look like identifiers or free text, which are useless as categories."""
    present = [cell for cell in cells if cell is not None]
    distinct = len(set(present))
    return distinct > MAX_CATEGORIES or (distinct > FEW_CATEGORIES and distinct > len(present) / 2)


def parse_numbers(table: Table, column: str, written: NumberFormat | None = None) -> NDArray[np.float64]:
    """Return a column as (n,) numbers, NaN where a cell is missing. DataError counts the cells that are not numbers.

    `written` is how the cells spell numbers, None for plain numbers.
    """
    return _parse_cells(table, column, parse_finite_number if written is None else written.parse, FINITE_NUMBER)


def parse_dates(table: Table, column: str, written: DateFormat) -> NDArray[np.float64]:
    """Return a column as (n,) seconds since 1970, NaN where a cell is missing. DataError counts all other cells."""
    return _parse_cells(table, column, written.parse, f"{written.noun} such as {written.example}")


def _parse_cells(table: Table, column: str, parse: Callable[[str], float | None], expected: str) -> NDArray[np.float64]:
    values = np.full(len(table), np.nan)
    invalid = InvalidCells()
    for row, cell in enumerate(table.columns[column]):
        if cell is None:
            continue
        if (value := parse(cell)) is not None:
            values[row] = value
        else:
            invalid.add(cell, f"{table.row_unit} {table.lines[row]}")
    if invalid.count:
        raise DataError(table.name, [invalid.fault(column, expected)])
    return values


def parse_categories(table: Table, column: str, *, declared: bool) -> NDArray[np.object_]:
    """Return a column as (n,) strings, None where a cell is missing. DataError if it has too many distinct values.

    `declared` is True if the job file states that the column is a category, which may have any number of values.
    """
    cells = table.columns[column]
    if not declared and looks_like_identifier(cells):
        distinct = len({cell for cell in cells if cell is not None})
        raise DataError(table.name, [_category_fault(table, column, distinct)])
    values = np.empty(len(cells), object)
    values[:] = cells
    return values


def _category_fault(table: Table, column: str, distinct: int) -> Fault:
    """Return the fault of a column that is not a category: mostly numbers, or identifiers and free text."""
    cells = table.columns[column]
    invalid = _invalid_number_rows(cells)
    if len(invalid) < len(cells) / 2:
        return _invalid_number_fault(table, column, invalid, "or remove the column")
    problem = f"{distinct} distinct values in {len(cells)} rows: too many for a category"
    conversion = suggest_conversion([cell for cell in cells if cell is not None])
    fix = (f"{conversion}; or " if conversion else "") + "exclude the column: list the others in data.columns"
    fix += f', or declare it a category: in [data], kinds = {{ "{column}" = "category" }}'
    return Fault(f"column {column}", problem, fix)


def suggest_conversion(present: Sequence[str]) -> str:
    """Suggest how to turn strings into numbers if they look like dates or formatted numbers."""
    if all(_DATE.fullmatch(cell) for cell in present):
        return "replace the dates with numbers, such as the year, the month or the age in days"
    example = next((cell for cell in present if parse_finite_number(cell) is None), None)
    if (
        example is not None
        and not _is_phone_number(example)
        and all(_FORMATTED_NUMBER.fullmatch(cell) for cell in present)
    ):
        return f"write numbers such as {example!r} with a decimal point, without commas and units"
    return ""


def _invalid_number_rows(cells: Sequence[str | None]) -> list[int]:
    distinct = {cell for cell in cells if cell is not None}
    invalid = {cell for cell in distinct if parse_finite_number(cell) is None and parse_number(cell) is None}
    return [row for row, cell in enumerate(cells) if cell in invalid] if invalid else []


def _invalid_number_fault(table: Table, column: str, invalid: Sequence[int], alternative: str) -> Fault:
    location = f"{table.row_unit} {table.lines[invalid[0]]}, column {column}"
    found = describe_value(table.columns[column][invalid[0]])
    problem = f"expected a number, like most cells of the column, found {found}"
    cells = "that cell" if len(invalid) == 1 else f"the {len(invalid)} such cells"
    return Fault(location, problem, f"correct or empty {cells}, {alternative}")


def _mixed_format_fault(table: Table, column: str, alternative: str) -> Fault:
    """Return the fault of a column whose cells are all numbers, but not in one format."""
    texts = list(dict.fromkeys(cell for cell in table.columns[column] if cell is not None))
    other = next((text for text in texts if infer_number_format([texts[0], text]) is None), texts[-1])
    problem = f"expected numbers written in one way, with units that can be converted; found {texts[0]!r} and {other!r}"
    return Fault(f"column {column}", problem, f"write plain numbers, {alternative}")


def rare_invalid_numbers(cells: Sequence[str | None]) -> list[int]:
    """Return the rows whose cells are not numbers if they are few among many distinct numbers, else nothing."""
    invalid = _invalid_number_rows(cells)
    present = len(cells) - cells.count(None)
    few = 0 < 10 * len(invalid) <= present
    return invalid if few and len(set(cells)) - len(invalid) > FEW_CATEGORIES + 1 else []


def _mostly_numbers(cells: Sequence[str | None]) -> tuple[bool, list[int]]:
    """Return whether at least half of the cells are numbers, with units or not, and many different ones.

    Return with it the rows whose cells are none. A bound or a range, such as 25-34, is none here.
    """
    counts = Counter(cell for cell in cells if cell is not None)
    numbers = {text for text in counts if parse_number(text) is not None or _is_written_number(text)}
    if len(numbers) <= FEW_CATEGORIES + 1 or 2 * sum(map(counts.__getitem__, numbers)) < counts.total():
        return False, []
    return True, [row for row, cell in enumerate(cells) if cell is not None and cell not in numbers]


def _is_written_number(text: str) -> bool:
    """Return True for a number with a unit or separators, not for a phone number."""
    return not _is_phone_number(text) and infer_number_format([text]) is not None


def _is_phone_number(text: str) -> bool:
    return text.startswith("+") and " " in text


def kind_warnings(table: Table, kinds: Mapping[str, str], declared: Mapping[str, str]) -> list[str]:
    """Return a warning for each inferred category or text that may be numbers or dates.

    declared: the job's own kinds.
    """
    warnings = []
    for name in (name for name, kind in kinds.items() if kind in ("category", "text") and name not in declared):
        cells = table.columns[name]
        present = [cell for cell in cells if cell is not None]
        if invalid := _mostly_numbers(cells)[1]:
            are = "is not a number" if len(invalid) == 1 else "are not numbers"
            example = f"{describe_value(cells[invalid[0]])} in {table.row_unit} {table.lines[invalid[0]]}"
            reason = f" because {len(invalid)} of its {len(table)} cells {are}, such as {example}"
            fix = "empty such cells if they are missing values"
        elif kinds[name] == "category" and len(set(present)) > FEW_CATEGORIES and (fix := suggest_conversion(present)):
            reason = ""
        else:
            continue
        declare = f"write kinds = {{ {name!r} = {kinds[name]!r} }} in [data]"
        noun = "a category" if kinds[name] == "category" else "text"
        warnings.append(f"column {name} is treated as {noun}{reason}: {fix}, or {declare}")
    return warnings


# The target ----------------------------------------------------------------------------------------------------------


def parse_labels(cells: Sequence[str]) -> list[str | int]:
    """Return the cells as labels: integers if all of them are, none beyond 2^53, else strings."""
    labels: dict[str, int] = {}
    for cell in dict.fromkeys(cells):
        label = _parse_integer(cell)
        if label is None or abs(label) > _MAX_INTEGER_LABEL or _has_leading_zero(cell):
            return list(cells)
        labels[cell] = label
    return [labels[cell] for cell in cells]


def _parse_integer(cell: str) -> int | None:
    """Return the exact integer that a cell spells, such as 7, -7 or 7.0, else None."""
    found = _INTEGER.fullmatch(cell)
    return int(found[1]) if found else None


def _has_leading_zero(cell: str) -> bool:
    """Return True for a code such as 007, which is not the number 7."""
    digits = cell.lstrip("+-")
    return digits.startswith("0") and digits.partition(".")[0] != "0"


def infer_task(table: Table, targets: Sequence[str]) -> str:
    """Return "classification" or "regression". DataError if only a few cells of a numeric target are not numbers."""
    if len(targets) > 1:
        return "regression"
    (target,) = targets
    if (written := find_number_format(table.columns[target])) is not None:
        values = {written.parse(cell) for cell in table.columns[target] if cell is not None}
        return "classification" if len(values) <= _ALWAYS_ALLOWED_CLASSES else "regression"
    alternative = "or write task = 'classification' in [data] if they are classes"
    are_numbers_mostly, invalid = _mostly_numbers(table.columns[target])
    if invalid:
        raise DataError(table.name, [_invalid_number_fault(table, target, invalid, alternative)])
    if are_numbers_mostly and not are_numbers(table.columns[target]):
        raise DataError(table.name, [_mixed_format_fault(table, target, alternative)])
    cells = [cell for cell in table.columns[target] if cell is not None]
    return "classification" if looks_like_classes(cells) else "regression"


def looks_like_classes(cells: Sequence[str]) -> bool:
    """Return True if a target looks like classes, not a quantity: strings, or a few distinct integers."""
    if not are_numbers(cells):
        return True
    found = {float(cell) if (exact := _parse_integer(cell)) is None else exact for cell in set(cells)}
    return may_be_classes(len(found), len(cells)) and all(float(value).is_integer() for value in found)


def may_be_classes(distinct: int, rows: int) -> bool:
    """Return True if so many distinct integers may be classes. In few rows, most values of a quantity occur once."""
    return distinct <= min(FEW_CATEGORIES, max(_ALWAYS_ALLOWED_CLASSES, rows // 2))
