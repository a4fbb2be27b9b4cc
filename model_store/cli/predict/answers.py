"""What `models predict` shows beside predictions: explanations, intervals and sets of labels, as tables and as columns.

`wanted` has keys of a request's body: {"explain": true, "interval": 0.9}. `answers` has the lists of a response, one
item for each row: {"explanations": [...], "intervals": [...]}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from model_store.cli.predict.explanations import (
    check_columns,
    explanation_cells,
    explanation_header,
    explanations_table,
    is_explanation,
)
from model_store.cli.tables import LimitedTable, format_value, new_table
from model_store.schema.multi_label import DEFAULT_SEPARATOR
from model_store.schema.signature import RegressionOutput, Signature
from model_store.utils.printable import printable
from model_store.utils.values import is_finite_number

RESPONSE_KEYS = {"explain": "explanations", "interval": "intervals", "set": "sets"}  # by the keys of a request


def answer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that ask for more than predictions."""
    options = (
        click.option(
            "--explain", is_flag=True, help="Tell what each column contributed to each prediction: see docs/answers.md."
        ),
        click.option(
            "--explain-label", metavar="LABEL", help="Explain the probability of LABEL, or the target of that name."
        ),
        click.option(
            "--interval",
            type=float,
            metavar="LEVEL",
            help="Add intervals of a regression that hold the target as often as LEVEL, such as 0.9.",
        ),
        click.option(
            "--set",
            "label_set",
            type=float,
            metavar="LEVEL",
            help="Add sets of labels that hold the true one as often as LEVEL, such as 0.9.",
        ),
        click.option(
            "--threshold",
            type=float,
            metavar="P",
            help="Predict the second of two labels if its probability is at least P.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def wanted_keys(
    signature: Signature,
    *,
    explain: bool,
    explain_label: str | None,
    interval: float | None,
    label_set: float | None,
    threshold: float | None,
) -> dict[str, Any]:
    """Return the keys that a request has for these options."""
    wanted: dict[str, Any] = {"interval": interval, "set": label_set, "threshold": threshold}
    if explain_label is not None:
        key = "target" if isinstance(signature.output, RegressionOutput) else "label"
        wanted["explain"] = {key: explain_label}
    elif explain:
        wanted["explain"] = True
    return {key: value for key, value in wanted.items() if value is not None}


def check_one_cell_each(signature: Signature, wanted: Mapping[str, Any]) -> None:
    """Raise InputError unless what is wanted fits the columns of a table."""
    if "explain" in wanted:
        check_columns(signature)


def answer_header(signature: Signature, wanted: Mapping[str, Any], before: Sequence[str]) -> list[str]:
    """Return the columns `before` and those of the answers after them."""
    header, output = list(before), signature.output
    names: list[str] = []
    if "interval" in wanted and isinstance(output, RegressionOutput):
        names = [f"{end}_{name}" for name in output.names for end in ("low", "high")]
    elif "set" in wanted and not isinstance(output, RegressionOutput):
        names = [f"set_{output.name}"]
    for name in names:
        free = name
        while free in header:
            free = f"predicted_{free}"
        header.append(free)
    return [*header, *explanation_header(signature, header)] if "explain" in wanted else header


def answer_cells(answers: Mapping[str, Sequence[Any]], row: int) -> list[Any]:
    """Return the cells of `answer_header` that come after those of the prediction."""
    cells: list[Any] = []
    if (intervals := answers.get("intervals")) is not None:
        found = intervals[row]
        cells += [end for ends in found.values() for end in ends] if isinstance(found, Mapping) else found
    if (sets := answers.get("sets")) is not None:
        cells.append(DEFAULT_SEPARATOR.join(map(str, sets[row])))
    if (explanations := answers.get("explanations")) is not None:
        cells += explanation_cells(explanations[row])
    return cells


def answer_tables(answers: Mapping[str, Sequence[Any]]) -> Iterator[LimitedTable]:
    """Yield a table for each list of answers."""
    if (intervals := answers.get("intervals")) is not None:
        several = isinstance(intervals[0], Mapping)
        table = new_table(">row", *(["target"] if several else []), ">low", ">high")
        for i, found in enumerate(intervals):
            named = found.items() if several else [("", found)]
            for j, (name, ends) in enumerate(named):
                cells = [format_value(end).replace(",", "") for end in ends]
                table.add_row("" if j else str(i), *([printable(name)] if several else []), *cells)
        yield table
    if (sets := answers.get("sets")) is not None:
        table = new_table(">row", "set")
        for i, labels in enumerate(sets):
            table.add_row(str(i), ", ".join(printable(str(label)) for label in labels))
        yield table
    if (explanations := answers.get("explanations")) is not None:
        yield explanations_table(explanations)


def are_answers(answers: Mapping[str, Any], wanted: Mapping[str, Any], rows: int, signature: Signature) -> bool:
    """Return whether a service sent what is wanted for so many rows, as far as its form shows."""
    is_valid = {"explain": is_explanation, "interval": _is_interval, "set": _is_set}
    lists = [(answers.get(RESPONSE_KEYS[key]), is_valid[key]) for key in RESPONSE_KEYS if key in wanted]
    return all(
        isinstance(found, list) and len(found) == rows and all(check(each, signature) for each in found)
        for found, check in lists
    )


def _is_interval(found: Any, signature: Signature) -> bool:
    names = signature.output.names if isinstance(signature.output, RegressionOutput) else ()
    ends = [found] if len(names) == 1 else list(found.values()) if isinstance(found, dict) else []
    named = len(names) == 1 or (isinstance(found, dict) and list(found) == list(names))
    return named and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(is_finite_number, pair)) for pair in ends
    )


def _is_set(found: Any, signature: Signature) -> bool:
    labels = () if isinstance(signature.output, RegressionOutput) else signature.output.labels
    return (
        isinstance(found, list) and bool(found) and all(type(each) in (str, int) and each in labels for each in found)
    )
