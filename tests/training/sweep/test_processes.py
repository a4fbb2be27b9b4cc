"""Four processes in one study, in a journal and in PostgreSQL: killed, continued, and nothing tried twice."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.sweep.postgres import postgres
from training.sweep.study import KILLED, Study, Tried
from training.sweep.sweep import Sweep

pytestmark = pytest.mark.slow

TRIALS = 16
SEARCH: dict[str, Any] = {
    "search.trials": TRIALS,
    "search.pruning": "median",
    "train.epochs": 200,
    "search.train": {"learning_rate": {"log_uniform": [0.001, 0.5]}, "batch_size": {"choice": [2, 4]}},
}


@pytest.fixture(scope="module", params=["journal", "postgres"])
def storage(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], str]]:
    """A function that returns the address of a new study."""
    if request.param == "journal":
        yield lambda directory: str(directory / "study.journal")
        return
    with postgres() as address:
        yield lambda directory: address


Storage = Callable[[Path], str]


def start(sweep_file: Path, address: str, *options: str) -> subprocess.Popen[str]:
    settings = [f"--set={key}={_toml(value)}" for key, value in SEARCH.items()]
    name = sweep_file.parent.name  # the tests share a database
    command = [sys.executable, "-m", "training", "sweep", str(sweep_file), "--study", name, *settings, *options]
    environ = {**os.environ, "SWEEP_STORAGE": address, "OPENBLAS_NUM_THREADS": "1"}
    root = Path(__file__).parents[3]
    return subprocess.Popen(command, cwd=root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return f"'{value}'" if isinstance(value, str) else str(value)


def read(open_sweep: Callable[..., Sweep], sweep_file: Path, address: str) -> list[Tried]:
    study: Study = open_sweep(**SEARCH).open_study(address, sweep_file.parent.name)
    tried = study.tried()
    study.close()
    return tried


def wait_for_trials(
    open_sweep: Callable[..., Sweep],
    sweep_file: Path,
    address: str,
    count: int,
    processes: list[subprocess.Popen[str]],
) -> None:
    """Wait until so many trials have ended. Fail if a process ends before."""
    while sum(one.state in ("complete", "pruned") for one in read(open_sweep, sweep_file, address)) < count:
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def check_nothing_twice(tried: list[Tried], *, killed_again: bool = False) -> None:
    """Check that all sets have ended, after at most one attempt before, which was killed.

    killed_again: the second attempt may have been killed, too, which a search does not repeat.
    """
    assert len(tried) == TRIALS
    assert len({tuple(one.values.items()) for one in tried}) == TRIALS
    for one in tried:
        *before, _ = one.attempts
        assert {attempt.user_attrs["reason"] for attempt in before} <= {KILLED}
        assert len(before) <= 1
        again = killed_again and one.state == "failed" and one.reason == KILLED and before
        assert one.state in ("complete", "pruned") or again


def test_four_processes_share_a_study(
    open_sweep: Callable[..., Sweep], sweep_file: Path, storage: Storage, tmp_path: Path
) -> None:
    """Together they try exactly the sets of the search, and one of them publishes the model."""
    address, store = storage(tmp_path), ["--store", str(tmp_path / "models")]
    processes = [start(sweep_file, address, "--join", *store) for _ in range(4)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    tried = read(open_sweep, sweep_file, address)
    check_nothing_twice(tried)
    assert all(len(one.attempts) == 1 for one in tried)
    assert sum("Published flowers, version 1" in output for output in outputs) == 1
    assert sum("Published before: flowers, version 1." in output for output in outputs) == 3
    lines = [[line for line in output.splitlines() if re.match(r"trial \d+/", line)] for output in outputs]
    numbers = [int(line.split("/")[0].removeprefix("trial ")) for of_process in lines for line in of_process]
    assert sorted(numbers) == list(range(1, TRIALS + 1))
    assert sum(bool(of_process) for of_process in lines) > 1


def test_after_four_processes_are_killed_the_search_continues(
    open_sweep: Callable[..., Sweep], sweep_file: Path, storage: Storage, tmp_path: Path
) -> None:
    address = storage(tmp_path)
    processes = [start(sweep_file, address, "--join", "--no-publish") for _ in range(4)]
    wait_for_trials(open_sweep, sweep_file, address, 4, processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()
    ended = {one.number: one.value for one in read(open_sweep, sweep_file, address) if one.state == "complete"}
    last = start(sweep_file, address, "--no-publish")
    output = last.communicate()[0]
    assert last.returncode == 0, output
    assert "continuing the study" in output
    tried = read(open_sweep, sweep_file, address)
    check_nothing_twice(tried)
    assert {one.number: one.value for one in tried if one.number in ended} == ended


def test_processes_that_are_killed_one_by_one_are_replaced(
    open_sweep: Callable[..., Sweep], sweep_file: Path, storage: Storage, tmp_path: Path
) -> None:
    """The others take over the trial of each, without waiting for a heartbeat."""
    address, rng = storage(tmp_path), random.Random(7)
    processes = [start(sweep_file, address, "--join", "--no-publish") for _ in range(3)]
    for count in (2, 5, 8):
        wait_for_trials(open_sweep, sweep_file, address, count, processes)
        victim = processes.pop(rng.randrange(len(processes)))
        victim.kill()
        victim.communicate()
        processes.append(start(sweep_file, address, "--join", "--no-publish"))
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    check_nothing_twice(read(open_sweep, sweep_file, address), killed_again=True)


def test_a_process_does_not_join_unasked(
    open_sweep: Callable[..., Sweep], sweep_file: Path, storage: Storage, tmp_path: Path
) -> None:
    address = storage(tmp_path)
    first = start(sweep_file, address, "--no-publish")
    wait_for_trials(open_sweep, sweep_file, address, 1, [first])
    second = start(sweep_file, address, "--no-publish")
    output = second.communicate()[0]
    assert second.returncode == 2, output
    assert "join them with --join" in output
    first.send_signal(signal.SIGINT)
    output = first.communicate()[0]
    assert first.returncode == 128 + signal.SIGINT, output
    assert "interrupted; the same command continues the search" in output
    tried = read(open_sweep, sweep_file, address)
    assert {one.state for one in tried} <= {"complete", "pruned", "waiting"}


def test_a_password_is_not_shown(sweep_file: Path) -> None:
    process = start(sweep_file, "postgresql://me:secret@127.0.0.1:1/sweeps", "--no-publish")
    output = process.communicate()[0]
    assert process.returncode == 5
    assert "postgresql://me@127.0.0.1:1/sweeps: cannot be opened: " in output
    assert "secret" not in output
