"""The command `train sweep`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from model_store.artifact import npz
from model_store.evaluation.record import TrainingRecord
from tests.training.conftest import JOB

Train = Callable[..., Result]
SEARCH = """
[search]
trials = 5
[search.train]
learning_rate = { log_uniform = [0.01, 0.5] }
batch_size = { choice = [4, 8] }
"""


@pytest.fixture
def sweep_file(job_file: Path) -> Path:
    job_file.write_text(JOB + SEARCH, encoding="utf-8")
    return job_file


def test_a_sweep_prints_its_trials_and_publishes_the_best_settings(
    train: Train, sweep_file: Path, tmp_path: Path
) -> None:
    result = train("sweep", sweep_file)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "flowers: 40 rows (28 training, 4 validation, 8 test) of flowers.csv"
    assert lines[1] == (
        "search: 5 trials of 2 parameters, compared by the loss of the validation rows, lower is better; median pruning"
    )
    assert [line.split(":")[0] for line in lines if line.startswith("trial ") and ":" in line] == [
        f"trial {i}/5" for i in range(1, 6)
    ]
    assert f"study flowers in {tmp_path / 'flowers.study.journal'}" in lines
    assert "Published flowers, version 1" in result.output
    model = npz.read(tmp_path / "models" / "flowers" / "1.npz")
    record = TrainingRecord.parse(model.training).search
    assert record is not None
    assert record["complete"] + record["pruned"] == 5
    assert "search" not in model.training["job"]


def test_the_best_settings_are_an_ordinary_job(train: Train, sweep_file: Path, tmp_path: Path) -> None:
    """The printed command trains the same arrays."""
    result = json.loads(train("sweep", sweep_file, "--json").stdout)
    settings = [f"--set={key}={json.dumps(value)}" for key, value in result["best"]["settings"].items()]
    assert train(sweep_file, *settings).exit_code == 0
    swept, trained = (npz.read(tmp_path / "models" / "flowers" / f"{i}.npz") for i in (1, 2))
    for name, array in swept.network.arrays().items():
        assert array.tobytes() == trained.network.arrays()[name].tobytes()
    assert {**swept.training, "search": None} == {**trained.training, "search": None}


def test_the_best_settings_of_a_study_train_to_the_same_bytes(train: Train, sweep_file: Path, tmp_path: Path) -> None:
    for store in ("a", "b"):
        result = train("sweep", sweep_file, "--store", tmp_path / store)
        assert result.exit_code == 0, result.output
    files = [(tmp_path / store / "flowers" / "1.npz").read_bytes() for store in ("a", "b")]
    assert files[0] == files[1]


def test_a_finished_study_is_not_published_twice(train: Train, sweep_file: Path, tmp_path: Path) -> None:
    train("sweep", sweep_file)
    result = train("sweep", sweep_file)
    assert "continuing the study: 5 trials: " in result.output
    assert "Published before: flowers, version 1." in result.output
    assert not (tmp_path / "models" / "flowers" / "2.npz").exists()


def test_a_sweep_that_publishes_nothing(train: Train, sweep_file: Path, tmp_path: Path) -> None:
    result = json.loads(train("sweep", sweep_file, "--no-publish", "--json", "--set", "search.trials=3").stdout)
    assert result["model"] is None
    assert len(result["trials"]) == 3
    assert not (tmp_path / "models").exists()


def test_a_job_without_a_search_is_an_error(train: Train, job_file: Path) -> None:
    result = train("sweep", job_file)
    assert result.exit_code == 2
    assert "search: missing; expected what to search (write [search.train]" in result.output


def test_a_study_of_another_job_is_an_error(train: Train, sweep_file: Path) -> None:
    train("sweep", sweep_file, "--no-publish")
    result = train("sweep", sweep_file, "--set", "train.epochs=2")
    assert result.exit_code == 2
    assert "job.train.epochs: expected 3, as when the study began; found 2" in result.output


def test_train_ignores_the_search(train: Train, sweep_file: Path, tmp_path: Path) -> None:
    train(sweep_file)
    sweep_file.write_text(JOB, encoding="utf-8")
    train(sweep_file)
    first, second = ((tmp_path / "models" / "flowers" / f"{i}.npz").read_bytes() for i in (1, 2))
    assert first == second


def test_without_the_extra_a_sweep_names_the_packages_to_install(
    train: Train, sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("training.sweep.") and "errors" not in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = train("sweep", sweep_file)
    assert result.exit_code == 2
    assert "a sweep needs optuna; install it with: pip install 'optuna>=5' 'psycopg[binary]>=3.3'" in result.output


def test_other_commands_do_not_import_the_packages_of_sweeps() -> None:
    code = "import sys, training.cli.main; print({'optuna', 'psycopg', 'sqlalchemy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
