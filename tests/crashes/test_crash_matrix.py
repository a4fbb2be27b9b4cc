"""Process death, and every error, at every system call of every operation: it is complete or has no effect.

`strace` kills a process before its n-th call, or returns an error in place of the kernel.
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
from tests.crashes import operations
from tests.crashes.operations import ALIAS, NAME
from tests.crashes.processes import Worker, worker

FAULTS = {"death": "error=EIO:signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC", "EINTR": "error=EINTR"}
OPERATIONS = {"publish": 9, "move": 2, "remove": 2}
MEMORY = {"brk", "futex", "madvise", "mmap", "mprotect", "mremap", "munmap"}
"""Memory calls: an error there can raise any exception, and their number varies."""
_CALL = re.compile(r"(\w+)\(")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not on the PATH"),
]


@pytest.fixture(scope="module")
def correct_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("warm") / "models") as made:
        yield made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions, and an alias on the first."""
    root = tmp_path_factory.mktemp("template") / "models"
    store = open_store(root)
    for seed in range(2):
        operations.publish(store, seed)
    operations.move(store, 1)
    return root


def run_with_faults(
    operation: str, fault: str, process: Worker, template: Path | None, tmp_path: Path
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a store and the operation's result for a fault at each system call of the operation.

    The stores are copies of the template; without one, they do not exist yet.
    """

    def fresh(name: str) -> Path:
        return shutil.copytree(template, tmp_path / name) if template else tmp_path / name

    log = tmp_path / "log"
    root = fresh("without-fault")
    assert "done" in process.run_traced(operation, root, OPERATIONS[operation], "-o", str(log))
    counts: Counter[str] = Counter()
    for call in [match[1] for line in log.read_text().splitlines() if (match := _CALL.match(line))]:
        counts[call] += 1
        if counts["getsid"] != 1 or call == "getsid":
            continue
        root = fresh(f"{call}-{counts[call]}")
        inject = f"inject={call}:{FAULTS[fault]}:when={counts[call]}"
        result = process.run_traced(operation, root, OPERATIONS[operation], "-o", str(log), "-e", inject)
        injected = result == {"killed": -9} if fault == "death" else "(INJECTED)" in log.read_text()
        if call in MEMORY and not injected:
            continue  # the number of memory calls varies between runs
        assert injected, (call, counts[call], result)
        assert call in MEMORY or "crashed" not in result, (call, result)
        yield root, result


def check_store(root: Path, operation: str, result: dict[str, str]) -> None:
    """Check a store after a fault: acknowledged results exist, all versions are complete, and a retry succeeds."""
    store = open_store(root)
    versions, head = store.versions(NAME), store.resolve(NAME, ALIAS)
    for number in versions:
        store.load(NAME, number)[1].check_golden()
    moves = len(store.history(NAME, ALIAS))
    done = result.get("done")
    if operation == "publish":
        assert (versions, head) in [([1, 2, 3], 1)] + [([1, 2], 1)] * (not done)
        assert done is None or done == f"3 {npz.read_digest(store.path(NAME, 3))}"
        assert operations.publish(store, 9).split()[0] == str(len(versions) + 1)
    elif operation == "move":
        assert (versions, moves, head) in [([1, 2], 2, 2)] + [([1, 2], 1, 1)] * (not done)
        assert operations.move(store, 2) == str(moves + 1)
        assert store.resolve(NAME, ALIAS) == 2
    else:
        assert (versions, head) in [([1], 1)] + [([1, 2], 1)] * (not done)
        if 2 in versions:
            operations.remove(store, 2)
        with pytest.raises(NotFoundError):
            operations.remove(store, 2)
        assert operations.publish(store, 9).split()[0] == "3"  # the number of a removed version is never reused
    for garbage in store.find_garbage(now=datetime.now(UTC), grace=timedelta(0)):
        store.delete_garbage(garbage)
    kept = {f"{number}.npz" for number in store.versions(NAME)}
    records = {f"{number}.json" for number in store.versions(NAME)}
    found = {path.name for path in (root / NAME).iterdir()} - {"aliases", "2.removed"}
    assert found - records == kept
    missing = records - found  # of a version whose publisher died before it wrote the record
    assert not missing or (missing == {"3.json"} and operation == "publish" and not done)
    assert {path.name for path in (root / NAME / "aliases" / ALIAS).iterdir()} <= {"1.json", "2.json", "3.json"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_with_a_fault_at_any_system_call_is_complete_or_has_no_effect(
    operation: str, fault: str, correct_worker: Worker, template: Path, tmp_path: Path
) -> None:
    count = 0
    for root, result in run_with_faults(operation, fault, correct_worker, template, tmp_path):
        try:
            check_store(root, operation, result)
        except BaseException as e:
            e.add_note(f"{fault} at {root.name}; result {result}")
            raise
        count += 1
    assert count > 20


@pytest.mark.parametrize("fault", FAULTS)
def test_a_first_publish_with_a_fault_at_any_system_call_is_complete_or_has_no_effect(
    fault: str, correct_worker: Worker, tmp_path: Path
) -> None:
    """The directories of the store and of the model do not exist yet."""
    made = 0
    for root, result in run_with_faults("publish", fault, correct_worker, None, tmp_path):
        try:
            store = open_store(root)
            versions = store.versions(NAME) if root.exists() and store.names() else []
            assert versions in [[1]] + [[]] * ("done" not in result)
            assert operations.publish(store, 9).split()[0] == str(len(versions) + 1)
            for number in store.versions(NAME):
                store.load(NAME, number)[1].check_golden()
        except BaseException as e:
            e.add_note(f"{fault} at {root.name}; result {result}")
            raise
        made += root.name.startswith("mkdir-")
    assert made == 2


def test_a_store_that_writes_in_place_is_detected(template: Path, tmp_path: Path) -> None:
    detected = 0
    with worker(tmp_path / "warm", "in-place") as broken_worker:
        for root, result in run_with_faults("publish", "death", broken_worker, template, tmp_path):
            try:
                check_store(root, "publish", result)
            except Exception:  # noqa: BLE001 - a broken version raises many kinds of errors
                detected += 1
    assert detected > 0
