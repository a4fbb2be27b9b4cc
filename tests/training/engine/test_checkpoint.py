"""Checkpoints: an interrupted training resumes to the same bits as an uninterrupted one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest

from model_store.nn import Array, Linear, Module, Sequential, Tanh
from training import MSE, SGD, OnPlateau, train
from training.config.settings import EarlyStoppingSection
from training.engine.checkpoint import Checkpoint, CheckpointError, InterruptedTrainingError
from training.engine.early_stopping import EarlyStopping, EpochCallback, EpochResult
from training.engine.loop import DivergedError
from training.stored_arrays import read_stored

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
IDENTITY = {"job": {"train": {"seed": 0}}, "data": {"rows": 10}}


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up."""


class Mortal(Checkpoint):
    """Saves at every step, and dies after step `fatal` of this run."""

    fatal = 0

    def save(self) -> None:
        super().save()
        self.fatal -= 1
        if not self.fatal:
            raise Killed


class Around(Module):
    """A layer with another in an attribute."""

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


def training(checkpoint: Checkpoint | None, on_epoch: EpochCallback | None = None, patience: int = 6) -> dict[str, Any]:
    """Run a small training with everything that a checkpoint saves, and return its result."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((11, 3))
    y = np.tanh(x[:, :1] - x[:, 1:2])
    layers = [
        Linear(3, 4, initializer="normal", dtype=np.float64, rng=rng),
        Around(Noise(np.random.default_rng(2))),
        Tanh(),
    ]
    network = Sequential([*layers, Linear(4, 1, initializer="normal", dtype=np.float64, rng=rng)])
    early_stopping = EarlyStopping(network, MSE(), x[:4], y[:4], EarlyStoppingSection(patience, 0.0), on_epoch)
    optimizer = SGD(network, 0.05)
    schedule = OnPlateau(patience=0, decay=0.7)
    if checkpoint is not None:
        checkpoint.register(early_stopping=early_stopping)
    with nullcontext() if checkpoint is None else checkpoint.stop_on_signals():
        errors = train(
            network, x, y, MSE(), optimizer, 8, 4,
            rng=rng, on_epoch=early_stopping, schedule=schedule, checkpoint=checkpoint,
        )  # fmt: skip
    best = early_stopping.restore_best()
    arrays = {name: array.tolist() for name, array in network.arrays().items()}
    return {"errors": errors, "best": best, "history": early_stopping.history, "chance": rng.random(), **arrays}


@pytest.mark.parametrize("fatal", range(1, 24))
def test_a_training_killed_after_any_step_resumes_to_the_same_bits(tmp_path: Path, fatal: int) -> None:
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


def test_a_training_killed_repeatedly_resumes_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "job.checkpoint.npz"
    for life in range(7):
        checkpoint = Mortal(path, IDENTITY, seconds=0, resume=life > 0)
        checkpoint.fatal = 3
        with pytest.raises(Killed):
            training(checkpoint)
    assert training(Checkpoint(path, IDENTITY, resume=True)) == training(None)


def test_temporary_files_of_a_killed_writer_are_removed_and_no_others(tmp_path: Path) -> None:
    """By the next life, and by the end of a training that was never resumed."""
    path = tmp_path / "job[1].checkpoint.npz"
    left = tmp_path / f".tmp-{path.name}-0123456789abcdef"
    others = {tmp_path / ".tmp-job1.checkpoint.npz-0123456789abcdef", tmp_path / "job1.toml"}
    checkpoint = Checkpoint(path, IDENTITY)
    checkpoint.save()
    for file in (left, *others):
        file.write_bytes(b"half")
    Checkpoint(path, IDENTITY, resume=True)
    assert not left.exists()
    left.write_bytes(b"half")
    checkpoint.remove()
    assert set(tmp_path.iterdir()) == others


def test_without_a_file_there_is_no_state_to_resume(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "none.npz", IDENTITY, resume=True)
    assert not checkpoint.has_state
    assert training(checkpoint) == training(None)


def test_a_checkpoint_is_due_after_its_interval(tmp_path: Path) -> None:
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
        ({"job": {"train": {"seed": 4}}, "data": {"rows": 10}}, "job.train.seed: expected 4, as when the training"),
        (
            {"job": {"train": {"seed": 0}}, "data": {"rows": 9}},
            "data.rows: expected 9, as when the training began; found 10",
        ),
        (
            {"job": {"train": {}}, "data": {"rows": 10}},
            "job.train.seed: expected nothing, as when the training began; found",
        ),
    ],
)
def test_a_checkpoint_of_another_job_or_other_data_is_rejected(tmp_path: Path, kept: Any, expected: str) -> None:
    path = tmp_path / "c.npz"
    Checkpoint(path, kept).save()
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(path, IDENTITY, resume=True)
    assert expected in str(caught.value)
    assert not Checkpoint(path, IDENTITY).has_state  # a new training takes its location


def test_a_training_without_a_save_does_not_remove_the_checkpoint_of_another(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    Checkpoint(path, {"job": {"train": {"seed": 4}}}).save()
    kept, told = path.read_bytes(), []
    other = Checkpoint(path, {"job": {"train": {"seed": 0}}}, warn=told.append)
    assert told == [
        f"{path} holds another interrupted training (job.train.seed 4, here 0): "
        "the first checkpoint of this training overwrites it unless you move it"
    ]
    other.remove()
    assert path.read_bytes() == kept
    other.save()
    other.remove()
    assert not path.exists()


def test_a_new_training_does_not_overwrite_a_checkpoint_of_the_same_job(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c.npz", IDENTITY).save()
    with pytest.raises(CheckpointError, match="continue with --resume, or remove the file to start again"):
        Checkpoint(tmp_path / "c.npz", IDENTITY)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"nonsense" * 100])
def test_a_damaged_checkpoint_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="expected a checkpoint of a training"):
        Checkpoint(path, IDENTITY, resume=True)
    assert not Checkpoint(path, IDENTITY).has_state


def test_a_checkpoint_truncated_anywhere_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    training(checkpoint := Checkpoint(path, IDENTITY, seconds=0))
    whole = path.read_bytes()
    assert checkpoint.path == path
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            Checkpoint(path, IDENTITY, resume=True)


def test_a_checkpoint_with_another_optimizer_state_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    training(Checkpoint(path, IDENTITY, seconds=0))
    with np.load(path) as archive:
        arrays = {name: array for name, array in archive.items() if name != "optimizer/velocity.0"}
    np.savez(path, **arrays)
    with pytest.raises(
        CheckpointError, match=r"optimizer: expected the state of this version, found SGD\.state: expected"
    ):
        training(Checkpoint(path, IDENTITY, resume=True))


GARBAGE = [
    np.array(-1), np.array(10**18), np.array(np.nan), np.array(np.inf), np.array("x" * 9), np.array(True),
    np.zeros(0), np.zeros((3, 0)), np.full(4, np.nan), np.full((2, 4), -1.0), np.zeros((2, 3, 4)), np.zeros(5, "V0"),
    np.frombuffer(b"[" * 20_000, np.uint8), np.frombuffer(b"[null, 7, {}]", np.uint8), np.frombuffer(b"{}", np.uint8),
    np.frombuffer(b"[" + b"1" * 5_000 + b"]", np.uint8),
]  # fmt: skip


def test_garbage_in_any_array_of_a_checkpoint_is_an_error_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    doomed = Mortal(path, IDENTITY, seconds=0)
    doomed.fatal = 8
    with pytest.raises(Killed):
        training(doomed)
    doomed.close()
    with np.load(path) as archive:
        arrays = dict(archive)
    accepted = set()
    for name in arrays:
        for number, garbage in enumerate(GARBAGE):
            np.savez(path, **{**arrays, name: garbage})
            with contextlib.suppress(CheckpointError, DivergedError):
                training(Checkpoint(path, IDENTITY, resume=True))
                accepted.add((name, number))
    for name, number in accepted:
        assert (GARBAGE[number].dtype, GARBAGE[number].ndim) == (arrays[name].dtype, arrays[name].ndim)


def test_every_array_of_a_checkpoint_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    training(Checkpoint(path, IDENTITY, seconds=0))
    with np.load(path) as archive:
        arrays = dict(archive)
    for name in arrays:
        np.savez(path, **{other: array for other, array in arrays.items() if other != name})
        with contextlib.suppress(CheckpointError):
            training(Checkpoint(path, IDENTITY, resume=True))


def compressed(path: Path, arrays: Mapping[str, Array]) -> None:
    np.savez_compressed(path, **arrays)


def claimed(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an archive in which the header of one array claims more than the member has."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            np.save(content := io.BytesIO(), array)
            archive.writestr(f"{name}.npy", content.getvalue())
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
        archive.writestr("training/more.npy", header.getvalue())


def overlapping(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an archive whose directory lists one member a thousand times."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            np.save(content := io.BytesIO(), array)
            archive.writestr(f"{name}.npy", content.getvalue())
        archive.writestr("training/0.npy", bytes(1 << 16))
        archive.filelist.extend(archive.filelist[-1:] * 1000)


@pytest.mark.parametrize("write", [compressed, claimed, overlapping])
def test_a_checkpoint_takes_no_more_memory_than_its_file(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "c.npz"
    Checkpoint(path, IDENTITY).save()
    with np.load(path) as archive:
        arrays = dict(archive)
    write(path, {**arrays, "training/zeros": np.zeros(1 << 23)})
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"expected a checkpoint of a training, found .*expected .* found"):
            Checkpoint(path, IDENTITY, resume=True)
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + (1 << 23)
    finally:
        tracemalloc.stop()


def test_a_checkpoint_that_is_not_resumed_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its identity is, for the message."""
    path = tmp_path / "c.npz"
    training(Checkpoint(path, {"job": {"train": {"seed": 4}}}, seconds=0))
    read: list[str] = []

    def read_and_note(archive: Any, name: str, *rest: Any) -> Array:
        read.append(name)
        return read_stored(archive, name, *rest)

    monkeypatch.setattr("training.engine.checkpoint.read_stored", read_and_note)
    Checkpoint(path, IDENTITY)
    with pytest.raises(CheckpointError):
        Checkpoint(path, IDENTITY, resume=True)
    assert read == ["identity", "identity"]


class Full:
    """Something that cannot be written: the disk is full."""

    def state(self) -> Mapping[str, Array]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def load_state(self, state: Mapping[str, Array]) -> None:
        raise AssertionError


def test_a_checkpoint_that_cannot_be_written_warns_once_and_training_continues(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "c.npz"
    checkpoint = Checkpoint(path, IDENTITY, seconds=0, warn=told.append)
    checkpoint.save()
    before = path.read_bytes()
    checkpoint.register(full=Full())
    assert training(checkpoint) == training(None)
    assert told == [f"the checkpoint {path} could not be written: No space left on device; training continues"]
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_after_saving(tmp_path: Path, number: signal.Signals) -> None:
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


@pytest.mark.parametrize(("last", "patience"), [(8, 6), (2, 1)])
def test_a_signal_after_the_last_step_ends_the_training_after_saving(tmp_path: Path, last: int, patience: int) -> None:
    """Also in the epoch in which early stopping ends it: the resumed training does not begin another."""
    path = tmp_path / "c.npz"
    checkpoint = Checkpoint(path, IDENTITY)
    expected = training(None, patience=patience)
    assert len(expected["history"]) == last

    def stop(epoch: EpochResult) -> None:
        if epoch.number == last:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedTrainingError) as caught:
        training(checkpoint, stop, patience)
    assert caught.value.saved
    assert training(Checkpoint(path, IDENTITY, resume=True), patience=patience) == expected


def test_a_signal_during_the_evaluation_loses_nothing_of_a_saved_training(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    checkpoint = Checkpoint(path, IDENTITY)
    expected = training(None)
    assert training(checkpoint) == expected
    assert not path.exists()  # a short one leaves no file
    checkpoint = Checkpoint(path, IDENTITY, clock=iter([0.0, 1000.0, *[1001.0] * 10_000]).__next__)
    assert training(checkpoint) == expected
    checkpoint.close()
    epochs: list[int] = []
    assert training(Checkpoint(path, IDENTITY, resume=True), lambda epoch: epochs.append(epoch.number)) == expected
    assert not epochs


# A training of another process ---------------------------------------------------------------------------------------

OTHER = """
import sys
from pathlib import Path
from training.engine.checkpoint import Checkpoint
path = Path(sys.argv[1])
checkpoint = Checkpoint(path, {"job": {"train": {"seed": 0}}, "data": {"rows": 10}})
if sys.argv[2:] == ["save"]:
    checkpoint.save()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a training in another process, which has the checkpoint `c.npz`."""
    started = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OTHER, str(tmp_path / "c.npz"), *arguments]
        started.append(subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for process in started:
        process.communicate("")


@pytest.mark.parametrize("arguments", [(), ("save",)])
def test_a_second_resume_is_rejected_and_deletes_nothing(
    tmp_path: Path, other: Any, arguments: tuple[str, ...]
) -> None:
    path = tmp_path / "c.npz"
    process = other(*arguments)
    writing = tmp_path / ".tmp-c.npz-0123456789abcdef"
    writing.write_bytes(b"half")
    before = set(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=f"belongs to another training, process {process.pid} .wait until it"):
        Checkpoint(path, IDENTITY, resume=True)
    assert set(tmp_path.iterdir()) == before


def test_a_training_that_was_killed_has_no_checkpoint_any_more(tmp_path: Path, other: Any) -> None:
    process = other("save")
    process.kill()
    process.wait()
    Checkpoint(tmp_path / "c.npz", IDENTITY, resume=True).remove()
    assert not list(tmp_path.iterdir())


def test_a_training_beside_another_of_the_same_checkpoint_saves_nothing(tmp_path: Path, other: Any) -> None:
    path, told = tmp_path / "c.npz", []
    process = other("save")
    kept = path.read_bytes()
    checkpoint = Checkpoint(path, IDENTITY, seconds=0, warn=told.append)
    assert training(checkpoint) == training(None)
    checkpoint.remove()
    assert path.read_bytes() == kept
    assert told == [
        f"{path} belongs to another training, process {process.pid}: this training is not saved "
        "(wait until it ends or stop it, or choose another directory with --checkpoint)"
    ]
    expected = pytest.raises(InterruptedTrainingError, match="the training is not saved")
    with expected as caught, checkpoint.stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert not caught.value.saved


def test_without_locks_trainings_are_saved_and_no_temporary_file_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)
    Checkpoint(tmp_path / "c.npz", IDENTITY).save()
    (tmp_path / ".tmp-c.npz-0123456789abcdef").touch()
    Checkpoint(tmp_path / "c.npz", IDENTITY, resume=True).save()
    assert (tmp_path / ".tmp-c.npz-0123456789abcdef").exists()


def test_a_signal_on_a_full_disk_reports_that_nothing_was_saved(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.npz", IDENTITY)
    checkpoint.register(full=Full())
    with checkpoint.stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(InterruptedTrainingError, match="could not be written") as caught:
            checkpoint.save()
    assert not caught.value.saved


# The command ---------------------------------------------------------------------------------------------------------


def test_parts_of_a_checkpoint_that_disagree_on_the_epochs_are_an_error_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    training(Checkpoint(path, IDENTITY, seconds=0))
    with np.load(path) as archive:
        arrays = dict(archive)
    empty = {"early_stopping/history": np.empty((0, 4)), "early_stopping/best": np.array([0, np.inf])}
    np.savez(path, **{**arrays, **empty})
    with pytest.raises(CheckpointError, match="expected one number of finished epochs, found 0 in early_stopping, "):
        training(Checkpoint(path, IDENTITY, resume=True))
