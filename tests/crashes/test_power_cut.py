"""Power cuts under a store: whatever was acknowledged is there when the power is back, and all that is there is whole.

The file systems are the kernel's own, on a disk that remembers each write and flush (see `disk`). The power is cut
right after every acknowledgement, with all that was not flushed lost, and at random writes, with a random part lost.
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
from tests.crashes import deeds
from tests.crashes.deeds import ALIAS, NAME
from tests.crashes.disk import Disk, make_image, missing, mounted, recording
from tests.crashes.processes import worker

CUTS = 60
WORK = [
    *[("publish", 1), ("publish", 2), ("move", 1), ("publish", 3), ("move", 2), ("remove", 1), ("publish", 4)],
    *[("remove", 3), ("move", 4), ("publish", 5), ("move", 5), ("remove", 4), ("publish", 6), ("remove", 6)],
]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class State:
    """What a store holds: digests by version, and where the alias went."""

    versions: dict[int, str]
    moves: list[int]

    def after(self, deed: str, number: int, told: str) -> State:
        if deed == "publish":
            version, digest = told.split()
            return State({**self.versions, int(version): digest}, self.moves)
        if deed == "move":
            return State(self.versions, [*self.moves, number])
        return State({version: self.versions[version] for version in self.versions if version != number}, self.moves)


@dataclass(frozen=True)
class Past:
    """A disk on which a store was at work: what it held after each deed, and how long the disk's log was then."""

    disk: Disk
    states: list[State]
    moments: list[int]

    def judge(self, moment: int, folder: Path, rng: random.Random | None) -> None:
        """Cuts the power: all deeds acknowledged until then are done, the one under way is done or not begun."""
        done = sum(moment >= acknowledged for acknowledged in self.moments) - 1
        image = folder / "cut"
        self.disk.cut(moment, image, rng)
        with mounted(image, folder / "after") as point:
            try:
                assert found(point / "models") in self.states[done : done + 2]
                used = sum(deed == "publish" for deed, _ in WORK[:done])
                number, _ = deeds.publish(open_store(point / "models"), 99).split()
                assert int(number) in {used + 1, used + 2}
            finally:
                gc.collect()  # maps of artifacts would keep the file system busy


def found(root: Path) -> State:
    """What a store holds, every artifact of it verified."""
    store = open_store(root)
    try:
        versions = store.versions(NAME)
    except StoreError:
        return State({}, [])
    loaded = [store.load(NAME, number) for number in versions]
    for _, model in loaded:
        model.check_golden()
    moves = store.history(NAME, ALIAS) if ALIAS in store.aliases(NAME) else []
    return State({version.number: version.digest for version, _ in loaded}, [move.version for move in moves])


def worked(kind: str, folder: Path, *sabotages: str) -> Past:
    if reason := missing(kind):
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
    states, moments = [State({}, [])], [0]
    with worker(folder / "warm", *sabotages) as doer, recording(folder / "empty", folder) as (disk, point):
        for deed, number in WORK:
            told = doer.do(deed, point / "models", number)
            moments.append(len(disk.log))
            states.append(states[-1].after(deed, number, told["done"]))
        end = len(disk.log)
    del disk.log[end:]  # what unmounting wrote: a power cut does not unmount
    return Past(disk, states, moments)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_nothing_that_was_acknowledged_goes_with_the_power(kind: str, tmp_path: Path) -> None:
    past = worked(kind, tmp_path)
    rng = random.Random(4)
    for moment in past.moments:
        past.judge(moment, tmp_path, None)
    for _ in range(CUTS):
        past.judge(rng.randint(0, len(past.disk.log)), tmp_path, rng)


@pytest.mark.parametrize("sabotage", ["no-sync", "no-directory-sync"])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_store_that_does_not_sync_is_caught(kind: str, sabotage: str, tmp_path: Path) -> None:
    past = worked(kind, tmp_path, sabotage)
    caught = 0
    for moment in past.moments:
        try:
            past.judge(moment, tmp_path, None)
        except AssertionError:
            caught += 1
    assert caught > 0
