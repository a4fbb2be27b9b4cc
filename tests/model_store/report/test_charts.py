"""Charts, axes, number formats and markup."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.report import charts, svg
from model_store.report.markup import Markup, tag, truncate_middle
from model_store.report.svg import linear_axis, log_axis
from model_store.utils.number_format import format_number, format_percent, format_score
from tests.model_store.report.examples import Page


@pytest.mark.parametrize("cost", [0.264, 1.11e-12, -0.000123, 12345.6])
def test_the_value_of_a_bar_is_inside_the_chart(cost: float) -> None:
    parts = [{"name": "a column of numbers", "value": cost, "low": cost - 3 * abs(cost), "high": cost + 3 * abs(cost)}]
    drawn = str(charts.interval_bars(parts, "Increase of the RMSE", format_number))
    (found,) = re.findall(r'<text x="([\d.]+)"[^>]*class="value over"[^>]*>([^<]+)</text>', drawn)
    assert float(found[0]) + svg.text_width(found[1]) <= svg.WIDTH


def test_a_long_name_stands_whole_above_its_bar() -> None:
    name = "average_number_of_visits_in_the_last_12_months"
    drawn = str(charts.interval_bars([{"name": name, "value": 1.0, "low": 0.5, "high": 1.5}], "x", format_number))
    assert f">{name}</text>" in drawn


@pytest.mark.parametrize(
    ("share", "shown"),
    [(1.0, "100.0 %"), (0.9999, ">99.9 %"), (0.9994, "99.9 %"), (0.0, "0.0 %"), (1e-9, "<0.1 %"), (-0.12, "−12.0 %")],
)
def test_only_all_is_100_percent_and_only_nothing_0_percent(share: float, shown: str) -> None:
    assert format_percent(share) == shown


def test_a_score_below_1_is_not_shown_as_1() -> None:
    assert [format_score(score, 3) for score in (1.0, 0.99999, 0.5, -0.25)] == ["1.000", "0.999", "0.500", "−0.250"]


@pytest.mark.parametrize("size", [1e-6, 1.0, 9.7e5, 3.9e6, 3.9e15])
def test_tick_labels_do_not_overlap_and_are_inside_the_chart(size: float) -> None:
    drawn = str(charts.predicted_against_true("t", {"points": [[-0.9 * size, 0.0], [size, size]], "rows": 2}))
    names = re.findall(r'<text x="([\d.]+)"[^>]*class="tick middle"[^>]*>([^<]+)</text>', drawn)
    ends = [(float(x) - svg.text_width(name) / 2, float(x) + svg.text_width(name) / 2) for x, name in names]
    assert len(ends) > 1
    assert all(before < start for (_, before), (start, _) in pairwise(ends))
    assert ends[0][0] >= 0
    assert ends[-1][1] <= svg.WIDTH


def test_ticks_without_space_are_removed_evenly_and_0_is_kept() -> None:
    ticks = [(40.0 * i, f"{50_000 * (i - 3):,}") for i in range(9)]
    assert [name for _, _, name in svg.spaced_ticks(ticks)] == ["-100,000", "0", "100,000", "200,000"]
    assert [name for _, _, name in svg.spaced_ticks([(0.0, "one"), (300.0, "two")])] == ["one", "two"]
    assert svg.spaced_ticks([]) == []


@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=20), st.booleans())
def test_an_axis_covers_its_values_with_few_ticks(values: list[float], tight: bool) -> None:
    found = linear_axis("x", values, tight=tight)
    assert len(found.ticks) <= 9
    tolerance = (found.high - found.low) * 1e-6
    assert found.low - tolerance <= min(values) <= max(values) <= found.high + tolerance
    scale = found.scale(0, 100)
    assert all(math.isfinite(scale(value)) for value in [*values, *(location for location, _ in found.ticks)])


@given(st.lists(st.floats(1e-90, 1e90), min_size=1, max_size=20))
def test_a_logarithmic_axis_covers_its_values(values: list[float]) -> None:
    found = log_axis("x", values)
    assert found.low <= min(values) <= max(values) <= found.high
    assert 0 < len(found.ticks) <= 12
    scale = found.scale(0, 100)
    assert all(-1 <= scale(value) <= 101 for value in values)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (1.0, "1"), (0.98765, "0.9877"), (12345.678, "12,346"), (0.000123456, "0.0001235"), (-2.5, "−2.5"),
        (1.5e-7, "1.5 × 10⁻⁷"), (3e20, "3 × 10²⁰"), (999999.6, "1,000,000"), (7, "7"), (-1234567, "−1,234,567"),
        (-12345678.9, "−12,345,679"), (1e9, "1 × 10⁹"),
        (None, "–"), (9.9999, "10"), (2007, "2007"), (-2007.25, "−2007"), (9999.7, "10,000"), (10_000, "10,000"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, shown: str) -> None:
    assert format_number(value) == shown


def test_years_have_no_thousands_separator() -> None:
    assert [name for _, name in linear_axis("year", [2007, 2009]).ticks][::2] == ["2007.0", "2008.0", "2009.0"]
    assert [name for _, name in linear_axis("year", [1950, 2020], integers=True).ticks][:2] == ["1940", "1960"]
    assert [name for _, name in linear_axis("price", [0, 20_000], max_ticks=4).ticks] == [
        "0",
        "5000",
        "10,000",
        "15,000",
        "20,000",
    ]
    assert format_number(2007) == format_number(2007.0) == "2007"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_has_a_short_form(value: float) -> None:
    assert 0 < len(format_number(value)) <= 16


def test_text_is_escaped_and_markup_is_not() -> None:
    found = tag("p", "<b>", tag("b", "x"), class_='"&')
    assert found == '<p class="&quot;&amp;">&lt;b&gt;<b>x</b></p>'
    assert isinstance(found, Markup)
    assert truncate_middle("class number 17", 10) == "class … 17"


@pytest.mark.parametrize("losses", [[0.5], [1e-30, 1e30], [0.0, 0.0], [-1.0, 3.0], [1e100, -1e100], [5e-324, 1.0]])
def test_any_learning_curve_can_be_plotted(losses: list[float]) -> None:
    history = [{"epoch": i + 1, "loss": loss, "validation_loss": None} for i, loss in enumerate(losses)]
    drawn = charts.learning_curves(history, 1)
    assert not re.search(r"\b(nan|inf)\b", drawn)
    Page(drawn)


def test_a_title_that_is_wider_than_the_chart_is_left_to_the_heading() -> None:
    parts = [{"name": "W", "value": 0.5, "low": 0.4, "high": 0.6}]
    for title, shown in (("RMSE", 1), ("Increase of the Poisson deviance / that of the best constant", 0)):
        drawn = str(charts.interval_bars(parts, title, format_number))
        assert drawn.count(f">{title}</text>") == shown
