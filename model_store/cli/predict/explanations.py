"""`models predict --explain`: contributions of columns as a table, as cells of CSV, and as a service sends them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from model_store.cli.tables import LimitedTable, format_value, new_table
from model_store.errors import Fault, InputError
from model_store.schema.columns import ArrayColumn
from model_store.schema.signature import Signature
from model_store.utils.printable import printable
from model_store.utils.values import is_finite_number

_ROW = re.compile(r"instances\.(\d+)")
_MAX_SHOWN = 12  # columns of a row, the largest contributions first


def check_columns(signature: Signature) -> None:
    """Raise InputError unless every column contributes one number."""
    arrays = [column.name for column in signature.inputs if isinstance(column, ArrayColumn)]
    if arrays:
        problem = f"expected columns with one contribution each, found the array {arrays[0]}"
        raise InputError([Fault("--explain", problem, "print the explanations with --json")])


def explanation_header(signature: Signature, before: Sequence[str]) -> list[str]:
    """Return the names of the columns after those `before`: "explained_..." where one of these has the same name."""
    contributions = (f"contribution_{column.name}" for column in signature.inputs)
    names = ["explained_answer", "explained_baseline", *contributions, "explained_residual"]
    taken = set(before)
    for i, name in enumerate(names):
        while names[i] in taken:
            names[i] = f"explained_{names[i]}"
        taken.add(name)
    return names


def explanation_cells(explanation: Mapping[str, Any]) -> list[Any]:
    """Return the cells of `explanation_header`."""
    contributions = explanation["contributions"].values()
    return [explanation["answer"], explanation["baseline"], *contributions, explanation["residual"]]


def explanations_table(explanations: Sequence[Mapping[str, Any]]) -> LimitedTable:
    """Return a table with a line for each contribution of each row, the largest first; of an array its sum."""
    table = new_table(">row", "column", ">contribution")
    for i, explanation in enumerate(explanations):
        sums = {name: _total(value) for name, value in explanation["contributions"].items()}
        largest = sorted(sums, key=lambda name: -abs(sums[name]))
        name = explanation.get("label", explanation.get("target"))
        of = "" if name is None else f" of {printable(str(name))}"
        table.add_row(str(i), f"(baseline{of})", _shown(explanation["baseline"]))
        for column in largest[:_MAX_SHOWN]:
            table.add_row("", printable(column), f"{sums[column]:+.4g}")
        if others := largest[_MAX_SHOWN:]:
            table.add_row("", f"({len(others)} more columns)", f"{sum(sums[column] for column in others):+.4g}")
        table.add_row("", f"(answer{of})", _shown(explanation["answer"]))
    return table


def is_explanation(found: Any, signature: Signature) -> bool:
    """Return whether this is an explanation for the columns of a signature, as far as its form shows."""
    if not isinstance(found, dict) or not isinstance(contributions := found.get("contributions"), dict):
        return False
    if not all(is_finite_number(found.get(key)) for key in ("baseline", "answer", "residual")):
        return False
    return list(contributions) == list(signature.names) and all(map(_is_numbers, contributions.values()))


def at_row(error: InputError, start: int) -> InputError:
    """Return the error of a part of the rows, from the row `start` on, with the numbers that they have among all."""

    def moved(fault: Fault) -> Fault:
        location = _ROW.sub(lambda match: f"instances.{int(match[1]) + start}", fault.location, count=1)
        return replace(fault, location=location)

    return InputError(list(map(moved, error.faults)), error.total)


def _total(value: Any) -> float:
    return sum(map(_total, value)) if isinstance(value, list) else float(value)


def _is_numbers(value: Any) -> bool:
    return all(map(_is_numbers, value)) if isinstance(value, list) else is_finite_number(value)


def _shown(value: float) -> str:
    return format_value(value).replace(",", "")
