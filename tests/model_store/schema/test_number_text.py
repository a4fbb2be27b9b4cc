"""How the numbers of a column are written."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from marshmallow import ValidationError

from model_store.schema.columns import number_text
from model_store.schema.columns.base import FaultCollector, RowLocations
from model_store.schema.columns.number import NumberColumn
from model_store.schema.columns.number_text import (
    MAX_NUMBER_TEXT,
    NumberFormat,
    _read_number_format,
    are_durations,
    infer_number_format,
    parse_duration,
    split_bounds,
)


@pytest.mark.parametrize(
    ("cells", "unit", "values"),
    [
        (["$1,200", "$5", "$3,400.50"], "$", [1200, 5, 3400.5]),
        (["€ 1.200,50", "€ 3,20"], "€", [1200.5, 3.2]),
        (["45%", "3.5 %"], "%", [45, 3.5]),
        (["41.8C", "40C"], "C", [41.8, 40]),
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
        ["1.2.3"], ["110M", "20M"], ["3+", "4"], ["km"], ["1,2,3"], ["192.168.1.1"], ["1/2"], ["3 kg 5"], ["$ 5 kg"],
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


@pytest.mark.parametrize(
    ("cells", "unit", "values"),
    [
        (["5 kg", "300 g", "2.5 kg"], "kg", [5, 0.3, 2.5]),
        (["300 g", "450g", "1 KG"], "g", [300, 450, 1000]),
        (["5 min", "2 h", "1 h"], "h", [5 / 60, 2, 1]),
        (["1.5 GB", "200 MB"], "MB", [1500, 200]),
        (["$1.2M", "$300K", "$5"], "$", [1_200_000, 300_000, 5]),
        (["19M", "201k", "8"], "", [19_000_000, 201_000, 8]),
        (["€ 3 bn", "€ 2,5 bn"], "€", [3e9, 2.5e9]),
        (["$5 USD", "$6.50 USD", "7"], "$", [5, 6.5, 7]),
        (["1,200 USD", "$3"], "$", [1200, 3]),
        (["-$1.2M", "($300K)"], "$", [-1_200_000, -300_000]),
    ],
)
def test_units_of_one_dimension_are_converted(cells: list[str], unit: str, values: list[float]) -> None:
    found = infer_number_format(cells)
    assert found is not None
    assert found.unit == unit
    assert [found.parse(cell) for cell in cells] == pytest.approx(values)
    assert _read_number_format(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize("cells", [["5 kg", "3 m"], ["$5", "€6"], ["5 kg", "300 g", "3"], ["12K", "14"], ["$5 EUR"]])
def test_units_that_cannot_be_converted_are_no_numbers(cells: list[str]) -> None:
    assert infer_number_format(cells) is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<5", ("5",)), (">= 3", ("3",)), ("≤2,5", ("2,5",)), ("65+", ("65",)), ("10,000 +", ("10,000",)),
        ("1-2", ("1", "2")), ("1.5 – 2.5", ("1.5", "2.5")), ("5 to 10 kg", ("5", "10 kg")), ("~7", ("7",)),
        ("-5", ()), ("2020-01-02", ()), ("1e-5", ()), ("a-b", ()), ("+5", ()), ("<", ()), ("", ()), ("5", ()),
        ("1-" * 500, ()),
    ],
)  # fmt: skip
def test_bounds_and_ranges_are_split(text: str, parts: tuple[str, ...]) -> None:
    assert split_bounds(text) == parts


def test_the_sign_of_a_range_is_found_in_one_pass() -> None:
    """An expression that repeats tried each digit as the last one: 40 µs for 62 digits."""
    assert not re.search(r"[*{]|[^+]\+", number_text._RANGE_SIGN.pattern)
    assert split_bounds("1..." * 6 + "1-1" + "...1" * 6) == ("1..." * 6 + "1", "1" + "...1" * 6)
    assert split_bounds("1to" * 20 + "1") == ("1to" * 19 + "1", "1")
    assert split_bounds("1-" * 30 + "1") == split_bounds("1" * 62) == ()
    assert split_bounds("1–2–3") == ("1–2", "3")
    assert split_bounds("1–2-3") == ("1–2", "3")


@pytest.mark.parametrize(("text", "value"), [("1" * 62, float("1" * 62)), ("-1.5", -1.5), ("+2.", 2.0), (" 3 ", 3.0)])
def test_a_plain_number_is_read_without_a_search_for_signs_and_units(
    text: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_text, "split_bounds", lambda _: pytest.fail("a plain number was searched for signs"))
    monkeypatch.setattr(NumberFormat, "_split_factor", lambda *_: pytest.fail("units were tried"))
    assert NumberFormat(unit="kg", units={"g": 0.001}, bounds=True).parse(text) == value


def test_bounds_count_as_the_bound_and_ranges_as_the_middle() -> None:
    found = NumberFormat(unit="mg", bounds=True)
    assert [found.parse(text) for text in ("<5", "<5 mg", "65+", "1-2", "7", "4-x")] == [5, 5, 65, 1.5, 7, None]
    assert NumberFormat().parse("<5") is None
    assert _read_number_format(found.as_dict()) == found
    note = found.describe("dose", ["<5", "<5", "7 mg", "8"])
    assert note.endswith("2 are bounds or ranges, such as '<5', and count as the bound or the middle")


@pytest.mark.parametrize(
    "change",
    [
        {"units": {}}, {"units": []}, {"units": {"KG": 1.0}}, {"units": {"kg": 0}}, {"units": {"kg": float("inf")}},
        {"units": {"kg": True}}, {"units": {"12": 1.0}}, {"units": {f"k{'abcdefghijklm'[i]}": 1.0 for i in range(13)}},
        {"bounds": False}, {"bounds": 1}, {"other": 1},
    ],
)  # fmt: skip
def test_units_and_bounds_in_a_file_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _read_number_format({"decimal": ".", "group": "", "unit": "", "missing": []} | change)
