"""Cross-validation: every row is tested once, and the table summarizes the folds."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from training.data import loading
from training.data.splitting import Fold
from training.pipeline import job as jobs
from training.pipeline.cross_validation import cross_validate, headline_metrics, summarize_folds

Train = Callable[..., Result]


def test_every_row_is_tested_once_and_the_summary_is_over_the_folds(job_file: Path) -> None:
    seen: list[int] = []
    outcomes = cross_validate(jobs.load(job_file), 4, lambda fold, outcome: seen.append(fold.number))
    assert seen == [1, 2, 3, 4]
    assert sum(outcome.metrics["rows"] for outcome in outcomes) == 40
    accuracies = [outcome.metrics["accuracy"] for outcome in outcomes]
    found = summarize_folds(outcomes)
    assert list(found) == ["accuracy", "macro f1", "baseline accuracy"]
    assert found["accuracy"] == {
        "mean": pytest.approx(statistics.fmean(accuracies)),
        "sd": pytest.approx(np.std(accuracies, ddof=1)),
        "min": min(accuracies),
        "max": max(accuracies),
    }


def test_the_data_is_read_once_and_no_diagnostics_are_computed(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    load = loading.load
    monkeypatch.setattr(
        loading, "load", lambda section, folder, *more: read.append(folder) or load(section, folder, *more)
    )
    monkeypatch.delattr(jobs, "diagnose")
    cross_validate(jobs.load(job_file), 4)
    assert read == [job_file.parent]


def test_the_test_rows_of_the_folds_partition_the_rows(job_file: Path) -> None:
    job = jobs.load(job_file)
    held = [jobs.prepare(job, Fold(number, 4)).split.test for number in (1, 2, 3, 4)]
    assert sorted(np.concatenate(held).tolist()) == list(range(40))


def test_a_regression_has_metrics_for_each_target() -> None:
    def row(rmse: float, r2: float | None) -> dict[str, float | None]:
        return {"rmse": rmse, "mae": 1.0, "r2": r2}

    one = headline_metrics({"targets": {"a": row(2, 0.5)}}, {"targets": {"a": row(4, 0)}})
    assert one == {"rmse": 2, "mae": 1, "r2": 0.5, "baseline rmse": 4}
    both = {"a": row(2, 0.5), "b": row(3, None)}
    assert headline_metrics({"targets": both}, {"targets": both})["b r2"] is None


def test_the_command_prints_a_line_per_fold_and_a_table_and_publishes_nothing(train: Train, job_file: Path) -> None:
    found = train(job_file, "--folds", 3)
    assert found.exit_code == 0, found.output
    for words in ("fold 1/3: 3 epochs, accuracy", "fold 3/3", "over 3 folds", "mean ± sd", "baseline accuracy", " ± "):
        assert words in found.stdout
    assert not (job_file.parent / "models").exists()
    as_data = json.loads(train(job_file, "--folds", 3, "--json").stdout)
    assert len(as_data["folds"]) == 3
    assert as_data["summary"]["accuracy"]["mean"] == pytest.approx(
        statistics.fmean(fold["accuracy"] for fold in as_data["folds"])
    )


@pytest.mark.parametrize("flags", [("--folds", 3, "--resume"), ("--find-rate", "--folds", 3), ("--folds", 1)])
def test_conflicting_options_are_usage_errors(train: Train, job_file: Path, flags: tuple[object, ...]) -> None:
    assert train(job_file, *flags).exit_code == 2


def test_faults_of_later_folds_are_reported_before_the_first_is_trained(train: Train, job_file: Path) -> None:
    found = train(job_file, "--folds", 41)
    assert (found.exit_code, found.stdout) == (3, "")
    assert "folds: expected at most 40 folds, as there are 40 rows, found 41 (use 40 folds or fewer)" in found.stderr


def test_folds_train_on_a_class_and_a_category_of_a_single_row(train: Train, job_file: Path) -> None:
    table = job_file.parent / "flowers.csv"
    table.write_text(table.read_text() + "3.5,ultraviolet,tulip\n")
    found = train(job_file, "--folds", 3)
    assert (found.exit_code, found.stderr) == (0, "")


def test_errors_of_folds_are_shown_with_suitable_digits(train: Train, job_file: Path) -> None:
    for unit, expected in ((1e6, r"rmse +\d[\d,]* ± [\d,.]+ "), (1e-6, r"rmse +[\d.]+ × 10⁻\S+ ± ")):
        lines = [f"{i},{(i % 7) * unit!r}" for i in range(60)]
        (job_file.parent / "flowers.csv").write_text("\n".join(["length,kind", *lines]))
        found = train(job_file, "--folds", 3, "--set", "data.task=regression")
        assert re.search(expected, found.stdout), found.output
