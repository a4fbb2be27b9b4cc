"""`train`: options, commands, what it publishes, and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from model_store.cli.main import main as models
from model_store.registry.store import open_store
from service.app import create_app
from service.cli import main as serve
from service.config import Settings

Train = Callable[..., Result]


def store(job_file: Path) -> Path:
    return job_file.parent / "models"


def test_help_shows_the_options_of_a_run_and_the_commands(train: Train) -> None:
    found = train("--help")
    assert found.exit_code == 0
    for word in ("FILE", "--set", "--seed", "--no-publish", "--store", "--version", "check", "init", "Exit codes"):
        assert word in found.output
    assert "--no-publish" in train("x.toml", "--help").output


def test_every_command_has_version_and_short_help_options(train: Train) -> None:
    for found in (train("--version"), CliRunner().invoke(models, "--version"), CliRunner().invoke(serve, "--version")):
        assert (found.exit_code, found.output) == (0, "forward-pass, version 0.1.0\n")
    assert train("-h").output == train("--help").output
    assert "..." not in CliRunner().invoke(models, "-h", terminal_width=80).output.partition("Commands:")[2]


def test_a_table_instead_of_a_job_is_rejected_with_the_init_command(train: Train, job_file: Path) -> None:
    found = train(job_file.with_suffix(".csv"))
    assert found.exit_code == 2
    assert "flowers.csv --target COLUMN writes one for this table" in found.stderr


def test_row_counts_have_thousands_separators(train: Train, job_file: Path) -> None:
    rows = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(20_000))
    job_file.with_suffix(".csv").write_text(f"a,kind\n{rows}", encoding="utf-8")
    job_file.write_text('[model]\nname = "ab"\n[data]\npath = "flowers.csv"\ntarget = "kind"\n[split]\ntest = 0.6\n')
    found = train(job_file, "--set", "train.epochs=1")
    assert "20,000 rows (6000 training, 2000 validation, 12,000 test)" in found.stdout
    assert "of 12,000 test rows are correct" in found.stdout
    settings = Settings(store=str(store(job_file)), cache_dir=str(job_file.parent / "cache"), poll_seconds=0)
    assert "on 12,000 test rows" in create_app(settings).test_client().get("/docs").text


@pytest.mark.parametrize(
    ("name", "fix"), [("images.npz", "write one that names it: [data] path"), ("flights.jsonl.gz", "--target COLUMN")]
)
def test_data_instead_of_a_job_are_rejected_with_a_fix(train: Train, tmp_path: Path, name: str, fix: str) -> None:
    data = tmp_path / name
    data.write_bytes(b"PK\x03\x04\xff")
    found = train(data)
    assert found.exit_code == 2
    assert f"{name}: expected a job file in TOML, found" in found.stderr
    assert fix in found.stderr


def test_a_misspelt_command_is_corrected(train: Train, job_file: Path) -> None:
    found = train("chek", job_file)
    assert found.exit_code == 2
    assert "chek: no such command or file; did you mean 'check'?" in found.stderr


def test_no_publish_writes_nothing(train: Train, job_file: Path) -> None:
    found = train(job_file, "--no-publish")
    assert found.exit_code == 0
    assert "Not published." in found.stdout
    assert not store(job_file).exists()


def test_overrides_change_the_job(train: Train, job_file: Path) -> None:
    found = train(job_file, "--set", "train.epochs=5", "--set", "network.layers=[3]", "--seed", 4, "--json")
    assert json.loads(found.stdout)["epochs"] == 5
    _, model = open_store(store(job_file)).load("flowers")
    assert model.training["job"]["train"]["seed"] == 4
    assert model.training["job"]["network"]["layers"] == [3]


def test_a_version_published_under_an_alias_does_not_go_live(train: Train, job_file: Path) -> None:
    """The first version is the only one. After that, `default` holds what requests without a version get."""
    models = open_store(store(job_file))
    found = train(job_file, "--publish-as", "candidate")
    assert "The alias candidate now points to it." in found.stdout
    assert "without a version get version 1 (newest, as the alias default was never set)." in found.stdout
    assert models.aliases("flowers") == {"candidate": 1}
    found = train(job_file, "--set", "publish.alias=candidate")
    assert "without a version still get version 1 (alias default, set before publishing)." in found.stdout
    assert "To serve this one: models promote flowers 2 --store" in found.stdout
    assert "/models/flowers/versions/2/predict -d" in found.stdout
    assert "models predict flowers/2 --row" in found.stdout
    assert models.aliases("flowers") == {"candidate": 2, "default": 1}
    found = json.loads(train(job_file, "--publish-as", "candidate", "--json").stdout)["published"]
    assert (found["version"], found["alias"], found["default"]) == (3, "candidate", 1)
    assert "flowers.toml" in models.history("flowers", "candidate")[0].why


def test_a_version_published_as_default_is_live(train: Train, job_file: Path) -> None:
    for number in (1, 2):
        found = train(job_file, "--publish-as", "default")
        assert f"without a version get version {number} (alias default)." in found.stdout
    assert open_store(store(job_file)).aliases("flowers") == {"default": 2}


def test_a_version_published_while_default_is_set_is_not_live_and_says_so(train: Train, job_file: Path) -> None:
    train(job_file, "--publish-as", "default")
    found = train(job_file)
    assert "Requests without a version still get version 1 (alias default).\nTo serve this one: " in found.stdout


@pytest.mark.parametrize("alias", ["7", "latest", "a b"])
def test_an_invalid_alias_is_rejected_before_training(train: Train, job_file: Path, alias: str) -> None:
    found = train(job_file, "--publish-as", alias)
    assert found.exit_code == 2
    assert "publish.alias" in found.stderr
    assert not store(job_file).exists()


def test_exit_code_2_for_usage_and_job_files(train: Train, job_file: Path) -> None:
    for arguments in (
        ["--nope"],
        [],
        ["check"],
        [job_file.parent / "nope.toml"],
        [job_file, "--set", "epochs"],
        [job_file, "--set", "train.epochs=0"],
        [job_file, "--seed", "x"],
        [job_file, "--set", "network.output=relu"],
    ):
        assert train(*arguments).exit_code == 2, arguments


def test_exit_code_3_for_data(train: Train, job_file: Path) -> None:
    found = train(job_file, "--set", "data.target=knd")
    assert found.exit_code == 3
    assert "did you mean 'kind'?" in found.stderr
    (job_file.parent / "flowers.csv").unlink()
    found = train(job_file)
    assert found.exit_code == 3
    assert "no such file" in found.stderr


def test_exit_code_4_for_divergence_with_suggestions_and_nothing_published(train: Train, job_file: Path) -> None:
    found = train(
        job_file, "--set", "train.learning_rate=1e30", "--set", "train.loss=mse", "--set", "data.target=length",
        "--set", "data.task=regression", "--set", "data.columns=['colour']",
    )  # fmt: skip
    assert found.exit_code == 4, found.output
    assert "in epoch 1, step " in found.stderr
    assert "--set train.learning_rate=1e+29" in found.stderr
    assert "Nothing was published" in found.stderr
    assert not store(job_file).exists()


def test_exit_code_5_for_the_store(train: Train, job_file: Path) -> None:
    store(job_file).write_text("a file")
    found = train(job_file)
    assert found.exit_code == 5, found.output
    assert "expected a directory, found a file" in found.stderr


def test_errors_show_no_traceback(train: Train, job_file: Path) -> None:
    assert "Traceback" not in train(job_file, "--set", "data.target=knd").output


def test_python_m_training_is_the_command(job_file: Path) -> None:
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-m", "training", job_file.name, "--store", "other", "--set", "train.epochs=2"],
        cwd=job_file.parent,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "epoch 2/2" in found.stdout
    assert "serve --store other" in found.stdout
    assert not found.stderr
    assert (job_file.parent / "other" / "flowers" / "1.npz").is_file()
