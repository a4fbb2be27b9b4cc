"""How the numbers of a column are written."""

from __future__ import annotations

import math

import pytest

from model_store.schema.columns.base import FaultCollector, RowLocations
from model_store.schema.columns.number import NumberColumn
from model_store.schema.columns.number_text import (
    MAX_NUMBER_TEXT,
    NumberFormat,
    are_durations,
    infer_number_format,
    parse_duration,
)


@pytest.mark.parametrize(
    ("cells", "unit", "values"),
    [
        (["$1,200", "$5", "$3,400.50"], "$", [1200, 5, 3400.5]),
        (["€ 1.200,50", "€ 3,20"], "€", [1200.5, 3.2]),
        (["45%", "3.5 %"], "%", [45, 3.5]),
        (["1,234", "567"], "", [1234, 567]),
        (["12 kg", "5kg", "7"], "kg", [12, 5, 7]),
        (["(1,200)", "300", "-4"], "", [-1200, 300, -4]),
        (["($1,200)", "$-3", "-$4"], "$", [-1200, -3, -4]),
        (["1 234", "5 678,5"], "", [1234, 5678.5]),
        (["1'234.5", "2"], "", [1234.5, 2]),
        (["100 km/h", "3 km/h"], "km/h", [100, 3]),
        (["5 °C", "-3 °C"], "°C", [5, -3]),
        (["1e5", "$3"], "$", [1e5, 3]),
        (["1,5", "2,25"], "", [1.5, 2.25]),
        (["USD 5", "USD 1,000"], "USD", [5, 1000]),
    ],
)
def test_numbers_with_signs_and_units_are_read(cells: list[str], unit: str, values: list[float]) -> None:
    found = infer_number_format(cells)
    assert found is not None
    assert found.unit == unit
    assert [found.parse(cell) for cell in cells] == values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2:30", 150), ("75:30", 4530), ("1:30:00", 5400), ("100:00:00.5", 360_000.5), ("2 days 04:30", 189_000),
        ("0 days 00:45:10", 2710), ("1h 30m", 5400), ("1 hr, 5 min", 3900), ("2d 3h", 183_600), ("1.5h", 5400),
        ("45 s", 45), ("", None), ("12", None), ("1:75", None), ("30m 1h", None), ("1h x", None), ("-1:30", None),
    ],
)  # fmt: skip
def test_durations_are_seconds(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1h 30m", "45m"], True),
        (["26:10:00", "59:59"], True),
        (["5m", "10m", "1h"], False),  # sizes, or months
        (["1:30", "soon"], False),
        ([], False),
    ],
)
def test_a_column_of_durations_has_one_of_several_parts(cells: list[str], expected: bool) -> None:
    assert are_durations(cells) is expected


@pytest.mark.parametrize(
    "cells",
    [
        ["A12", "B7"], ["12A", "13A"], ["Q1", "Q2"], ["18-24", "25-34"], ["1st", "2nd"], ["2020-01-01"], ["12:30"],
        ["1.2.3"], ["110M", "20K"], ["3+", "4"], ["km"], ["1,2,3"], ["192.168.1.1"], ["1/2"], ["3 kg 5"], ["$ 5 kg"],
        ["9" * (MAX_NUMBER_TEXT + 1)], ["--5"], ["1_000"], ["٣"], [""],
    ],
)  # fmt: skip
def test_codes_ranges_and_other_texts_are_no_numbers(cells: list[str]) -> None:
    assert infer_number_format(cells) is None


def test_words_for_a_missing_value_are_nan_and_huge_numbers_none() -> None:
    found = NumberFormat(unit="$", missing=("unknown",))
    assert math.isnan(found.parse(" Unknown ") or 0)
    assert found.parse("$1e999") is None
    assert found.parse("known") is None


@pytest.mark.parametrize("written", [NumberFormat(",", ".", "€"), NumberFormat(unit="%"), NumberFormat(unit="kg")])
def test_the_example_of_a_format_can_be_read(written: NumberFormat) -> None:
    assert written.parse(written.example) == 1234.5


def test_the_error_of_a_text_in_another_format_names_the_format() -> None:
    faults = FaultCollector()
    NumberColumn("fee", format=NumberFormat(group=",", unit="$")).parse(["€ 5"], RowLocations("rows", range(1)), faults)
    assert faults.faults[0].fix == "send a number, or a text such as '$1,234'"
