"""Death, and every error, at every system call of every deed: all of it was done, or nothing.

`strace` kills a process before its n-th call, or answers the call in the kernel's place.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model_store.artifact import npz
from model_store.errors import NotFoundError
from model_store.registry.store import open_store
from tests.crashes import deeds
from tests.crashes.deeds import ALIAS, NAME
from tests.crashes.processes import Worker, worker

HARMS = {"death": "error=EIO:signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC", "EINTR": "error=EINTR"}
DEEDS = {"publish": 9, "move": 2, "remove": 2}
MEMORY = {"brk", "futex", "madvise", "mmap", "mprotect", "mremap", "munmap"}
"""Calls that are not about the store: an error there may become any exception, and their number varies."""
_CALL = re.compile(r"(\w+)\(")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace on the PATH"),
]


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("warm") / "models") as made:
        yield made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions, and an alias on the first."""
    root = tmp_path_factory.mktemp("template") / "models"
    store = open_store(root)
    for seed in range(2):
        deeds.publish(store, seed)
    deeds.move(store, 1)
    return root


def harmed(
    deed: str, harm: str, doer: Worker, template: Path | None, tmp_path: Path
) -> Iterator[tuple[Path, dict[str, str]]]:
    """One store after another in which a deed was harmed, each at one call further on, and what the doer said.

    The stores are copies of the template; without one, they are not there yet.
    """

    def fresh(name: str) -> Path:
        return shutil.copytree(template, tmp_path / name) if template else tmp_path / name

    log = tmp_path / "log"
    root = fresh("unharmed")
    assert "done" in doer.do_watched(deed, root, DEEDS[deed], "-o", str(log))
    counts: Counter[str] = Counter()
    for call in [match[1] for line in log.read_text().splitlines() if (match := _CALL.match(line))]:
        counts[call] += 1
        if counts["getsid"] != 1 or call == "getsid":
            continue
        root = fresh(f"{call}-{counts[call]}")
        inject = f"inject={call}:{HARMS[harm]}:when={counts[call]}"
        told = doer.do_watched(deed, root, DEEDS[deed], "-o", str(log), "-e", inject)
        met = told == {"killed": -9} if harm == "death" else "(INJECTED)" in log.read_text()
        if call in MEMORY and not met:
            continue  # memory is asked for as it is needed: a time more in one run than in another
        assert met, (call, counts[call], told)
        assert call in MEMORY or "crashed" not in told, (call, told)
        yield root, told


def judge(root: Path, deed: str, told: dict[str, str]) -> None:
    """Whatever happened: what was acknowledged is there, what is there is whole, and the deed can be done again."""
    store = open_store(root)
    versions, head = store.versions(NAME), store.resolve(NAME, ALIAS)
    for number in versions:
        store.load(NAME, number)[1].check_golden()
    moves = len(store.history(NAME, ALIAS))
    done = told.get("done")
    if deed == "publish":
        assert (versions, head) in [([1, 2, 3], 1)] + [([1, 2], 1)] * (not done)
        assert done is None or done == f"3 {npz.read_digest(store.path(NAME, 3))}"
        assert deeds.publish(store, 9).split()[0] == str(len(versions) + 1)
    elif deed == "move":
        assert (versions, moves, head) in [([1, 2], 2, 2)] + [([1, 2], 1, 1)] * (not done)
        assert deeds.move(store, 2) == str(moves + 1)
        assert store.resolve(NAME, ALIAS) == 2
    else:
        assert (versions, head) in [([1], 1)] + [([1, 2], 1)] * (not done)
        if 2 in versions:
            deeds.remove(store, 2)
        with pytest.raises(NotFoundError):
            deeds.remove(store, 2)
        assert deeds.publish(store, 9).split()[0] == "3"  # whatever is left of 2, its number stays used
    for leftover in store.find_garbage(now=datetime.now(UTC), grace=timedelta(0)):
        store.delete_garbage(leftover)
    kept = {f"{number}.npz" for number in store.versions(NAME)}
    assert {path.name for path in (root / NAME).iterdir()} - {"aliases", "2.removed"} == kept
    assert {path.name for path in (root / NAME / "aliases" / ALIAS).iterdir()} <= {"1.json", "2.json", "3.json"}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("deed", DEEDS)
def test_a_deed_harmed_at_any_system_call_is_done_or_not_begun(
    deed: str, harm: str, careful: Worker, template: Path, tmp_path: Path
) -> None:
    count = 0
    for root, told in harmed(deed, harm, careful, template, tmp_path):
        try:
            judge(root, deed, told)
        except BaseException as e:
            e.add_note(f"{harm} at {root.name}; it said {told}")
            raise
        count += 1
    assert count > 20


@pytest.mark.parametrize("harm", HARMS)
def test_a_first_publish_harmed_at_any_system_call_leaves_a_store_or_none(
    harm: str, careful: Worker, tmp_path: Path
) -> None:
    """Where the directories of the store and of the model are yet to be made."""
    made = 0
    for root, told in harmed("publish", harm, careful, None, tmp_path):
        try:
            store = open_store(root)
            versions = store.versions(NAME) if root.exists() and store.names() else []
            assert versions in [[1]] + [[]] * ("done" not in told)
            assert deeds.publish(store, 9).split()[0] == str(len(versions) + 1)
            for number in store.versions(NAME):
                store.load(NAME, number)[1].check_golden()
        except BaseException as e:
            e.add_note(f"{harm} at {root.name}; it said {told}")
            raise
        made += root.name.startswith("mkdir-")
    assert made == 2


def test_a_store_that_writes_where_readers_look_is_caught(template: Path, tmp_path: Path) -> None:
    caught = 0
    with worker(tmp_path / "warm", "in-place") as careless:
        for root, told in harmed("publish", "death", careless, template, tmp_path):
            try:
                judge(root, "publish", told)
            except Exception:  # noqa: BLE001 - a broken version breaks in many ways
                caught += 1
    assert caught > 0
