"""Power cuts: every acknowledged operation survives, and every surviving version is complete.

The file systems are the kernel's, on a disk that records each write and flush (recording_disk.py). The power is cut
right after every acknowledgement, with all unflushed data lost, and at random writes, with a random part lost.
"""

from __future__ import annotations

import gc
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_store.errors import StoreError
from model_store.registry.store import open_store
from tests.crashes import operations
from tests.crashes.operations import ALIAS, NAME
from tests.crashes.processes import worker
from tests.crashes.recording_disk import RecordingDisk, make_image, missing_requirement, mounted, recording_disk

CUTS = 60
WORK = [
    *[("publish", 1), ("publish", 2), ("move", 1), ("publish", 3), ("move", 2), ("remove", 1), ("publish", 4)],
    *[("remove", 3), ("move", 4), ("publish", 5), ("move", 5), ("remove", 4), ("publish", 6), ("remove", 6)],
]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class State:
    """The contents of a store: digests by version, and the versions of the alias's revisions."""

    versions: dict[int, str]
    moves: list[int]

    def after(self, operation: str, number: int, result: str) -> State:
        if operation == "publish":
            version, digest = result.split()
            return State({**self.versions, int(version): digest}, self.moves)
        if operation == "move":
            return State(self.versions, [*self.moves, number])
        return State({version: self.versions[version] for version in self.versions if version != number}, self.moves)


@dataclass(frozen=True)
class RecordedRun:
    """A recorded disk: the store's state after each operation, and the length of the disk's log at that time."""

    disk: RecordingDisk
    states: list[State]
    log_lengths: list[int]

    def check_store(self, log_length: int, folder: Path, rng: random.Random | None) -> None:
        """Check a store after a power cut: acknowledged operations are complete, a later one complete or absent."""
        done = sum(log_length >= acknowledged for acknowledged in self.log_lengths) - 1
        image = folder / "cut"
        self.disk.write_image_after_power_cut(log_length, image, rng)
        with mounted(image, folder / "after") as point:
            try:
                assert read_state(point / "models") in self.states[done : done + 2]
                used = sum(operation == "publish" for operation, _ in WORK[:done])
                number, _ = operations.publish(open_store(point / "models"), 99).split()
                assert int(number) in {used + 1, used + 2}
            finally:
                gc.collect()  # memory maps of artifacts keep the file system busy


def read_state(root: Path) -> State:
    """Return the state of a store after verifying every artifact."""
    store = open_store(root)
    try:
        versions = store.versions(NAME)
    except StoreError:
        return State({}, [])
    loaded = [store.load(NAME, number) for number in versions]
    for _, model in loaded:
        model.check_golden()
    moves = store.history(NAME, ALIAS) if ALIAS in store.aliases(NAME) else []
    return State({version.number: version.digest for version, _ in loaded}, [revision.version for revision in moves])


def record_run(kind: str, folder: Path, *defects: str) -> RecordedRun:
    if reason := missing_requirement(kind):
        pytest.skip(reason)
    make_image(kind, folder / "empty")
    try:
        with mounted(folder / "empty", folder / "after"):
            pass
        opened = os.open("/dev/fuse", os.O_RDWR)
    except subprocess.CalledProcessError as e:
        pytest.skip(e.stderr.decode().strip())
    except PermissionError as e:
        pytest.skip(str(e))
    os.close(opened)
    states, log_lengths = [State({}, [])], [0]
    with worker(folder / "warm", *defects) as process, recording_disk(folder / "empty", folder) as (disk, point):
        for operation, number in WORK:
            result = process.run_operation(operation, point / "models", number)
            log_lengths.append(len(disk.log))
            states.append(states[-1].after(operation, number, result["done"]))
        end = len(disk.log)
    del disk.log[end:]  # drop the writes of unmounting
    return RecordedRun(disk, states, log_lengths)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_every_acknowledged_operation_survives_a_power_cut(kind: str, tmp_path: Path) -> None:
    run = record_run(kind, tmp_path)
    rng = random.Random(4)
    for log_length in run.log_lengths:
        run.check_store(log_length, tmp_path, None)
    for _ in range(CUTS):
        run.check_store(rng.randint(0, len(run.disk.log)), tmp_path, rng)


@pytest.mark.parametrize("defect", ["no-sync", "no-directory-sync"])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_store_that_does_not_sync_is_detected(kind: str, defect: str, tmp_path: Path) -> None:
    run = record_run(kind, tmp_path, defect)
    caught = 0
    for log_length in run.log_lengths:
        try:
            run.check_store(log_length, tmp_path, None)
        except AssertionError:
            caught += 1
    assert caught > 0
