"""`train`: what it prints, and the report it writes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from model_store.cli.main import main as models
from model_store.errors import StoreError
from model_store.registry.store import Store, open_store
from service.app import create_app
from service.config import Settings

Train = Callable[..., Result]


def store(job_file: Path) -> Path:
    return job_file.parent / "models"


def test_models_report_writes_the_same_report_as_training(train: Train, job_file: Path) -> None:
    rows = "".join(f"{i},{i % 7},{-i}\n" for i in range(40))
    job_file.with_suffix(".csv").write_text(f"a,up,down\n{rows}", encoding="utf-8")
    job_file.write_text(
        '[model]\nname = "lift"\n[data]\npath = "flowers.csv"\ntask = "regression"\ntarget = ["up", "down"]\n'
    )
    assert train(job_file, "--set", "train.epochs=1").exit_code == 0
    again = CliRunner().invoke(models, ["report", "lift", "-o", "-", "--store", str(store(job_file))])
    assert again.stdout == (store(job_file) / "lift" / "1.html").read_text(encoding="utf-8")
    assert again.stdout.index("up: residuals") < again.stdout.index("down: residuals")


def test_output_has_metrics_baseline_published_version_and_commands(train: Train, job_file: Path) -> None:
    found = train(job_file)
    assert found.exit_code == 0, found.output
    for words in (
        "flowers: 40 rows (28 training, 4 validation, 8 test) of flowers.csv",
        "note: task: classification, inferred from the target",
        "precision",
        "recall",
        "Accuracy",
        "of 8 test rows are correct",
        "always predicting",
        "Published flowers, version 1:",
        "digest",
        f"serve --store {store(job_file)}",
        'curl http://127.0.0.1:8000/models/flowers/predict -d \'{"instances": [',
        "models predict flowers --row",
    ):
        assert words in found.stdout
    assert open_store(store(job_file)).versions("flowers") == [1]


def test_large_errors_are_printed_without_exponents(train: Train, job_file: Path) -> None:
    rows = "".join(f"{i},{300_000 * (i % 2)}\n" for i in range(40))
    job_file.with_suffix(".csv").write_text(f"a,price\n{rows}", encoding="utf-8")
    job_file.write_text(
        '[model]\nname = "houses"\n[data]\npath = "flowers.csv"\ntarget = "price"\ntask = "regression"\n'
    )
    found = train(job_file, "--set", "train.epochs=1")
    assert re.search(r"price +\d\d\d,\d\d\d +\d\d\d,\d\d\d +−?\d", found.stdout), found.output
    assert "e+0" not in found.stdout
    settings = Settings(store=str(store(job_file)), cache_dir=str(job_file.parent / "cache"), poll_seconds=0)
    page = create_app(settings).test_client().get("/docs").text
    assert len(re.findall(r"<td[^>]*>\d\d\d,\d\d\d</td>", page)) >= 4  # RMSE and MAE, and those of the baseline
    assert "e+0" not in page
    assert re.findall(r'<th scope="col">(RMSE|MAE|R²)</th>', page) == ["RMSE", "MAE", "R²"]
    assert "The baseline always predicts the mean of the training rows" in page
    shown = CliRunner().invoke(models, ["show", "houses", "--store", str(store(job_file))])
    assert re.search(r"price +\d\d\d,\d\d\d", shown.stdout)
    predicted = CliRunner().invoke(models, ["predict", "houses", "--row", "[1]", "--store", str(store(job_file))])
    assert re.search(
        r" 0 +-?\d{5,}(\.\d)?\n", predicted.stdout
    )  # without thousands separators, so programs can parse it
    assert "e+0" not in shown.stdout


def test_a_very_negative_r2_is_short(train: Train, job_file: Path) -> None:
    lines = [f"{1e12 if i == 50 else i % 7},red,{i / 100}" for i in range(300)]
    (job_file.parent / "flowers.csv").write_text("\n".join(["length,colour,kind", *lines]))
    found = train(job_file, "--no-publish", "--set", "network.layers=[]")
    assert re.search(r"^kind .* −[\d.]+ × 10\S+ *$", found.stdout, re.MULTILINE), found.stdout


def test_the_commands_use_the_port_of_the_environment(
    train: Train, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVE_PORT", "9123")
    found = train(job_file).stdout
    assert "curl http://127.0.0.1:9123/models/flowers/predict -d" in found
    assert re.search(r"^ +serve .*--port 9123$", found, re.MULTILINE), found
    monkeypatch.setenv("SERVE_PORT", "8000")
    assert "--port" not in train(job_file).stdout


def test_a_long_example_row_is_fetched_from_the_service(train: Train, job_file: Path) -> None:
    values = np.arange(1600.0).reshape(8, 200)
    np.savez(job_file.with_suffix(".npz"), x=values, y=values[:, 0])
    job_file.write_text('[model]\nname = "long"\n[data]\npath = "flowers.npz"\n[split]\ntest = 0\nvalidation = 0\n')
    found = train(job_file, "--set", "train.epochs=1")
    model = "http://127.0.0.1:8000/models/long"
    assert f"  curl -s {model}/example | curl {model}/predict -d @-\n" in found.stdout, found.output


def test_a_row_that_is_too_large_for_an_example_is_not_fetched(train: Train, job_file: Path) -> None:
    values = np.arange(10_000.0).reshape(1, -1) + np.arange(4.0).reshape(-1, 1)
    np.savez(job_file.with_suffix(".npz"), x=values, y=values[:, 0])
    job_file.write_text(
        '[model]\nname = "wide"\n[data]\npath = "flowers.npz"\n[network]\nlayers = []\n'
        "[split]\ntest = 0\nvalidation = 0\n"
    )
    found = train(job_file, "--set", "train.epochs=1")
    assert "  curl http://127.0.0.1:8000/models/wide\n" in found.stdout, found.output
    assert "/example" not in found.stdout


def test_a_report_is_written_next_to_the_version(train: Train, job_file: Path) -> None:
    page = store(job_file) / "flowers" / "1.html"
    assert f"report {page}" in train(job_file).stdout
    text = page.read_text(encoding="utf-8")
    for words in ("flowers", "Confusion matrix", "Reliability", "ROC curve", "colour", "8 test rows"):
        assert words in text
    assert json.loads(train(job_file, "--json").stdout)["published"]["report"] == str(page.with_name("2.html"))
    again = page.with_name("2.html").read_text(encoding="utf-8")
    expected = (
        text.replace("version 1<", "version 2<").replace("flowers/1", "flowers/2").replace("flowers-1", "flowers-2")
    )
    expected = expected.replace('version\\":1', 'version\\":2')  # the form's program
    hashes = re.compile("sha256-[A-Za-z0-9+/=]+")
    assert hashes.sub("", again) == hashes.sub("", expected)


def test_a_report_that_cannot_be_written_is_an_error_that_names_the_published_version(
    train: Train, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StoreError("1.html: cannot write a report: No space left on device; free some space")

    monkeypatch.setattr(Store, "add_report", broken)
    found = train(job_file)
    assert found.exit_code == 5
    assert "flowers/1 is published, but not its report: 1.html: cannot write" in found.stderr
    assert open_store(store(job_file)).versions("flowers") == [1]


def test_without_a_terminal_each_epoch_is_a_line(train: Train, job_file: Path) -> None:
    lines = [line for line in train(job_file).stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("validation loss" in line for line in lines)


@pytest.mark.parametrize(("options", "shown"), [([], True), (["-q"], False)])
def test_a_terminal_shows_what_is_read(job_file: Path, options: list[str], shown: bool) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "training", "check", str(job_file), *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # reading ends with EIO when the process has exited
            while part := os.read(ours, 4096):
                printed += part
    os.close(ours)
    assert process.returncode == 0
    assert (b"Reading flowers.csv" in printed) is shown
    assert b"40 rows" in printed


def test_an_overfitted_training_suggests_early_stopping(train: Train, job_file: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{rng.random()},red,{'ab'[rng.integers(2)]}" for _ in range(90)]
    (job_file.parent / "flowers.csv").write_text("\n".join(["length,colour,kind", *lines]))
    options = ["--no-publish", "--set", "network.layers=[64, 'relu', 64, 'relu']", "--set", "train.epochs=300"]
    found = train(job_file, *options)
    expected = (
        r"300 epochs\.\nnote: Overfitting: the validation loss was lowest in epoch \d+ \([\d.]+\) and ended at [\d.]+"
    )
    assert re.search(expected, found.stdout), found.stdout
    notes = json.loads(train(job_file, *options, "--json").stdout)["notes"]
    assert any(note.startswith("Overfitting: ") for note in notes)
    found = train(job_file, *options, "--set", "train.early_stopping={ patience = 300 }")
    assert "Overfitting" not in found.stdout
    assert "Overfitting" not in train(job_file, "--no-publish").stdout


def test_quiet_omits_progress_and_verbose_adds_the_plan(train: Train, job_file: Path) -> None:
    quiet = train(job_file, "-q").stdout
    assert "epoch " not in quiet
    assert "Published" in quiet
    assert "Linear" in train(job_file, "-v").stdout


def test_with_json_standard_output_has_only_json(train: Train, job_file: Path) -> None:
    found = train(job_file, "--json")
    data = json.loads(found.stdout)
    assert data["model"] == "flowers"
    assert data["published"]["version"] == 1
    assert 0 <= data["metrics"]["accuracy"] <= 1
    assert (data["data"], data["split"]) == ("flowers.csv", {"training": 28, "validation": 4, "test": 8})
    assert (data["stopped_early"], data["published"]["default"]) == (False, 1)
    assert data["published"]["why_default"] == "newest, as the alias default was never set"
    assert "epoch 1/3" in found.stderr


def test_check_shows_the_plan_and_trains_nothing(train: Train, job_file: Path) -> None:
    found = train("check", job_file)
    assert found.exit_code == 0, found.output
    for words in (
        "length  number",
        "colour  category",
        "lily: 20, rose: 20",
        "5 -> 4",
        "34 parameters",
        "28 training",
    ):
        assert words in found.stdout
    assert "epoch" not in found.stdout
    assert not store(job_file).exists()
    data = json.loads(train("check", job_file, "--json").stdout)
    assert data["split"] == {"training": 28, "validation": 4, "test": 8}
    assert [column["missing"] for column in data["columns"]] == [1, 1]
    assert (data["data"], data["parameters"], data["dtype"]) == ("flowers.csv", 34, "float32")
    assert (data["loss"], data["class_weights"]) == ("cross_entropy", None)
    balanced = train("check", job_file, "--json", "--set", 'train.class_weights="balanced"')
    assert json.loads(balanced.stdout)["class_weights"] == {"lily": 1.0, "rose": 1.0}


def test_json_of_folds_has_the_epochs_of_each(train: Train, job_file: Path) -> None:
    folds = json.loads(train(job_file, "--folds", "3", "--json").stdout)["folds"]
    assert [fold["epochs"] for fold in folds] == [3, 3, 3]
    assert train("check", job_file, "--set", "data.target=knd").exit_code == 3


def test_of_many_classes_those_with_the_lowest_f1_are_shown(train: Train, job_file: Path) -> None:
    lines = [f"{i % 40},red,k{i % 40}" for i in range(400)] + ["3.5,red,alone"]
    (job_file.parent / "flowers.csv").write_text("\n".join(["length,colour,kind", *lines]))
    found = train(job_file, "--no-publish")
    assert "Only the 30 of 41 classes with the lowest F1 are shown; --json has all." in found.stdout
    assert "alone" not in found.stdout.split("kind")[-1]
    lines = lines[-1:] + [f"{i % 10 + 20 * (i % 2)},red,{'ab'[i % 2]}" for i in range(60)]
    (job_file.parent / "flowers.csv").write_text("\n".join(["length,colour,kind", *lines]))
    found = train(job_file)
    assert re.search(r"^alone +- +- +- +0 *$", found.stdout, re.MULTILINE)
    page = (job_file.parent / "models" / "flowers" / "1.html").read_text(encoding="utf-8")
    assert re.search(r"<th[^>]*>alone</th>(<td[^>]*>–</td>){3}<td[^>]*>0</td>", page)
