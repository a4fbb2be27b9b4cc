"""How the dates of a column are written."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from model_store.schema.columns import DateColumn
from model_store.schema.columns.date_text import DateFormat, infer_date_format, to_iso


@pytest.mark.parametrize(
    ("cells", "order", "iso"),
    [
        (["2020-03-31"], "iso", "2020-03-31"),
        (["2020/3/1"], "iso", "2020-03-01"),
        (["1949-01"], "iso", "1949-01-01"),
        (["2020-03-31 18:05"], "iso", "2020-03-31T18:05:00"),
        (["2020-03-31T18:05:07.25Z"], "iso", "2020-03-31T18:05:07.250000"),
        (["2020-03-31 18:00:00+02:00"], "iso", "2020-03-31T16:00:00"),
        (["03/31/2020"], "mdy", "2020-03-31"),
        (["31/03/2020"], "dmy", "2020-03-31"),
        (["01/02/2020", "01/31/2020"], "mdy", "2020-01-02"),
        (["01/02/2020"], "mdy", "2020-01-02"),
        (["01.02.2020"], "dmy", "2020-02-01"),
        (["3/1/99 1:30 PM"], "mdy", "1999-03-01T13:30:00"),
        (["03-Mar-2020"], "named", "2020-03-03"),
        (["September 5, 2019"], "named", "2019-09-05"),
    ],
)
def test_dates_are_read(cells: list[str], order: str, iso: str) -> None:
    found = infer_date_format(cells)
    assert found == DateFormat(order)  # type: ignore[arg-type]
    assert to_iso(found.parse(cells[0]) or 0.0) == iso


@pytest.mark.parametrize(
    ("cell", "seconds", "shown"),
    [
        ("14:30", 52_200, "14:30"),
        ("9:05", 32_700, "09:05"),
        ("2:30 PM", 52_200, "14:30"),
        ("12:15 a.m.", 900, "00:15"),
        ("23:59:59.5", 86_399.5, "23:59:59.500000"),
        ("00:00:07", 7, "00:00:07"),
    ],
)
def test_times_of_day_are_seconds_since_midnight(cell: str, seconds: float, shown: str) -> None:
    found = infer_date_format([cell])
    assert found == DateFormat("time")
    assert found.parse(cell) == seconds
    assert found.to_text(seconds) == shown


@pytest.mark.parametrize("cell", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"])
def test_a_time_beyond_the_years_1_to_9999_in_utc_is_no_date(cell: str) -> None:
    assert DateFormat().parse(cell) is None


def test_the_last_fraction_of_a_second_is_the_last_second() -> None:
    found = DateFormat().parse("9999-12-31T23:59:59.9999999")
    assert to_iso(found or 0.0) == "9999-12-31T23:59:59"


@pytest.mark.parametrize("mean", [1e300, -1e15, 1e15, 253_402_300_800.0])
def test_statistics_beyond_the_years_1_to_9999_still_make_an_example(mean: float) -> None:
    """Such an artifact was refused with a traceback in the log."""
    statistics = {"min": mean, "max": mean, "mean": mean, "std": 1.0, "deciles": [mean] * 11}
    column = DateColumn("day", statistics=statistics)
    assert column.format.parse(column.typical_value()) is not None
    assert column.draw_values(2, np.random.default_rng(0))
    assert column.value_schemas()
    assert column.form_field()


@pytest.mark.parametrize("cell", ["24:00", "13:30 PM", "2020-01-01", "12:60", "14:30 UTC", "7"])
def test_a_column_of_times_of_day_takes_nothing_else(cell: str) -> None:
    assert DateFormat("time").parse(cell) is None


def test_words_for_a_missing_date_are_in_the_json_of_the_format() -> None:
    written = DateFormat("mdy", ("pending", "TBD"))
    assert math.isnan(written.parse("tbd") or 0.0)
    assert DateFormat.from_dict(written.as_dict()) == written
    assert DateFormat("mdy").as_dict() == {"order": "mdy"}
    note = written.describe("due", ["01/31/2020", "TBD", "TBD", "pending"])
    assert note == "column due: these words are read as missing values: 'pending' in 1, 'TBD' in 2 cells"


@pytest.mark.parametrize(
    "cell", ["2020-02-30", "2020", "13/13/2020", "12", "2020-03-31 25:00", "5-Foo-2020", "", "1.5"]
)
def test_other_texts_are_no_dates(cell: str) -> None:
    assert infer_date_format([cell]) is None


def test_seconds_count_from_1970_in_utc() -> None:
    moment = datetime(2021, 7, 8, 9, 10, tzinfo=UTC)
    assert DateFormat().parse("2021-07-08T09:10") == moment.timestamp()


def test_an_open_order_of_day_and_month_is_a_note() -> None:
    open_order = DateFormat("mdy").describe("sold", ["01/02/2020", "03/04/2020"])
    assert open_order.startswith("column sold is read as dates with the month first, which its values leave open: ")
    assert "'01/02/2020' is 2020-01-02" in open_order
    assert not DateFormat("mdy").describe("sold", ["01/31/2020"])


def test_nat_is_a_missing_date() -> None:
    found = infer_date_format(["31.12.2020", "NaT"])
    assert found == DateFormat("dmy")
    assert math.isnan(found.parse("NaT") or 0.0)
    assert infer_date_format(["NaT"]) is None
    assert "'01/02/2020' is 2020-01-02" in DateFormat("mdy").describe("sold", ["01/02/2020", "NaT"])
