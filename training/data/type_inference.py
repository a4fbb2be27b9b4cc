"""Type inference: the kinds of columns, the labels of a target and the task, from the cells of a table.

A column is numbers when every cell that is not missing reads as a finite number, else categories.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.utils.values import describe_value, parse_finite_number
from training.data.readers import Table
from training.errors import MAX_SHOWN_FAULTS, DataError

Kind = Literal["number", "category"]

MOST_CATEGORIES = 1000  # one-hot features of one column
FEW_CATEGORIES = 20  # up to here a column may be categories, however few rows there are
_PLAINLY_FEW = 3  # different whole numbers, in however few rows
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_BIGGEST_EXACT = 2.0**53


def infer_kind(cells: Sequence[str | None]) -> Kind:
    return "number" if all(cell is None or parse_finite_number(cell) is not None for cell in cells) else "category"


def identifies(cells: Sequence[str | None]) -> bool:
    """Whether the cells look like names of rows or free text, of no use as categories."""
    present = [cell for cell in cells if cell is not None]
    distinct = len(set(present))
    return distinct > MOST_CATEGORIES or (distinct > FEW_CATEGORIES and distinct > len(present) / 2)


def numbers(table: Table, column: str) -> NDArray[np.float64]:
    """A column as (n,) numbers, NaN where one is missing. All cells that are no numbers are reported at once."""
    values = np.empty(len(table))
    faults: list[Fault] = []
    total = 0
    for row, cell in enumerate(table.columns[column]):
        value = math.nan if cell is None else parse_finite_number(cell)
        if value is None:
            total += 1
            if len(faults) < MAX_SHOWN_FAULTS:
                problem = f"expected a finite number; found {describe_value(cell)}"
                fix = "mend the cell, or empty it if the value is missing"
                faults.append(Fault(f"{table.noun} {table.lines[row]}, column {column}", problem, fix))
            value = math.nan
        values[row] = value
    if faults:
        raise DataError(table.name, faults, total)
    return values


def categories(table: Table, column: str, *, sure: bool) -> NDArray[np.object_]:
    """A column as (n,) texts, None where one is missing. `sure` when the job file itself calls it a category."""
    cells = table.columns[column]
    distinct = len({cell for cell in cells if cell is not None})
    if distinct > MOST_CATEGORIES or (not sure and identifies(cells)):
        raise DataError(table.name, [_too_many(table, column, distinct, sure=sure)])
    values = np.empty(len(cells), object)
    values[:] = cells
    return values


def _too_many(table: Table, column: str, distinct: int, *, sure: bool) -> Fault:
    """Numbers with a few slips among them, or ids and texts."""
    cells = table.columns[column]
    slips = _no_numbers(cells)
    if not sure and len(slips) < len(cells) / 2:
        return _slip(table, column, slips, "or leave the column out")
    most = f"; {MOST_CATEGORIES} at most" if distinct > MOST_CATEGORIES else ""
    problem = f"{distinct} different texts in {len(cells)} rows, too many for categories{most}"
    meant = kind_meant([cell for cell in cells if cell is not None])
    fix = (f"{meant}; or " if meant else "") + "leave the column out: list the others as data.columns"
    if not sure and distinct <= MOST_CATEGORIES:
        fix += f", or say so if it is one: data.kinds = {{ {column!r} = 'category' }}"
    return Fault(f"column {column}", problem, fix)


_DATE = re.compile(r"\d{4}([-/.])\d\d?\1\d\d?([T ].*)?|\d\d?([-/.])\d\d?\3\d{2,4}([T ].*)?")
_ADORNED = re.compile(r"[$€£¥]?\s*[+-]?\d[\d.,' ]*\s*([%$€£¥]|[A-Za-z]{1,3})?")


def kind_meant(present: Sequence[str]) -> str:
    """What texts could be instead, if somebody wrote them otherwise."""
    if all(_DATE.fullmatch(cell) for cell in present):
        return "dates: write what counts as numbers, such as year, month, age in days"
    odd = next((cell for cell in present if parse_finite_number(cell) is None), None)
    if odd is not None and all(_ADORNED.fullmatch(cell) for cell in present):
        return f"numbers, if {odd!r} is written with a point alone, without commas and units"
    return ""


def _no_numbers(cells: Sequence[str | None]) -> list[int]:
    return [row for row, cell in enumerate(cells) if cell is not None and parse_finite_number(cell) is None]


def _slip(table: Table, column: str, slips: Sequence[int], otherwise: str) -> Fault:
    location = f"{table.noun} {table.lines[slips[0]]}, column {column}"
    first = describe_value(table.columns[column][slips[0]])
    problem = f"expected a number, as most cells of the column are; found {first}"
    those = "that cell" if len(slips) == 1 else f"the {len(slips)} such cells"
    return Fault(location, problem, f"mend or empty {those}, {otherwise}")


def few_slips(cells: Sequence[str | None]) -> list[int]:
    """The rows whose cells are no numbers, where they are few among many different numbers."""
    slips = _no_numbers(cells)
    present = len(cells) - cells.count(None)
    few = 0 < 10 * len(slips) <= present
    return slips if few and len(set(cells)) - len(slips) > FEW_CATEGORIES + 1 else []


def kind_warnings(table: Table, kinds: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    """A note for each column whose many categories may be numbers or dates; `given` are the kinds that a job states."""
    notes = []
    for name in (name for name, kind in kinds.items() if kind == "category" and name not in given):
        cells = table.columns[name]
        present = [cell for cell in cells if cell is not None]
        if slips := few_slips(cells):
            first = f"{describe_value(cells[slips[0]])} in {table.noun} {table.lines[slips[0]]}"
            are = "is no number" if len(slips) == 1 else "are no numbers"
            why = f", for {len(slips)} of its {len(table)} cells {are}"
            meant = f", such as {first}: empty such cells if they are missing"
        elif len(set(present)) > FEW_CATEGORIES and (meant := kind_meant(present)):
            why, meant = "", f": {meant}"
        else:
            continue
        notes.append(
            f"column {name} counts as categories{why}{meant}, or write kinds = {{ {name!r} = 'category' }} in [data]"
        )
    return notes


# The target ----------------------------------------------------------------------------------------------------------


def labels_of(cells: Sequence[str]) -> list[str | int]:
    """The cells as labels: whole numbers when all of them are, else texts."""
    if all(_WHOLE.fullmatch(cell) and abs(float(cell)) <= _BIGGEST_EXACT and not _padded(cell) for cell in cells):
        return [int(float(cell)) for cell in cells]
    return list(cells)


def _padded(cell: str) -> bool:
    """007 is a name, not the number 7."""
    digits = cell.lstrip("+-")
    return digits.startswith("0") and digits.partition(".")[0] != "0"


def task_of(table: Table, targets: Sequence[str]) -> str:
    """Classification or regression. DataError where a few cells alone make texts of a target of numbers."""
    if len(targets) > 1:
        return "regression"
    (target,) = targets
    if slips := few_slips(table.columns[target]):
        fault = _slip(table, target, slips, "or write task = 'classification' in [data] if they are classes")
        raise DataError(table.name, [fault])
    return "classification" if is_classes([c for c in table.columns[target] if c is not None]) else "regression"


def is_classes(cells: Sequence[str]) -> bool:
    """Whether a target is better taken as classes than as a quantity: texts, or a few whole numbers."""
    if infer_kind(cells) == "category":
        return True
    found = {float(cell) for cell in cells}
    return few_classes(len(found), len(cells)) and all(value.is_integer() for value in found)


def few_classes(distinct: int, rows: int) -> bool:
    """Whether so many different whole numbers may be classes: of quantities most come once, where rows are few."""
    return distinct <= min(FEW_CATEGORIES, max(_PLAINLY_FEW, rows // 2))
