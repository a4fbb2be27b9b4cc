"""Columns that determine the target are reported; columns that are only correlated are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.data.checks.leakage import MIN_ROWS, find_leakage
from training.pipeline.job import load, prepare

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 3, 400)
QUANTITY = RNG.standard_normal((400, 1)) * 3 + 10
NOISE = RNG.standard_normal(400)
WORDS = np.array(["no", "yes", "perhaps"], object)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("number", CLASSES * 10.0 + NOISE),
        ("folded", np.where(CLASSES == 1, NOISE, 50 + CLASSES + NOISE / 100)),
        ("text", WORDS[CLASSES]),
        ("missing", np.where(CLASSES == 2, np.nan, CLASSES * 10.0)),
        ("none", np.where(CLASSES == 2, None, WORDS[CLASSES])),
    ],
)  # fmt: skip
def test_a_column_that_determines_the_class_is_reported_with_a_fix(name: str, values: np.ndarray) -> None:
    (warning,) = find_leakage({"noise": NOISE, name: values}, CLASSES, True)
    assert warning.startswith(
        f"column {name} is suspiciously predictive: it alone predicts 100.0 % of the training rows"
    )
    assert "data.columns" in warning


@pytest.mark.parametrize("values", [QUANTITY[:, 0] * 1.2, np.exp(QUANTITY[:, 0] / 5), -QUANTITY[:, 0].round(2)])
def test_a_column_that_determines_the_quantity_is_reported(values: np.ndarray) -> None:
    (warning,) = find_leakage({"noise": NOISE, "taxed": values}, QUANTITY, False)
    assert warning.startswith("column taxed is suspiciously predictive: ")


def test_several_columns_that_determine_the_target_are_one_warning() -> None:
    columns = {"noise": NOISE, "number": CLASSES * 10.0 + NOISE, "text": WORDS[CLASSES]}
    (warning,) = find_leakage(columns, CLASSES, True)
    each = "predicts 100.0 % of the training rows"
    assert warning.startswith(f"suspiciously predictive columns, each alone: number {each}, text {each}. If their")


def test_columns_that_are_only_correlated_are_not_reported() -> None:
    helpful = {"number": CLASSES + NOISE, "constant": np.zeros(400), "text": WORDS[np.where(NOISE > 1, 0, CLASSES)]}
    assert find_leakage(helpful, CLASSES, True) == []
    assert find_leakage(helpful, np.sort(CLASSES), True) == []  # rows in order of their class
    assert find_leakage({"number": QUANTITY[:, 0] + NOISE / 5, "constant": np.ones(400)}, QUANTITY, False) == []


def test_few_rows_with_a_good_column_cause_no_leakage_warning() -> None:
    wrong = np.arange(150) % 25 == 0  # 6 of 100 that the most frequent class gets wrong, as in the irises
    classes = np.repeat([0, 1, 2], 50)
    assert find_leakage({"petal": np.where(wrong, (classes + 1) % 3, classes) * 1.0}, classes, True) == []


def test_a_rare_class_causes_no_leakage_warning() -> None:
    rare = np.zeros(400, np.int64)
    rare[7] = 1
    assert find_leakage({"noise": NOISE}, rare, True) == []


def test_few_rows_cause_no_leakage_warning() -> None:
    few = MIN_ROWS - 1
    assert find_leakage({"number": CLASSES[:few] * 1.0}, CLASSES[:few], True) == []


def test_images_are_not_checked_for_leakage() -> None:
    assert find_leakage({"image": np.zeros((400, 2, 2))}, CLASSES, True) == []


def test_the_job_warns_of_a_leaking_column(tmp_path: Path) -> None:
    table = "x,after,y\n" + "".join(f"{i * 7919 % 101},{'ab'[i % 2]}!,{'ab'[i % 2]}\n" for i in range(200))
    (tmp_path / "t.csv").write_text(table)
    (tmp_path / "t.toml").write_text('[model]\nname = "t"\n[data]\npath = "t.csv"\ntarget = "y"\n')
    notes = prepare(load(tmp_path / "t.toml")).notes
    assert [note.partition(" is ")[0] for note in notes if "suspicious" in note] == ["column after"]


def test_the_examples_have_no_leakage_warning(examples: Path) -> None:
    for path in sorted(examples.glob("*.toml")):
        job = load(path)
        if (job.folder / str(job.settings.data.path)).exists():
            assert not [note for note in prepare(job).notes if "suspicious" in note], path.name


def test_a_tenth_of_the_error_of_the_most_frequent_class_is_leakage() -> None:
    hint = np.where(RNG.random(400) < 0.03, NOISE, CLASSES * 10.0 + NOISE / 10)  # 3 % of the rows are wrong
    (warning,) = find_leakage({"hint": hint}, CLASSES, True)
    assert "100.0 %" not in warning
    assert find_leakage({"hint": np.where(RNG.random(400) < 0.3, NOISE, CLASSES * 10.0 + NOISE)}, CLASSES, True) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("level", np.array(["low", "mid", "high"], object)[np.digitize(QUANTITY[:, 0], [8, 12])]),
        ("bin", np.floor(QUANTITY[:, 0] / 4)),
        ("falling", -np.digitize(QUANTITY[:, 0], [7, 10, 13]) * 1.5),
        ("partly missing", np.where(NOISE > 1, np.nan, np.floor(QUANTITY[:, 0] / 4))),
        ("no text", np.where(NOISE > 1, None, np.array(["no", "yes"], object)[(QUANTITY[:, 0] > 10).astype(int)])),
    ],
)  # fmt: skip
def test_a_target_in_bins_is_reported(name: str, values: np.ndarray) -> None:
    (warning,) = find_leakage({"noise": NOISE, name: values}, QUANTITY, False)
    assert warning.startswith(f"column {name} is suspiciously predictive: it alone is ")
    assert "in bins" in warning or "in steps" in warning


def test_values_that_are_sorted_like_the_target_by_chance_are_not_bins() -> None:
    first = np.where(np.arange(400) == QUANTITY[:, 0].argmax(), "record", "other").astype(object)
    unique = np.array([f"id {i}" for i in range(400)], object)
    mixed = np.floor(QUANTITY[:, 0] / 4 + NOISE / 10)
    copies = np.tile(NOISE[:200], 2)  # of rows: equal values have equal targets, in no order
    assert find_leakage({"copies": copies}, np.tile(QUANTITY[:200], (2, 1)), False) == []
    assert find_leakage({"first": first, "unique": unique, "mixed": mixed, "one": np.zeros(400)}, QUANTITY, False) == []


def test_equal_targets_may_be_in_two_bins() -> None:
    rounded = QUANTITY.round()
    level = np.where(QUANTITY[:, 0] > 10.2, "high", "low").astype(object)  # splits the rows with a target of 10
    (warning,) = find_leakage({"level": level}, rounded, False)
    assert "in bins" in warning


def test_columns_that_add_up_to_the_target_are_reported_together() -> None:
    registered, casual = RNG.poisson(90.0, 400) * 1.0, RNG.poisson(30.0, 400) * 1.0
    inputs = {"noise": NOISE, "registered": registered, "copy": registered * 2, "casual": casual, "constant": NOISE * 0}
    (warning,) = find_leakage(inputs, (registered + casual)[:, None], False)
    assert warning.startswith("columns copy, casual add up to the target")
    assert find_leakage(inputs, (registered + casual + RNG.standard_normal(400))[:, None], False) == []
    products = {"width": registered, "height": casual}
    assert find_leakage(products, (registered * casual)[:, None], False) == []


def test_few_rows_for_each_column_do_not_add_up_to_the_target() -> None:
    many = {f"x{i}": RNG.standard_normal(60) for i in range(60)}
    assert find_leakage(many, RNG.standard_normal((60, 1)), False) == []
