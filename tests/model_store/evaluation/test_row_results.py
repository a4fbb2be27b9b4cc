"""Results of rows: their form in the manifest, its limits, and invalid ones, which count as missing."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.evaluation.row_results import MAX_CLASSIFIED_ROWS, MAX_ERRORS, RowResults, rows_digest

DIGEST = "ab" * 32


def record(results: RowResults, rows: int, accuracy: float = 0.0) -> dict[str, Any]:
    return {"metrics": {"rows": rows, "accuracy": accuracy}, "held_out": results.as_json()}


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_are_read_as_they_were_written(correct: list[bool]) -> None:
    bits = np.array(correct)
    found = RowResults.parse(record(RowResults.of_classes(DIGEST, bits), len(bits), float(bits.mean())))
    assert found is not None
    assert found.correct is not None
    assert found.correct.tolist() == correct
    assert found.sha256 == DIGEST


def test_the_form_of_bits_and_errors_is_stable() -> None:
    assert RowResults.of_classes(DIGEST, np.array([True, False, True] + [False] * 6)).as_json() == {
        "sha256": DIGEST,
        "correct": "oAA=",
    }
    found = RowResults.of_targets(DIGEST, ["y"], np.arange(-5.0, 5).reshape(-1, 1)).as_json()
    assert np.frombuffer(base64.b64decode(found["absolute_errors"]["y"]), "<f4").tolist() == [
        5,
        4,
        3,
        2,
        1,
        0,
        1,
        2,
        3,
        4,
    ]


def test_results_have_a_limited_size() -> None:
    most = RowResults.of_classes(DIGEST, np.ones(MAX_CLASSIFIED_ROWS, bool)).as_json()
    assert len(most["correct"]) < 34_000
    assert RowResults.of_classes(DIGEST, np.ones(MAX_CLASSIFIED_ROWS + 1, bool)).as_json() == {"sha256": DIGEST}
    errors = RowResults.of_targets(DIGEST, ["a", "b"], np.arange(40_000.0).reshape(-1, 2)).absolute_errors
    assert errors is not None
    assert len(errors["a"]) + len(errors["b"]) == MAX_ERRORS
    assert errors["a"][:3].tolist() == [0, 18, 38]  # evenly spaced rows
    assert RowResults.of_targets(DIGEST, ["y"], np.ones((9, 1))).absolute_errors is None
    assert RowResults.of_targets(DIGEST, ["y"], np.full((20, 1), 1e300)).absolute_errors is None


def errors_as_text(*values: float, size: int = 10) -> str:
    return base64.b64encode(np.array([*values] * size, "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    "held_out",
    [
        None,
        [],
        {},
        {"sha256": "xy"},
        {"sha256": 7, "correct": "gA=="},
        {"sha256": DIGEST, "correct": 7},
        {"sha256": DIGEST, "correct": "g\u0142=="},
        {"sha256": DIGEST, "correct": "AA=="},  # another number of correct rows than the accuracy says
        {"sha256": DIGEST, "correct": ""},
        {"sha256": DIGEST, "correct": "gA" * 50_000},
        {"sha256": DIGEST, "absolute_errors": []},
        {"sha256": DIGEST, "absolute_errors": {}},
        {"sha256": DIGEST, "absolute_errors": {"y": "AAA="}},
        {"sha256": DIGEST, "absolute_errors": {"y": errors_as_text(float("nan"))}},
        {"sha256": DIGEST, "absolute_errors": {"y": errors_as_text(-1.0)}},
        {"sha256": DIGEST, "absolute_errors": {"y": errors_as_text(1.0, size=5000)}},
        {"sha256": DIGEST, "absolute_errors": {"y": errors_as_text(1.0), "z": errors_as_text(1.0, size=11)}},
    ],
)
def test_invalid_results_count_as_missing(held_out: Any) -> None:
    assert RowResults.parse({"metrics": {"rows": 3, "accuracy": 1 / 3}, "held_out": held_out}) is None


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        {},
        {"rows": 0},
        {"rows": 3},
        {"rows": 3, "accuracy": float("inf")},
        {"rows": 10**30, "accuracy": 0.5},
        {"rows": 3, "accuracy": "x"},
    ],
)
def test_results_without_valid_metrics_count_as_missing(metrics: Any) -> None:
    assert RowResults.parse({"metrics": metrics, "held_out": {"sha256": DIGEST, "correct": "gA=="}}) is None


def test_the_digest_is_of_file_target_labels_and_rows() -> None:
    rows = np.array([3, 5, 9])
    same = rows_digest(DIGEST, ["y"], ["a", "b"], "line", rows)
    assert same == rows_digest(DIGEST, ["y"], ["a", "b"], "line", rows.tolist())
    assert same not in {
        rows_digest("cd" * 32, ["y"], ["a", "b"], "line", rows),
        rows_digest(DIGEST, ["z"], ["a", "b"], "line", rows),
        rows_digest(DIGEST, ["y"], ["a", "c"], "line", rows),
        rows_digest(DIGEST, ["y"], ["a", "b"], "row", rows),
        rows_digest(DIGEST, ["y"], ["a", "b"], "line", rows[::-1]),
    }


@pytest.mark.parametrize(("rmse", "rows", "size", "valid"), [(2, 10, 10, True), (3, 10, 10, False), (2, 9, 9, False)])
def test_errors_must_be_those_of_the_rmse(rmse: float, rows: int, size: int, valid: bool) -> None:
    metrics = {"rows": rows, "targets": {"y": {"rmse": rmse}}}
    errors = {"y": errors_as_text(2.0, size=size)}
    found = RowResults.parse({"metrics": metrics, "held_out": {"sha256": DIGEST, "absolute_errors": errors}})
    assert (found is not None) == valid


def test_errors_of_some_rows_are_not_held_against_the_rmse_of_all() -> None:
    metrics = {"rows": 1000, "targets": {"y": {"rmse": 3.0}}}
    errors = {"y": errors_as_text(2.0, size=10)}
    assert RowResults.parse({"metrics": metrics, "held_out": {"sha256": DIGEST, "absolute_errors": errors}})
