"""Columns that determine the target are reported; columns that are only correlated are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.data.leakage_checks import MIN_ROWS, find_channels_first, find_leakage, find_untested_classes
from training.pipeline.job import from_dict, load, prepare

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
        f"column {name} is suspiciously predictive: it alone predicts 100.0% of the training rows"
    )
    assert "data.columns" in warning


@pytest.mark.parametrize("values", [QUANTITY[:, 0] * 1.2, np.exp(QUANTITY[:, 0] / 5), -QUANTITY[:, 0].round(2)])
def test_a_column_that_determines_the_quantity_is_reported(values: np.ndarray) -> None:
    (warning,) = find_leakage({"noise": NOISE, "taxed": values}, QUANTITY, False)
    assert warning.startswith("column taxed is suspiciously predictive: ")


def test_columns_that_are_only_correlated_are_not_reported() -> None:
    helpful = {"number": CLASSES + NOISE, "constant": np.zeros(400), "text": WORDS[np.where(NOISE > 1.5, 0, CLASSES)]}
    assert find_leakage(helpful, CLASSES, True) == []
    assert find_leakage(helpful, np.sort(CLASSES), True) == []  # rows in order of their class
    assert find_leakage({"number": QUANTITY[:, 0] + NOISE / 5, "constant": np.ones(400)}, QUANTITY, False) == []


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


def test_classes_without_a_test_row_are_reported() -> None:
    (note,) = find_untested_classes(["a", "b"], np.zeros(9, np.int64))
    assert note.startswith("class 'b' has no test row: the metrics do not cover it")
    (note,) = find_untested_classes(range(9), np.array([0, 1]))
    assert note.startswith("7 classes have no test row (2, 3, 4, 5, 6, ...)")
    assert find_untested_classes(["a", "b"], np.array([0, 1])) == []
    assert find_untested_classes(["a", "b"], np.empty(0, np.int64)) == []


def test_images_for_convolutions_with_channels_first_are_reported(tmp_path: Path) -> None:
    x, y = np.zeros((40, 3, 8, 9), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "t.npz", x=x + y[:, None, None, None].astype(np.uint8), y=y)
    content = {"model": {"name": "m"}, "data": {"path": "t.npz"}, "network": {"layers": [{"conv": 2}]}}
    notes = prepare(from_dict(content, tmp_path)).notes
    assert any(note.startswith("images are read as 3 high and 8 wide with 9 channels; if the ch") for note in notes)
    assert [find_channels_first(shape) for shape in ((8, 9, 3), (28, 28, 1), (3, 28, 1), (3, 4, 4), (12,))] == [[]] * 5
