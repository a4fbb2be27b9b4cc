"""The model card: facts of the record with intervals, and text that is nothing but text in Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from model_store.artifact.model import Model
from model_store.report.card_markdown import escape, render_card
from model_store.report.model_card import make_card
from model_store.utils.printable import printable
from tests.model_store.report.examples import classifier, record, regression

FACTS: dict[str, Any] = {
    "digest": "ab" * 32,
    "published": {
        "who": "ada", "when": "2026-01-02T03:04:05+00:00", "recorded": True,
        "copies": [{"source": "./models/chess/3", "who": "bob", "when": "2026-01-05T09:00:00+00:00"}],
    },
    "aliases": ["default"],
    "signed_by": ["release"],
    "bytes": 12_345,
}  # fmt: skip


def card_and_markdown(model: Model) -> tuple[dict[str, Any], str]:
    card = make_card(model, "chess", 3, FACTS)
    json.dumps(card, allow_nan=False)
    return card, render_card(card, model.signature.inputs)


def test_a_classifier_has_metrics_with_intervals_by_class_and_by_group() -> None:
    card, markdown = card_and_markdown(classifier(("no", "yes"), record(("no", "yes"))))
    accuracy = card["metrics"]["values"][0]
    assert accuracy["metric"] == "accuracy"
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert {one["metric"] for one in card["metrics"]["values"]} == {
        "accuracy",
        "log_loss",
        "calibration_error",
        "roc_auc",
    }
    analyses = card["quantitative_analyses"]
    assert set(analyses["by_label"]) == {"no", "yes"}
    assert analyses["by_group"][0]["column"] == "town"
    for words in ("### By label", "### By town", "| Bath | 60 | 90.0 % | 80.0 % |", "| missing | 10 | 50.0 % | – |"):
        assert words in markdown
    assert "| town missing and size 1 to 4 | 10 | 50.0 % | 10.0 % | below 0.0001 |" in markdown
    for words in ("- **Aliases:** default", "- **Signed by:** release", "from ./models/chess/3 by bob", "12,345 bytes"):
        assert words in markdown


def test_a_regression_has_metrics_by_target_and_the_baseline() -> None:
    card, markdown = card_and_markdown(regression(("price", "area")))
    assert [(one["metric"], one["target"]) for one in card["metrics"]["values"]][:4] == [
        ("rmse", "price"), ("mae", "price"), ("r2", "price"), ("rmse", "area"),
    ]  # fmt: skip
    assert "| RMSE of price | 1.25 |" in markdown
    assert "- **Baseline without inputs:** RMSE of price 5, MAE of price 1" in markdown


def test_threshold_temperature_and_coverage_are_among_the_metrics() -> None:
    found = record(("no", "yes"))
    found["threshold"] = {"value": 0.3, "by": "f1", "score": 0.8, "rows": 40}
    found["temperature"] = {"value": 1.5, "rows": 40, "log_loss": {"before": 0.4, "after": 0.35}}
    levels = [{"level": level, "covered": level + 0.01, "size": 1.2} for level in (0.8, 0.9)]
    found["coverage"] = {"rows": 100, "calibration_rows": 50, "method": "aps", "levels": levels}
    model = classifier(("no", "yes"), found)
    output = replace(model.signature.output, threshold=0.3)
    card, markdown = card_and_markdown(
        Model(model.network, replace(model.signature, output=output), training=model.training)
    )
    assert card["metrics"]["threshold"] == 0.3
    assert card["metrics"]["temperature"]["value"] == 1.5
    assert [one["level"] for one in card["metrics"]["coverage"]["levels"]] == [0.8, 0.9]
    for words in (
        "- **Decision threshold:** 0.3\n- **Choice of the threshold, value:** 0.3\n",
        "- **Choice of the threshold, by:** f1",
        "- **Temperature:** 1.5, which changes the log loss of 40 validation rows from 0.4 to 0.35",
        "The sets of labels (aps, 50 calibration rows) hold the truth of so many of 100 evaluation rows:",
        "| 90.0 % | 91.0 % | 83.8 % to 95.2 % | 1.2 |",
    ):
        assert words in markdown


def test_a_record_of_another_form_shows_its_numbers() -> None:
    model = regression()
    imported = {"format": "scikit-learn", "file": "a.skops"}
    training = {"metrics": {"accuracy": 0.85, "by": {"x": 2}, "of": "x"}, "import": imported}
    card, markdown = card_and_markdown(Model(model.network, model.signature, training=training))
    assert card["metrics"]["values"] == [{"metric": "accuracy", "value": 0.85}, {"metric": "by.x", "value": 2}]
    assert card["model_details"]["import"] == imported
    assert "| accuracy | 85.0 % |  |" in markdown
    assert "- **Imported, format:** scikit-learn" in markdown
    assert "No metrics by class or by group are recorded." in markdown


@pytest.mark.parametrize("value", [0, [], {"a": {}}, {"sha256": [1, {"b": []}]}, "x", None])
def test_records_of_any_form_have_a_card(value: Any) -> None:
    model = regression()
    for key in (
        "metrics",
        "diagnostics",
        "data",
        "split",
        "job",
        "import",
        "notes",
        "history",
        "threshold",
        "coverage",
    ):
        card_and_markdown(Model(model.network, model.signature, training={**model.training, key: value}))


@given(st.text(max_size=60) | st.text("`*_[]()<>!|~#&\\ \n:/w.@ab$", max_size=30))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    shown = escape(text)
    assert "\n" not in shown
    parser = MarkdownIt("gfm-like", {"linkify": False})
    listed = [inner for token in parser.parse(f"- **Name:** {shown}") for inner in (token.children or ())]
    assert {token.type for token in listed} <= {"text", "strong_open", "strong_close"}
    assert "".join(token.content for token in listed).strip() == f"Name: {printable(' '.join(text.split()))}".strip()
    table = parser.parse(f"| a | b |\n| --- | --- |\n| {shown} | x |")
    assert len([token for token in table if token.type == "td_open"]) == 2
    assert {inner.type for token in table for inner in (token.children or ())} <= {"text"}
