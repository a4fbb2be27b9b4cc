"""Checkpoints of jobs: an interrupted `train` command resumes, and publishes the same bytes as an uninterrupted one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from model_store.registry.store import open_store
from tests.training.conftest import flowers

ROOT = Path(__file__).parents[3]


def test_publishing_removes_the_checkpoint(train: Callable[..., Result], job_file: Path) -> None:
    found = train(job_file, "--checkpoint-seconds", 0, "--resume")
    assert found.exit_code == 0, found.output
    assert (
        f"note: starting from the beginning: there is no checkpoint {job_file.with_suffix('.checkpoint.npz')}"
        in found.stdout
    )
    assert not list(job_file.parent.glob("*checkpoint*"))


def test_a_training_that_could_not_be_published_can_be_resumed_and_published(
    train: Callable[..., Result], job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("model_store.artifact.npz.write", fails)
        found = train(job_file, "--checkpoint-seconds", 0, "--checkpoint", job_file.parent / "kept")
    assert found.exit_code == 5, found.output
    assert "No space left on device; free some space" in found.stderr
    assert (job_file.parent / "kept" / "flowers.checkpoint.npz").is_file()
    found = train(job_file, "--checkpoint", job_file.parent / "kept")
    assert found.exit_code == 2
    assert "continue with --resume" in found.stderr
    found = train(job_file, "--checkpoint", job_file.parent / "kept", "--resume", "--set", "train.seed=5")
    assert found.exit_code == 2
    assert "job.train.seed: expected 0, as when the training began; found 5" in found.stderr
    found = train(job_file, "--checkpoint", job_file.parent / "kept", "--resume")
    assert found.exit_code == 0, found.output
    assert not list((job_file.parent / "kept").iterdir())


def test_a_diverged_training_leaves_no_checkpoint(train: Callable[..., Result], job_file: Path) -> None:
    wild = ["--set", "data.task=regression", "--set", "data.target=length", "--set", "data.columns=['colour']"]
    found = train(job_file, *wild, "--set", "train.learning_rate=1e8", "--checkpoint-seconds", 0)
    assert found.exit_code == 4, found.output
    assert not list(job_file.parent.glob("*checkpoint*"))


def test_a_version_whose_alias_does_not_move_is_reported_and_leaves_no_checkpoint(
    train: Callable[..., Result], job_file: Path
) -> None:
    store = open_store(str(job_file.parent / "models"))
    assert train(job_file, "--set", "publish.alias=champion").exit_code == 0
    store.protect("flowers", "champion", protected=True, who="ada", why="", when=datetime(2026, 1, 2, tzinfo=UTC))
    found = train(job_file, "--set", "publish.alias=champion", "--checkpoint-seconds", 0)
    assert found.exit_code == 5
    assert "Error: flowers/2 is published, but alias 'champion' was not moved: " in found.stderr
    assert "Published flowers, version 2" in found.stdout
    assert "champion points to it" not in found.stdout
    assert (job_file.parent / "models" / "flowers" / "2.html").is_file()
    assert not list(job_file.parent.glob("*checkpoint*"))


def test_an_unwritable_store_is_reported_before_training(train: Callable[..., Result], job_file: Path) -> None:
    (job_file.parent / "models").write_text("a file")
    found = train(job_file)
    assert found.exit_code == 5
    assert "models: expected a directory, found a file; choose another store" in found.stderr
    assert "epoch" not in found.stdout


def command(job_file: Path, store: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "training", str(job_file), "--store", str(job_file.parent / store), "-q", *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def published(job_file: Path, store: str) -> bytes:
    return (job_file.parent / store / "flowers" / "1.npz").read_bytes()


@pytest.fixture(params=["memory", "stream", "ensemble"])
def long_job(request: pytest.FixtureRequest, job_file: Path) -> Path:
    """A job of a second or more, and its model in the store `whole`: rows in memory, three blocks, or an ensemble."""
    content = job_file.read_text()
    if request.param == "stream":
        (job_file.parent / "flowers.csv").write_text(flowers(220_000))
        content = content.replace("epochs = 3", "epochs = 60\nbatch_size = 128")
        content = content.replace('target = "kind"', 'target = "kind"\nstream = true')
    elif request.param == "ensemble":
        content = content.replace("epochs = 3", "epochs = 1000\nbatch_size = 5\nensemble = 3")
    else:
        content = content.replace("epochs = 3", "epochs = 3000\nbatch_size = 5")
    job_file.write_text(content)
    subprocess.run(command(job_file, "whole"), env=environment(), check=True, capture_output=True)
    return job_file


@pytest.mark.slow
def test_a_job_stopped_by_sigterm_resumes_to_the_same_bytes(long_job: Path) -> None:
    options = ["--checkpoint-seconds", "0"]
    with subprocess.Popen(command(long_job, "cut", *options), env=environment(), stderr=subprocess.PIPE) as process:
        path = long_job.with_suffix(".checkpoint.npz")
        while not path.exists():
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert b"stopped by SIGTERM" in said
    assert b"continue it with train --resume" in said
    subprocess.run(command(long_job, "cut", "--resume"), env=environment(), check=True, capture_output=True)
    assert published(long_job, "cut") == published(long_job, "whole")


@pytest.mark.slow
def test_a_job_killed_at_ten_random_moments_ends_with_the_same_bytes(long_job: Path) -> None:
    chance = random.Random(20)
    options = ["--checkpoint-seconds", "0.01", "--resume"]
    path = long_job.with_suffix(".checkpoint.npz")
    for _ in range(10):
        with subprocess.Popen(command(long_job, "cut", *options), env=environment()) as process:
            before = path.stat().st_mtime_ns if path.exists() else 0
            while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
                time.sleep(0.001)
            time.sleep(chance.random() * 0.03)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command(long_job, "cut", "--resume"), env=environment(), check=True, capture_output=True)
    assert published(long_job, "cut") == published(long_job, "whole")
    assert not list(long_job.parent.glob("*checkpoint*"))
    assert not list(long_job.parent.glob(".tmp-*"))


@pytest.mark.slow
def test_a_full_disk_leaves_no_partial_model_and_suggests_a_fix(
    train: Callable[..., Result], job_file: Path, small_disk: Path
) -> None:
    options = ["--set", "network.layers=[9000]", "--checkpoint-seconds", 0]
    found = train(job_file, *options, "--store", small_disk / "models", "--checkpoint", small_disk)
    assert found.exit_code == 5, found.output
    assert "could not be written: No space left on device; training continues" in found.stderr
    assert "cannot publish: No space left on device; free some space" in found.stderr
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
