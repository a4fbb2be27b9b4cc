"""Garbage collection deletes what dead processes left, and nothing that is in use."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model_store.artifact.model import Model
from model_store.errors import StoreError
from model_store.registry.store import Store
from model_store.storage.base import put_object
from tests.model_store.conftest import contents

GRACE = timedelta(hours=1)
NO_GRACE = timedelta(0)
KEY = "0123456789abcdef"


def collect(store: Store, grace: timedelta = NO_GRACE, now: datetime | None = None) -> dict[str, str]:
    found = store.find_garbage(now=now or datetime.now(UTC), grace=grace)
    for garbage in found:
        store.delete_garbage(garbage)
    return {garbage.key: garbage.reason for garbage in found}


def write_old_file(path: Path, ago: timedelta) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"old")
    stamp = (datetime.now(UTC) - ago).timestamp()
    os.utime(path, (stamp, stamp))


def test_staged_files_of_dead_processes_are_deleted_in_every_folder(store: Store, model: Model) -> None:
    store.publish("chess", model)
    keys = ["chess/.tmp-01", "chess/aliases/champion/.tmp-02", "go/.tmp-03", ".tmp-04"]
    for key in keys:
        write_old_file(store.root / key, 2 * GRACE)
    assert list(collect(store, GRACE)) == sorted(keys)
    assert not list(store.root.rglob(".tmp-*"))
    assert collect(store) == {}


@pytest.mark.parametrize(("ago", "deleted"), [(0.5, False), (2, True), (-0.5, False), (-2, True)])
def test_the_grace_period_protects_new_files_whatever_the_clock_says(
    store: Store, model: Model, ago: float, deleted: bool
) -> None:
    store.publish("chess", model)
    write_old_file(store.root / "chess" / ".tmp-01", ago * GRACE)
    assert bool(collect(store, GRACE)) is deleted


@pytest.mark.parametrize("jump", [timedelta(0), timedelta(days=9000), timedelta(days=-9000)])
def test_a_publish_in_progress_is_safe_whatever_the_clock_says(store: Store, model: Model, jump: timedelta) -> None:
    store.publish("chess", model)
    with store.storage.stage("chess/1.npz") as staged:
        assert collect(store, now=datetime.now(UTC) + jump) == {}
        assert staged.commit("chess/7.npz")
    assert collect(store, now=datetime.now(UTC) + jump) == {}


def test_files_of_a_removed_version_are_deleted_and_its_tombstone_stays(everywhere: Store, model: Model) -> None:
    for _ in range(2):
        everywhere.publish("chess", model)
    artifact = everywhere.path("chess", 2).read_bytes()
    everywhere.remove("chess", 2)
    keys = ["chess/2.html", "chess/2.json", "chess/2.npz", f"chess/signatures/2/{KEY}.sig"]
    for key in keys:
        put_object(everywhere.storage, key, artifact)
    assert collect(everywhere, GRACE) == {}
    assert collect(everywhere, GRACE, datetime.now(UTC) + 2 * GRACE) == dict.fromkeys(keys, "file of a removed version")
    assert sorted(everywhere.storage.keys("chess/*", "*/signatures/*/*")) == [
        "chess/1.json",
        "chess/1.npz",
        "chess/2.removed",
    ]
    assert everywhere.publish("chess", model).number == 3


def test_the_tombstone_of_an_aliased_version_is_deleted(everywhere: Store, model: Model) -> None:
    """The removal died after writing its tombstone, while an alias was being set."""
    everywhere.publish("chess", model)
    everywhere.set_alias("chess", "champion", 1, who="", why="", when=datetime.now(UTC))
    put_object(everywhere.storage, "chess/1.removed", b"")
    assert collect(everywhere, GRACE) == {}
    assert collect(everywhere) == {"chess/1.removed": "tombstone of an aliased version"}
    assert everywhere.resolve("chess", "champion") == 1


def test_no_version_file_is_deleted_while_an_alias_is_unreadable(everywhere: Store, model: Model) -> None:
    everywhere.publish("chess", model)
    everywhere.set_alias("chess", "champion", 1, who="", why="", when=datetime.now(UTC))
    put_object(everywhere.storage, "chess/1.removed", b"")
    put_object(everywhere.storage, "chess/aliases/champion/2.json", b"{")
    assert collect(everywhere) == {}


def test_reports_records_and_signatures_without_a_version_are_deleted(everywhere: Store, model: Model) -> None:
    everywhere.publish("chess", model)
    for number in (1, 2):
        put_object(everywhere.storage, f"chess/{number}.html", b"report")
        put_object(everywhere.storage, f"chess/{number}.json", b"{}")
        everywhere.add_signature("chess", number, KEY, b"signed")
    deleted = ["chess/2.html", "chess/2.json", f"chess/signatures/2/{KEY}.sig"]
    assert collect(everywhere) == dict.fromkeys(deleted, "file of a version that does not exist")
    assert everywhere.signing_keys("chess", 1) == [KEY]


def test_versions_aliases_tombstones_and_unknown_files_are_not_garbage(everywhere: Store, model: Model) -> None:
    for _ in range(3):
        everywhere.publish("chess", model)
    everywhere.set_alias("chess", "champion", 1, who="", why="", when=datetime.now(UTC))
    everywhere.remove("chess", 3)
    for unknown in ("README", "chess/notes.txt"):
        put_object(everywhere.storage, unknown, b"not ours")
    before = contents(everywhere)
    assert "README" in before
    assert collect(everywhere) == {}
    assert contents(everywhere) == before


def test_a_missing_store_raises(store: Store) -> None:
    with pytest.raises(StoreError, match="cannot look for garbage"):
        collect(store)
