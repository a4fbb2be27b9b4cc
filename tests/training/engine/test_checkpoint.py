"""Checkpoints: an interrupted training ends with the bytes of one that was not."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from model_store.nn import Array, Linear, Module, Sequential, Tanh
from model_store.registry.store import open_store
from tests.training.conftest import flowers
from training import MSE, SGD, OnPlateau, train
from training.config.settings import EarlyStoppingSection
from training.engine.checkpoint import Checkpoint, CheckpointError, InterruptedTrainingError
from training.engine.early_stopping import EarlyStopping

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
IDENTITY = {"job": {"train": {"seed": 0}}, "data": {"rows": 10}}


class Killed(BaseException):
    """Stands in for SIGKILL: nobody gets to tidy up."""


class Mortal(Checkpoint):
    """Keeps the training at every step, and dies after the step `fatal` of this run."""

    fatal = 0

    def save(self) -> None:
        super().save()
        self.fatal -= 1
        if not self.fatal:
            raise Killed


class Around(Module):
    """A layer that has another in an attribute."""

    def __init__(self, inner: Module) -> None:
        self.inner = inner

    def forward(self, inputs: Array) -> Array:
        return self.inner.forward(inputs)

    def backward(self, output_grad: Array) -> Array:
        return self.inner.backward(output_grad)

    def arrays(self) -> dict[str, Array]:
        return self.inner.arrays()


class Noise(Module):
    """A layer with a generator of its own and an array that every forward pass changes; it is compiled generically."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.seen = rng, np.zeros(1)

    def forward(self, inputs: Array) -> Array:
        self.seen += 1
        noisy: Array = inputs + 0.1 * self.rng.standard_normal(inputs.shape)
        return noisy

    def backward(self, output_grad: Array) -> Array:
        return output_grad

    def arrays(self) -> dict[str, Array]:
        return {"seen": self.seen}


def training(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """A small training with all that a checkpoint has to keep, and what it came to."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((11, 3))
    y = np.tanh(x[:, :1] - x[:, 1:2])
    layers = [Linear(3, 4, dtype=np.float64, rng=rng), Around(Noise(np.random.default_rng(2))), Tanh()]
    network = Sequential([*layers, Linear(4, 1, dtype=np.float64, rng=rng)])
    early_stopping = EarlyStopping(network, MSE(), x[:4], y[:4], EarlyStoppingSection(patience=6))
    optimizer = SGD(network, 0.05)
    schedule = OnPlateau(patience=0, decay=0.7)
    if checkpoint is not None:
        checkpoint.register(early_stopping=early_stopping)
    errors = train(
        network, x, y, MSE(), optimizer, 8, 4,
        rng=rng, on_epoch=early_stopping, schedule=schedule, checkpoint=checkpoint,
    )  # fmt: skip
    best = early_stopping.restore_best()
    arrays = {name: array.tolist() for name, array in network.arrays().items()}
    return {"errors": errors, "best": best, "history": early_stopping.history, "chance": rng.random(), **arrays}


@pytest.mark.parametrize("fatal", range(1, 24))
def test_a_training_killed_after_any_step_ends_as_if_it_had_not_been(tmp_path: Path, fatal: int) -> None:
    expected = training(None)
    path = tmp_path / "job.checkpoint.npz"
    doomed = Mortal(path, IDENTITY, seconds=0)
    doomed.fatal = fatal
    with pytest.raises(Killed):
        training(doomed)
    heir = Checkpoint(path, IDENTITY, resume=True)
    assert heir.has_state
    assert training(heir) == expected


def test_a_checkpoint_with_the_names_of_an_older_version_is_resumed(tmp_path: Path) -> None:
    """The fixture was written after step 10 by version 0.1.0, which named parts `watch` and `chance`."""
    path = tmp_path / "job.checkpoint.npz"
    shutil.copy(FIXTURES / "old_checkpoint.npz", path)
    resumed, expected = training(Checkpoint(path, IDENTITY, resume=True)), training(None)
    np.testing.assert_allclose(resumed["errors"], expected["errors"], rtol=1e-9)
    assert len(resumed["history"]) == len(expected["history"])
    assert resumed["chance"] == expected["chance"]
    np.testing.assert_allclose(resumed["modules.0.weights"], expected["modules.0.weights"], rtol=1e-9)


def test_a_training_may_be_killed_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "job.checkpoint.npz"
    for life in range(7):
        checkpoint = Mortal(path, IDENTITY, seconds=0, resume=life > 0)
        checkpoint.fatal = 3
        with pytest.raises(Killed):
            training(checkpoint)
    assert training(Checkpoint(path, IDENTITY, resume=True)) == training(None)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """By the next life, and by the end of a training that was never resumed."""
    path = tmp_path / "job[1].checkpoint.npz"
    left = tmp_path / f".tmp-{path.name}-0123456789abcdef"
    others = {tmp_path / ".tmp-job1.checkpoint.npz-0123456789abcdef", tmp_path / "job1.toml"}
    checkpoint = Checkpoint(path, IDENTITY)
    checkpoint.save()
    for file in (left, *others):
        file.write_bytes(b"half")
    Checkpoint(path, IDENTITY, resume=True)
    assert set(tmp_path.iterdir()) == {path, *others}
    left.write_bytes(b"half")
    checkpoint.remove()
    assert set(tmp_path.iterdir()) == others


def test_without_a_file_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "none.npz", IDENTITY, resume=True)
    assert not checkpoint.has_state
    assert training(checkpoint) == training(None)


def test_it_is_kept_every_so_many_seconds(tmp_path: Path) -> None:
    now = 100.0
    checkpoint = Checkpoint(tmp_path / "c.npz", IDENTITY, seconds=30, clock=lambda: now)
    assert not checkpoint.due()
    now = 130.0
    assert checkpoint.due()
    checkpoint.save()
    assert not checkpoint.due()


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({"job": {"train": {"seed": 4}}, "data": {"rows": 10}}, "job.train.seed: expected 4, as the training"),
        (
            {"job": {"train": {"seed": 0}}, "data": {"rows": 9}},
            "data.rows: expected 9, as the training began; found 10",
        ),
        (
            {"job": {"train": {}}, "data": {"rows": 10}},
            "job.train.seed: expected nothing, as the training began; found",
        ),
    ],
)
def test_a_checkpoint_of_another_job_or_of_other_data_is_refused(tmp_path: Path, kept: Any, expected: str) -> None:
    path = tmp_path / "c.npz"
    Checkpoint(path, kept).save()
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(path, IDENTITY, resume=True)
    assert expected in str(caught.value)
    assert not Checkpoint(path, IDENTITY).has_state  # a new training takes its location


def test_a_training_that_never_kept_anything_leaves_what_another_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    Checkpoint(path, {"job": {"train": {"seed": 4}}}).save()
    kept, told = path.read_bytes(), []
    other = Checkpoint(path, {"job": {"train": {"seed": 0}}}, warn=told.append)
    assert told == [
        f"{path} keeps another training that was interrupted (job.train.seed 4, here 0): "
        "it is lost once this one is kept there, unless you move it away"
    ]
    other.remove()
    assert path.read_bytes() == kept
    other.save()
    other.remove()
    assert not path.exists()


def test_an_interrupted_training_is_not_thrown_away_by_mistake(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c.npz", IDENTITY).save()
    with pytest.raises(CheckpointError, match="--resume continues it; remove it to start anew"):
        Checkpoint(tmp_path / "c.npz", IDENTITY)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"nonsense" * 100])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="expected a checkpoint of a training"):
        Checkpoint(path, IDENTITY, resume=True)
    assert not Checkpoint(path, IDENTITY).has_state


def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    training(checkpoint := Checkpoint(path, IDENTITY, seconds=0))
    whole = path.read_bytes()
    assert checkpoint.path == path
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            Checkpoint(path, IDENTITY, resume=True)


def test_a_checkpoint_of_a_version_that_kept_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    training(Checkpoint(path, IDENTITY, seconds=0))
    with np.load(path) as archive:
        arrays = {name: array for name, array in archive.items() if name != "optimizer/rate"}
    np.savez(path, **arrays)
    with pytest.raises(
        CheckpointError, match=r"optimizer: expected what this version keeps; found SGD\.state: expected"
    ):
        training(Checkpoint(path, IDENTITY, resume=True))


class Full:
    """Something that cannot be written: the disk is full."""

    def state(self) -> Mapping[str, Array]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def load_state(self, state: Mapping[str, Array]) -> None:
        raise AssertionError


def test_a_checkpoint_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "c.npz"
    checkpoint = Checkpoint(path, IDENTITY, seconds=0, warn=told.append)
    checkpoint.save()
    before = path.read_bytes()
    checkpoint.register(full=Full())
    assert training(checkpoint) == training(None)
    assert told == [f"the checkpoint {path} could not be written: No space left on device; the training goes on"]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "c.npz"
    checkpoint = Checkpoint(path, IDENTITY)
    before = signal.getsignal(number)
    with checkpoint.stop_on_signals():
        os.kill(os.getpid(), number)
        with pytest.raises(InterruptedTrainingError) as caught:
            training(checkpoint)
    assert caught.value.saved
    assert str(path) in str(caught.value)
    assert signal.getsignal(number) is before
    assert training(Checkpoint(path, IDENTITY, resume=True)) == training(None)


def test_a_signal_on_a_full_disk_says_that_nothing_was_kept(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.npz", IDENTITY)
    checkpoint.register(full=Full())
    with checkpoint.stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(InterruptedTrainingError, match="could not be written") as caught:
            checkpoint.save()
    assert not caught.value.saved


# The command ---------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_checkpoint_when_the_model_is_published(
    train: Callable[..., Result], job_file: Path
) -> None:
    found = train(job_file, "--checkpoint-seconds", 0, "--resume")
    assert found.exit_code == 0, found.output
    assert (
        f"note: starting from the beginning: there is no checkpoint {job_file.with_suffix('.checkpoint.npz')}"
        in found.stdout
    )
    assert not list(job_file.parent.glob("*checkpoint*"))


def test_a_training_that_was_not_published_can_be_published_later(
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
    assert "--resume continues it" in found.stderr
    found = train(job_file, "--checkpoint", job_file.parent / "kept", "--resume", "--set", "train.seed=5")
    assert found.exit_code == 2
    assert "job.train.seed: expected 0, as the training began; found 5" in found.stderr
    found = train(job_file, "--checkpoint", job_file.parent / "kept", "--resume")
    assert found.exit_code == 0, found.output
    assert not list((job_file.parent / "kept").iterdir())


def test_a_training_that_diverged_leaves_nothing_to_resume(train: Callable[..., Result], job_file: Path) -> None:
    wild = ["--set", "data.task=regression", "--set", "data.target=length", "--set", "data.columns=['colour']"]
    found = train(job_file, *wild, "--set", "train.learning_rate=1e8", "--checkpoint-seconds", 0)
    assert found.exit_code == 4, found.output
    assert not list(job_file.parent.glob("*checkpoint*"))


def test_a_version_whose_alias_does_not_move_is_shown_whole_and_leaves_nothing_to_resume(
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


def test_a_store_that_cannot_be_written_is_noticed_before_the_training(
    train: Callable[..., Result], job_file: Path
) -> None:
    (job_file.parent / "models").write_text("a file")
    found = train(job_file)
    assert found.exit_code == 5
    assert "cannot publish" in found.stderr
    assert "epoch" not in found.stdout


def command(job_file: Path, store: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "training", str(job_file), "--store", str(job_file.parent / store), "-q", *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def published(job_file: Path, store: str) -> bytes:
    return (job_file.parent / store / "flowers" / "1.npz").read_bytes()


@pytest.fixture(params=["memory", "stream"])
def long_job(request: pytest.FixtureRequest, job_file: Path) -> Path:
    """A job of a second or more, and its model in the store `whole`. A stream of three blocks, or rows in memory."""
    content = job_file.read_text()
    if request.param == "stream":
        (job_file.parent / "flowers.csv").write_text(flowers(220_000))
        content = content.replace("epochs = 3", "epochs = 60\nbatch_size = 128")
        content = content.replace('target = "kind"', 'target = "kind"\nstream = true')
    else:
        content = content.replace("epochs = 3", "epochs = 3000\nbatch_size = 5")
    job_file.write_text(content)
    subprocess.run(command(job_file, "whole"), env=environment(), check=True, capture_output=True)
    return job_file


@pytest.mark.slow
def test_sigterm_keeps_the_training_and_resuming_ends_with_the_same_bytes(long_job: Path) -> None:
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
def test_a_job_killed_at_ten_random_moments_ends_with_the_bytes_of_one_that_was_not(long_job: Path) -> None:
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
def test_a_full_disk_leaves_no_half_model_and_says_what_to_do(
    train: Callable[..., Result], job_file: Path, small_disk: Path
) -> None:
    options = ["--set", "network.layers=[9000]", "--checkpoint-seconds", 0]
    found = train(job_file, *options, "--store", small_disk / "models", "--checkpoint", small_disk)
    assert found.exit_code == 5, found.output
    assert "could not be written: No space left on device; the training goes on" in found.stderr
    assert "cannot publish: No space left on device; free some space" in found.stderr
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
