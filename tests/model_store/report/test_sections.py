"""The sections of a report for models of every kind, hostile names and invalid records."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_store.artifact.model import Model
from model_store.evaluation.record import TrainingRecord
from model_store.nn import Linear, Sequential, Sigmoid
from model_store.report.diagnostic_sections import error_slices, weak_spots
from model_store.report.page import render
from model_store.schema.columns import DateColumn
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from tests.model_store.report.examples import EVIL, Page, classifier, record, regression


def test_the_report_of_a_classifier_has_every_section() -> None:
    page = Page(render(classifier(("no", "yes"), record(("no", "yes"))), "chess/3", "ab" * 32))
    for words in (
        "chess",
        "version 3",
        "Accuracy 80.0 % on 90 test rows (95 % interval 70.6 to 87.0 %). ",
        "Baseline: 40.0 %, always predicting “no”.",
        "Learning curves",
        "Lowest validation loss: ",
        "The model has the weights of epoch 20.",
        "Confusion matrix",
        "Metrics by class",
        "Most frequent mistakes",
        "Expected calibration error: 5.0 %. Log loss: 0.3.",
        "ROC curve",
        "A linear model of the same columns: 70.0 %.",
        "AUC 0.910",
        "Average precision: 0.620; of random flags: 0.500 (dashed).",
        "missed : false alarm",
        "1 : 2",
        "Without shuffling the log loss is 0.3.",
        "town Bath, 60 rows: 10.0 %, 5.0 % to 20.0 %",
        "3 others",
        "line 17",
        "ab" * 32,
        "early_stopping = { patience = 3 }",
    ):
        assert words in page.words
    assert page.count("svg") == 7


def test_the_report_of_a_regression_has_every_section() -> None:
    page = Page(render(regression(), "houses/1"))
    assert "RMSE of price: 1.25 (baseline 5, always predicting the mean)." in page.words
    assert "Median absolute error: 1. 90 % of the absolute errors are at most 2." in page.words
    assert "Mean error (bias): −0.5." in page.words
    assert "2 more targets are not shown." in page.words
    assert "A linear model of the same columns: 2.5." in page.words
    assert "size 5, 20 rows, bias 0.5: 1.5, 1.3 to 1.7" in page.words
    assert "−7.5" in page.words
    assert page.count("svg") == 3


@pytest.mark.parametrize(("measure", "title"), [("accuracy", "Loss of accuracy, in points"), ("rmse", "RMSE")])
def test_a_report_shows_the_importance_that_older_releases_recorded(measure: str, title: str) -> None:
    found = record(("no", "yes"))
    parts = [{"name": "size", "cost": 0.3, "deviation": 0.02}]
    found["diagnostics"]["importance"] |= {"measure": measure, "parts": parts}
    words = Page(render(classifier(("no", "yes"), found), "chess/3")).words
    assert title in words
    assert "The lines are one standard deviation over the shuffles." in words


def test_a_report_has_no_external_resources_and_no_script_but_the_form() -> None:
    text = render(classifier(("no", "yes"), record(("no", "yes"))), "chess/3")
    page = Page(text)
    assert {name for name, _ in page.tags} & {"img", "link", "iframe", "object", "image", "use"} == set()
    assert not re.search(r"https?:|url\(|@import|\bon\w+=", text)
    (policy,) = [found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    (program,) = re.findall(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    assert page.count("script") == 1
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert policy.endswith(f"; script-src 'sha256-{digest}'")


def test_a_report_of_a_large_model_has_no_form() -> None:
    signature = Signature(tuple(NumberColumn(f"c{i}") for i in range(90)), RegressionOutput(("y",), (0.0,), (1.0,)))
    text = render(Model(Sequential([Linear(90, 3000), Linear(3000, 1)]), signature), "wide/1")
    assert Page(text).count("script") == 0
    assert "script-src" not in text


def test_the_same_model_gives_the_same_report() -> None:
    model = classifier(("no", "yes"), record(("no", "yes")))
    assert render(model, "chess/3") == render(model, "chess/3")


def test_hostile_names_are_escaped() -> None:
    found = record((EVIL, "yes"))
    found["job"]["data"] = {EVIL: EVIL, "path": EVIL}
    found["diagnostics"]["roc"]["of"] = found["diagnostics"]["calibration"]["of"] = EVIL
    found["diagnostics"]["importance"]["parts"][0]["name"] = EVIL
    found["metrics"]["of"] = found["baseline"]["answer"] = EVIL
    model = classifier((EVIL, "yes"), found, EVIL, description=EVIL)
    text = render(model, EVIL)
    page = Page(text)
    names = ("a name that does not fit", "yes")
    expected = Page(render(classifier(names, record(names)), "chess/3"))
    assert {name for name, _ in page.tags} == {name for name, _ in expected.tags}
    assert {key for _, found in page.tags for key in found} <= {key for _, found in expected.tags for key in found}
    assert "alert(1)" in page.words
    assert not set("\u202e\x00") & set(text)


def test_hostile_target_names_are_escaped() -> None:
    page = Page(render(regression((EVIL, "b")), "houses/1"))
    assert {name for name, _ in page.tags} == {name for name, _ in Page(render(regression(), "houses/1")).tags}


@pytest.mark.parametrize("labels", [11, 40, 100])
def test_of_many_classes_those_with_the_most_errors_are_shown(labels: int) -> None:
    names = tuple(f"class number {i}" for i in range(labels))
    text = render(classifier(names, record(names, 1000)), "many/1")
    page = Page(text)
    assert ("30 of 100 classes" in page.words) == (labels == 100)
    assert len(text) < 400_000


@pytest.mark.slow
def test_the_report_of_thousands_of_classes_has_no_matrix() -> None:
    names = tuple(range(3000))
    found = record(names, 6000)
    del found["metrics"]["confusion"]
    text = render(classifier(names, found), "words/1")
    assert "Only the 30 of 3000 classes with the lowest F1 are shown." in Page(text).words
    assert "Confusion matrix" not in text
    assert len(text) < 200_000


def test_of_many_columns_the_first_60_are_shown() -> None:
    signature = Signature(tuple(NumberColumn(f"c{i}") for i in range(200)), RegressionOutput(("y",), (0.0,), (1.0,)))
    page = Page(render(Model(Sequential([Linear(200, 1)]), signature), "wide/1"))
    assert "140 more columns are not shown." in page.words


def test_an_image_has_a_heatmap_of_its_patches() -> None:
    parts = [{"name": f"row {i // 3}, column {i % 3}", "cost": i / 10, "deviation": 0.0} for i in range(6)]
    importance = {"measure": "log_loss", "score": 0.1, "rows": 9, "repeats": 1, "grid": [2, 3], "patch": [4, 4]}
    training = {"diagnostics": {"importance": {**importance, "parts": parts}}}
    signature = Signature((ArrayColumn("image", (8, 12)),), ClassificationOutput("digit", (0, 1)))
    page = Page(render(Model(Sequential([Linear(96, 1), Sigmoid()]), signature, training=training), "digits/1"))
    assert "when a patch of 4 × 4 pixels is shuffled among 9 rows (one shuffle)." in page.words
    assert "row 1, column 2: 0.5" in page.words


def test_metrics_of_training_rows_come_with_a_warning() -> None:
    found = record(("no", "yes"))
    found["metrics"]["of"] = "training rows"
    assert "expect worse results on new rows" in Page(render(classifier(("no", "yes"), found), "chess/1")).words


def test_a_model_without_a_record_has_a_report(model: Model) -> None:
    page = Page(render(Model(model.network, model.signature), "chess/1"))
    assert "has no metrics" in page.words
    assert "Tanh" in page.words


WRONG = [None, 7, "x", [], {}, [1], {"a": 1}, True, 1e300, -5, [[[]]], {"rows": -1}, 10**400]


def spoiled(value: Any) -> Iterator[Any]:
    """Yield the value with each of its parts, in turn, removed or replaced by something else."""
    yield from WRONG
    if isinstance(value, dict):
        for key, part in value.items():
            yield {other: kept for other, kept in value.items() if other != key}
            yield from ({**value, key: other} for other in spoiled(part))
    elif isinstance(value, list) and value:
        yield from ([other, *value[1:]] for other in spoiled(value[0]))


@pytest.mark.slow
@pytest.mark.parametrize("model", [classifier(("no", "yes"), record(("no", "yes"))), regression()])
def test_an_invalid_record_removes_only_its_section(model: Model) -> None:
    every = [found for found in spoiled(dict(model.training)) if isinstance(found, dict)]
    for found in random.Random(0).sample(every, 120):
        Page(render(Model(model.network, model.signature, training=found), "x/1"))


def test_an_overflowing_importance_has_no_bars() -> None:
    """Training records None if the errors overflow."""
    found = record(("no", "yes"))
    parts = [{"name": name, "cost": None, "low": None, "high": None} for name in ("size", "town")]
    found["diagnostics"]["importance"] |= {"score": None, "parts": parts}
    assert "Permutation importance" in Page(render(classifier(("no", "yes"), found), "x/1")).words


def test_impossible_row_counts_are_left_out() -> None:
    found = record(("no", "yes")) | {"split": {"training": 10**400, "validation": -1, "test": 90}}
    words = Page(render(classifier(("no", "yes"), found), "x/1")).words
    assert "90 test" in words
    assert "validation" not in words.partition("Provenance")[2].partition("Job file")[0]


@pytest.mark.parametrize("wrong", [{"min": "x"}, {"deciles": [1]}, {"min": 5, "max": 1}, {"frequencies": 3}])
def test_invalid_statistics_are_left_out(wrong: dict[str, Any]) -> None:
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


def test_the_record_of_a_training_is_valid() -> None:
    found = TrainingRecord.parse(json.loads(json.dumps(record(("no", "yes")))))
    everything = vars(found) | {"multi_label": {}, "label_roc": {}, "regression": {}, "residuals": {}, "search": {}}
    everything |= {"uncalibrated": {}, "temperature": {}, "threshold": {}, "coverage": {}}  # of jobs that have them
    assert None not in everything.values()
    assert found.regression is None
    assert np.isclose(found.calibration["expected_error"], 0.05)  # type: ignore[index]


def test_slices_of_dates_are_dates() -> None:
    """They were seconds since 1970, such as 1.609 × 10⁹, over the bars."""
    model = regression()
    for cycles, low, high in (((), "1970-01-01", "1970-01-03"), (("day",), "1970-01-01 00:01", "1970-01-03")):
        column = DateColumn("size", 0.0, 1.0, cycles=cycles)
        (found,) = model.training["diagnostics"]["slices"]["columns"]
        found["slices"][0] |= {"low": 60.0, "high": 172_800.0}
        signature = replace(model.signature, inputs=(column,))
        dated = Model(Sequential([Linear(signature.width, 1)]), signature, training=model.training)
        section = error_slices(dated, TrainingRecord.parse(dated.training))
        assert f"size {low} to {high}, 20 rows" in str(section)


def test_slices_without_a_value_are_left_out() -> None:
    """One of a column of dates ended the report with a TypeError."""
    model = regression()
    (found,) = model.training["diagnostics"]["slices"]["columns"]
    for key in ("value", "low", "high", "others", "missing"):
        found["slices"][0].pop(key, None)
    assert TrainingRecord.parse(model.training).slices is None


def test_a_report_says_in_how_many_columns_slices_were_looked_for() -> None:
    model = regression()
    assert "were examined" not in str(error_slices(model, TrainingRecord.parse(model.training)))
    columns = tuple(NumberColumn(f"x{i}") for i in range(51))
    signature = replace(model.signature, inputs=columns)
    wide = Model(Sequential([Linear(signature.width, 1)]), signature, training=model.training)
    section = str(error_slices(wide, TrainingRecord.parse(wide.training)))
    assert "Of the columns, the 50 most important were examined." in section


def test_a_slice_of_one_other_category_is_singular() -> None:
    model = regression()
    (found,) = model.training["diagnostics"]["slices"]["columns"]
    found["slices"][1] = {"others": 1, "rows": 20, "error": {"value": 1.5, "low": 1.3, "high": 1.7}}
    section = error_slices(model, TrainingRecord.parse(model.training))
    assert "size 1 other, 20 rows" in str(section)


def test_weak_spots_are_a_table_or_a_note_that_none_was_found() -> None:
    found = record(("no", "yes"))
    model = classifier(("no", "yes"), found)
    section = str(weak_spots(model, TrainingRecord.parse(found)))
    for words in ("town missing and size 1 to 4", ">50.0 %<", ">10.0 %<", "below 0.0001", "Tried: 12 slices"):
        assert words in section
    found["diagnostics"]["weak_spots"]["spots"] = []
    assert "None: in no slice" in str(weak_spots(model, TrainingRecord.parse(found)))
    for key, value in (("test", "t"), ("p", 2), ("tried", -1), ("measure", "x")):
        hostile = {"measure": "mae", "test": "rank_sum", "rows": 90, "tried": 12, "spots": [], key: value}
        if key == "p":
            hostile["spots"] = [
                {"where": [{"column": "a", "value": "b"}], "rows": 1, "error": 1, "elsewhere": 1, "p": 2}
            ]
        found["diagnostics"]["weak_spots"] = hostile
        assert weak_spots(model, TrainingRecord.parse(found)) is None


@pytest.mark.parametrize("wrap", [lambda value: {"a": value}, lambda value: [value]])
def test_a_deeply_nested_job_is_cut(wrap: Callable[[Any], Any]) -> None:
    found = record(("no", "yes"))
    value: Any = "innermost"
    for _ in range(900):
        value = wrap(value)
    found["job"]["data"] = {"path": value}
    page = Page(render(classifier(("no", "yes"), found), "chess/3", None))
    assert '"..."' in page.words
    assert "innermost" not in page.words
