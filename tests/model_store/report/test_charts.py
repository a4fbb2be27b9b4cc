"""The report: whole in itself, true to the record, unmoved by hostile names, and there for models of every kind."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifact.model import Model
from model_store.evaluation.record import Record
from model_store.nn import Linear, Sequential, Sigmoid, Softmax
from model_store.report import charts, svg
from model_store.report.markup import Markup, cut, tag
from model_store.report.page import render
from model_store.report.svg import axis, log_axis
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from model_store.utils.number_format import format_number

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x00&amp;'</style></title>"
VOID = {"meta", "rect", "line", "circle", "path", "polyline"}


class Page(HTMLParser):
    """The elements of a page, its text, and whether each that was opened was closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)

    @property
    def words(self) -> str:
        return " ".join(self.text)


def classifier(labels: tuple[Any, ...], training: dict[str, Any], column: str = "size", **options: str) -> Model:
    signature = Signature(
        (NumberColumn(column), CategoryColumn("town", ("Bath", "York"))), ClassificationOutput("kind", labels)
    )
    return Model(Sequential([Linear(3, len(labels)), Softmax()]), signature, training=training, **options)


def record(labels: tuple[Any, ...], rows: int = 90) -> dict[str, Any]:
    """What a training of a classifier of (size, town) leaves."""
    share = rows // len(labels) or 1
    figures = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": share}
    confusion = [[share if i == j else int(j == i + 1) for j in range(len(labels))] for i in range(len(labels))]
    found: dict[str, Any] = {
        "rows": rows,
        "of": "test rows",
        "accuracy": 0.8,
        "classes": {str(label): figures for label in labels},
        "mistakes": [{"true": labels[0], "answered": labels[1], "rows": 3}],
        "confusion": confusion,
    }
    bins = [{"low": 0.8, "high": 0.9, "rows": rows, "said": 0.85, "found": 0.8}]
    return {
        "metrics": found,
        "baseline": {"answer": labels[0], "accuracy": 0.4},
        "history": [{"epoch": i, "loss": 1 / i, "validation_loss": 2 / i} for i in range(1, 31)],
        "epochs": 30,
        "best_epoch": 20,
        "job": {"model": {"name": "chess"}, "train": {"epochs": 30, "early_stopping": {"patience": 3}}},
        "data": {"sha256": "ab" * 32, "rows": 100},
        "split": {"training": 10, "validation": 0, "test": rows},
        "diagnostics": {
            "calibration": {"of": None, "rows": rows, "expected_error": 0.05, "log_loss": 0.3, "bins": bins},
            "roc": {"of": str(labels[1]), "area": 0.91, "points": [[0, 0], [0.1, 0.8], [1, 1]]},
            "importance": {
                "measure": "accuracy",
                "score": 0.8,
                "rows": rows,
                "repeats": 5,
                "left_out": 0,
                "parts": [
                    {"name": "size", "cost": 0.3, "deviation": 0.02},
                    {"name": "town", "cost": -0.01, "deviation": 0.01},
                ],
            },
        },
    }


def regression(names: tuple[str, ...] = ("price",), points: Sequence[Any] = ([1.0, 1.5], [2.0, 1.5])) -> Model:
    target = {
        "rows": 40,
        "bias": -0.5,
        "median": 1.0,
        "p90": 2.0,
        "points": [list(point) for point in points],
        "edges": [-2.0, 0.0, 2.0],
        "counts": [10, 30],
        "outside": 0,
    }
    figures = {"rmse": 1.25, "mae": 1.0, "r2": 0.75}
    training = {
        "metrics": {"rows": 40, "of": "test rows", "targets": dict.fromkeys(names, figures)},
        "baseline": {"answer": [1.0], "targets": dict.fromkeys(names, figures | {"rmse": 5.0})},
        "diagnostics": {"residuals": {"left_out": 2, "targets": dict.fromkeys(names, target)}},
    }
    signature = Signature((NumberColumn("size"),), RegressionOutput(names, (0.0,) * len(names), (1.0,) * len(names)))
    return Model(Sequential([Linear(1, len(names))]), signature, training=training)


def test_a_classifiers_report_has_every_part() -> None:
    page = Page(render(classifier(("no", "yes"), record(("no", "yes"))), "chess/3", "ab" * 32))
    for words in (
        "chess",
        "version 3",
        "Right for 80.0 % of 90 test rows (95 % interval 70.6 to 87.0 %); ",
        "always answering “no” would be right for 40.0 %.",
        "the validation loss was lowest",
        "The weights are those of epoch 20.",
        "Confusion matrix",
        "Class by class",
        "Most frequent mistakes",
        "The expected calibration error is 5.0 %, the log loss 0.3.",
        "ROC curve",
        "area 0.91",
        "from an accuracy of 80.0 %",
        "ab" * 32,
        "early_stopping = { patience = 3 }",
    ):
        assert words in page.words
    assert page.count("svg") == 5


def test_a_regressions_report_has_every_part() -> None:
    page = Page(render(regression(), "houses/1"))
    assert "price is off by 1.25 (RMSE); always answering the mean is off by 5." in page.words
    assert "Half of the answers are off by at most 1, nine in ten by at most 2." in page.words
    assert "On average it answers 0.5 too little." in page.words
    assert "2 more targets are left out." in page.words
    assert page.count("svg") == 2


def test_a_report_loads_nothing_and_runs_nothing() -> None:
    text = render(classifier(("no", "yes"), record(("no", "yes"))), "chess/3")
    page = Page(text)
    assert {name for name, _ in page.tags} & {"script", "img", "link", "iframe", "object", "image", "use"} == set()
    assert not re.search(r"https?:|url\(|@import|\bon\w+=", text)
    (policy,) = [found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_same_model_gives_the_same_report() -> None:
    model = classifier(("no", "yes"), record(("no", "yes")))
    assert render(model, "chess/3") == render(model, "chess/3")


def test_hostile_names_stay_text() -> None:
    found = record((EVIL, "yes"))
    found["job"]["data"] = {EVIL: EVIL, "path": EVIL}
    found["diagnostics"]["roc"]["of"] = found["diagnostics"]["calibration"]["of"] = EVIL
    found["diagnostics"]["importance"]["parts"][0]["name"] = EVIL
    found["metrics"]["of"] = found["baseline"]["answer"] = EVIL
    model = classifier((EVIL, "yes"), found, EVIL, description=EVIL)
    text = render(model, EVIL)
    page = Page(text)
    names = ("a name that does not fit", "yes")
    harmless = Page(render(classifier(names, record(names)), "chess/3"))
    assert {name for name, _ in page.tags} == {name for name, _ in harmless.tags}
    assert {key for _, found in page.tags for key in found} <= {key for _, found in harmless.tags for key in found}
    assert "alert(1)" in page.words
    assert not set("\u202e\x00") & set(text)


def test_hostile_names_of_targets_stay_text() -> None:
    page = Page(render(regression((EVIL, "b")), "houses/1"))
    assert {name for name, _ in page.tags} == {name for name, _ in Page(render(regression(), "houses/1")).tags}


@pytest.mark.parametrize("labels", [11, 40, 100])
def test_of_many_classes_the_most_confused_are_shown_and_the_page_says_so(labels: int) -> None:
    names = tuple(f"class number {i}" for i in range(labels))
    text = render(classifier(names, record(names, 1000)), "many/1")
    page = Page(text)
    assert ("30 of 100 classes" in page.words) == (labels == 100)
    assert len(text) < 400_000


@pytest.mark.slow
def test_thousands_of_classes_have_a_report_without_a_matrix() -> None:
    names = tuple(range(3000))
    found = record(names, 6000)
    del found["metrics"]["confusion"]
    text = render(classifier(names, found), "words/1")
    assert "The 30 of 3000 classes with the lowest F1." in Page(text).words
    assert "Confusion matrix" not in text
    assert len(text) < 100_000


def test_of_many_columns_the_first_are_shown_and_the_page_says_so() -> None:
    signature = Signature(tuple(NumberColumn(f"c{i}") for i in range(200)), RegressionOutput(("y",), (0.0,), (1.0,)))
    page = Page(render(Model(Sequential([Linear(200, 1)]), signature), "wide/1"))
    assert "140 more columns are left out." in page.words


@pytest.mark.parametrize("cost", [0.264, 1.11e-12, -0.000123, 12345.6])
def test_the_figure_at_the_end_of_a_bar_stays_in_the_drawing(cost: float) -> None:
    parts = [{"name": "a column of numbers", "cost": cost, "deviation": abs(cost) * 3}]
    drawn = str(charts.bars(parts, "rise of the RMSE", points=False))
    (found,) = re.findall(r'<text x="([\d.]+)"[^>]*class="value"[^>]*>([^<]+)</text>', drawn)
    assert float(found[0]) + svg.width(found[1]) <= svg.WIDTH


@pytest.mark.parametrize("size", [1e-6, 1.0, 9.7e5, 3.9e6, 3.9e15])
def test_names_of_ticks_do_not_touch_and_stay_in_the_drawing(size: float) -> None:
    drawn = str(charts.scatter("t", {"points": [[-0.9 * size, 0.0], [size, size]], "rows": 2}))
    names = re.findall(r'<text x="([\d.]+)"[^>]*class="tick middle"[^>]*>([^<]+)</text>', drawn)
    ends = [(float(x) - svg.width(name) / 2, float(x) + svg.width(name) / 2) for x, name in names]
    assert len(ends) > 1
    assert all(before < start for (_, before), (start, _) in pairwise(ends))
    assert ends[0][0] >= 0
    assert ends[-1][1] <= svg.WIDTH


def test_ticks_that_have_no_room_are_left_out_evenly_and_0_stays() -> None:
    ticks = [(40.0 * i, f"{50_000 * (i - 3):,}") for i in range(9)]
    assert [name for _, _, name in svg.apart(ticks)] == ["-100,000", "0", "100,000", "200,000"]
    assert [name for _, _, name in svg.apart([(0.0, "one"), (300.0, "two")])] == ["one", "two"]
    assert svg.apart([]) == []


def test_an_image_has_a_map_of_its_patches() -> None:
    parts = [{"name": f"row {i // 3}, column {i % 3}", "cost": i / 10, "deviation": 0.0} for i in range(6)]
    importance = {"measure": "log_loss", "score": 0.1, "rows": 9, "repeats": 1, "grid": [2, 3], "patch": [4, 4]}
    training = {"diagnostics": {"importance": {**importance, "parts": parts}}}
    signature = Signature((ArrayColumn("image", (8, 12)),), ClassificationOutput("digit", (0, 1)))
    page = Page(render(Model(Sequential([Linear(96, 1), Sigmoid()]), signature, training=training), "digits/1"))
    assert "Rows and columns count pixels from the top left, in patches of 4 × 4." in page.words
    assert "row 1, column 2: 0.5" in page.words


def test_metrics_of_training_rows_come_with_a_warning() -> None:
    found = record(("no", "yes"))
    found["metrics"]["of"] = "training rows"
    assert "expect less on new ones" in Page(render(classifier(("no", "yes"), found), "chess/1")).words


def test_a_model_without_a_record_has_a_report(model: Model) -> None:
    page = Page(render(Model(model.network, model.signature), "chess/1"))
    assert "records no metrics" in page.words
    assert "Tanh" in page.words


WRONG = [None, 7, "x", [], {}, [1], {"a": 1}, True, 1e300, -5, [[[]]], {"rows": -1}, 10**400]


def spoiled(value: Any) -> Iterator[Any]:
    """The value with each of its places, in turn, left out or holding something else."""
    yield from WRONG
    if isinstance(value, dict):
        for key, part in value.items():
            yield {other: kept for other, kept in value.items() if other != key}
            yield from ({**value, key: other} for other in spoiled(part))
    elif isinstance(value, list) and value:
        yield from ([other, *value[1:]] for other in spoiled(value[0]))


@pytest.mark.slow
@pytest.mark.parametrize("model", [classifier(("no", "yes"), record(("no", "yes"))), regression()])
def test_a_record_of_another_form_costs_its_part_alone(model: Model) -> None:
    every = [found for found in spoiled(dict(model.training)) if isinstance(found, dict)]
    for found in random.Random(0).sample(every, 120):
        Page(render(Model(model.network, model.signature, training=found), "x/1"))


def test_an_importance_that_no_number_can_say_is_drawn_without_bars() -> None:
    """As training leaves it where the errors overflow."""
    found = record(("no", "yes"))
    parts = [{"name": name, "cost": None, "deviation": None} for name in ("size", "town")]
    found["diagnostics"]["importance"] |= {"score": None, "parts": parts}
    assert "What it relies on" in Page(render(classifier(("no", "yes"), found), "x/1")).words


def test_counts_of_rows_that_cannot_be_are_left_out() -> None:
    found = record(("no", "yes")) | {"split": {"training": 10**400, "validation": -1, "test": 90}}
    words = Page(render(classifier(("no", "yes"), found), "x/1")).words
    assert "90 test" in words
    assert "validation" not in words.partition("Provenance")[2].partition("The job")[0]


@pytest.mark.parametrize("wrong", [{"min": "x"}, {"deciles": [1]}, {"min": 5, "max": 1}, {"frequencies": 3}])
def test_statistics_of_another_form_are_left_out(wrong: dict[str, Any]) -> None:
    signature = Signature(
        (NumberColumn("a", statistics=wrong), CategoryColumn("b", ("x",), statistics=wrong)),
        RegressionOutput(("y",), (0.0,), (1.0,)),
    )
    Page(render(Model(Sequential([Linear(2, 1)]), signature), "x/1"))


def test_statistics_are_drawn() -> None:
    deciles = [float(i) for i in range(11)]
    number_of = {"count": 9, "missing": 0, "mean": 5.0, "std": 3.0, "min": 0.0, "max": 10.0, "deciles": deciles}
    frequencies = {"count": 4, "missing": 0, "frequencies": {"x": 3, "z": 1}}
    inputs = (NumberColumn("a", statistics=number_of), CategoryColumn("b", ("x", "z"), statistics=frequencies))
    page = Page(
        render(Model(Sequential([Linear(3, 1)]), Signature(inputs, RegressionOutput(("y",), (0.0,), (1.0,)))), "x/1")
    )
    assert "0 to 10, mean 5 ± 3" in page.words
    assert "x 75 %, z 25 %" in page.words
    assert page.count("svg") == 1


@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=20), st.booleans())
def test_an_axis_holds_its_values_and_has_few_ticks(values: list[float], tight: bool) -> None:
    found = axis("x", values, tight=tight)
    assert len(found.ticks) <= 9
    hair = (found.high - found.low) * 1e-6
    assert found.low - hair <= min(values) <= max(values) <= found.high + hair
    scale = found.scale(0, 100)
    assert all(math.isfinite(scale(value)) for value in [*values, *(location for location, _ in found.ticks)])


@given(st.lists(st.floats(1e-90, 1e90), min_size=1, max_size=20))
def test_a_logarithmic_axis_holds_its_values(values: list[float]) -> None:
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
def test_numbers_are_short_and_whole(value: float | None, shown: str) -> None:
    assert format_number(value) == shown


def test_years_are_written_as_years_on_axes_and_in_words() -> None:
    assert [name for _, name in axis("year", [2007, 2009]).ticks][::2] == ["2007.0", "2008.0", "2009.0"]
    assert [name for _, name in axis("year", [1950, 2020], whole=True).ticks][:2] == ["1940", "1960"]
    assert [name for _, name in axis("price", [0, 20_000], most=4).ticks] == ["0", "5000", "10,000", "15,000", "20,000"]
    assert format_number(2007) == format_number(2007.0) == "2007"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_can_be_shown(value: float) -> None:
    assert 0 < len(format_number(value)) <= 16


def test_text_is_escaped_and_markup_is_not() -> None:
    found = tag("p", "<b>", tag("b", "x"), class_='"&')
    assert found == '<p class="&quot;&amp;">&lt;b&gt;<b>x</b></p>'
    assert isinstance(found, Markup)
    assert cut("class number 17", 10) == "class … 17"


@pytest.mark.parametrize("losses", [[0.5], [1e-30, 1e30], [0.0, 0.0], [-1.0, 3.0], [1e100, -1e100], [5e-324, 1.0]])
def test_any_learning_curve_can_be_drawn(losses: list[float]) -> None:
    history = [{"epoch": i + 1, "loss": loss, "validation_loss": None} for i, loss in enumerate(losses)]
    drawn = charts.learning(history, 1)
    assert not re.search(r"\b(nan|inf)\b", drawn)
    Page(drawn)


def test_the_record_of_a_real_training_passes_its_own_check() -> None:
    found = Record.of(json.loads(json.dumps(record(("no", "yes")))))
    assert None not in (found.history, found.classification, found.baseline, found.calibration, found.importance)
    assert found.regression is None
    assert np.isclose(found.calibration["expected_error"], 0.05)  # type: ignore[index]
