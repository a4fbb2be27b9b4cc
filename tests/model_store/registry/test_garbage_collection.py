"""What the dead left is found and collected; what lives, or is of any use, is not."""

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
AT_ONCE = timedelta(0)
KEY = "0123456789abcdef"


def collected(store: Store, grace: timedelta = AT_ONCE, now: datetime | None = None) -> dict[str, str]:
    found = store.find_garbage(now=now or datetime.now(UTC), grace=grace)
    for leftover in found:
        store.delete_garbage(leftover)
    return {leftover.key: leftover.what for leftover in found}


def left(path: Path, ago: timedelta) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left")
    stamp = (datetime.now(UTC) - ago).timestamp()
    os.utime(path, (stamp, stamp))


def test_drafts_of_the_dead_are_collected_wherever_they_lie(store: Store, model: Model) -> None:
    store.publish("chess", model)
    places = ["chess/.tmp-01", "chess/aliases/champion/.tmp-02", "go/.tmp-03", ".tmp-04"]
    for location in places:
        left(store.root / location, 2 * GRACE)
    assert list(collected(store, GRACE)) == sorted(places)
    assert not list(store.root.rglob(".tmp-*"))
    assert collected(store) == {}


@pytest.mark.parametrize(("ago", "goes"), [(0.5, False), (2, True), (-0.5, False), (-2, True)])
def test_the_grace_spares_what_is_new_by_any_clock(store: Store, model: Model, ago: float, goes: bool) -> None:
    store.publish("chess", model)
    left(store.root / "chess" / ".tmp-01", ago * GRACE)
    assert bool(collected(store, GRACE)) is goes


@pytest.mark.parametrize("jump", [timedelta(0), timedelta(days=9000), timedelta(days=-9000)])
def test_a_publish_under_way_is_safe_wherever_the_clock_jumps_to(store: Store, model: Model, jump: timedelta) -> None:
    store.publish("chess", model)
    with store.storage.stage("chess/1.npz") as staged:
        assert collected(store, now=datetime.now(UTC) + jump) == {}
        assert staged.commit("chess/7.npz")
    assert collected(store, now=datetime.now(UTC) + jump) == {}


def test_what_is_left_of_a_removed_version_goes_and_its_tombstone_stays(everywhere: Store, model: Model) -> None:
    for _ in range(2):
        everywhere.publish("chess", model)
    artifact = everywhere.path("chess", 2).read_bytes()
    everywhere.remove("chess", 2)
    keys = ["chess/2.html", "chess/2.npz", f"chess/signatures/2/{KEY}.sig"]
    for key in keys:
        put_object(everywhere.storage, key, artifact)
    assert collected(everywhere, GRACE) == {}
    assert collected(everywhere, GRACE, datetime.now(UTC) + 2 * GRACE) == dict.fromkeys(keys, "of a removed version")
    assert sorted(everywhere.storage.keys("chess/*", "*/signatures/*/*")) == ["chess/1.npz", "chess/2.removed"]
    assert everywhere.publish("chess", model).number == 3


def test_a_removal_that_an_alias_forbids_is_undone(everywhere: Store, model: Model) -> None:
    """As when the remover died between its tombstone and seeing that an alias had come."""
    everywhere.publish("chess", model)
    everywhere.set_alias("chess", "champion", 1, who="", why="", when=datetime.now(UTC))
    put_object(everywhere.storage, "chess/1.removed", b"")
    assert collected(everywhere, GRACE) == {}
    assert collected(everywhere) == {"chess/1.removed": "of a removal that an alias forbids"}
    assert everywhere.resolve("chess", "champion") == 1


def test_nothing_of_a_version_goes_while_an_alias_cannot_be_read(everywhere: Store, model: Model) -> None:
    everywhere.publish("chess", model)
    everywhere.set_alias("chess", "champion", 1, who="", why="", when=datetime.now(UTC))
    put_object(everywhere.storage, "chess/1.removed", b"")
    put_object(everywhere.storage, "chess/aliases/champion/2.json", b"{")
    assert collected(everywhere) == {}


def test_a_report_or_signature_without_its_version_goes(everywhere: Store, model: Model) -> None:
    everywhere.publish("chess", model)
    for number in (1, 2):
        put_object(everywhere.storage, f"chess/{number}.html", b"report")
        everywhere.add_signature("chess", number, KEY, b"signed")
    gone = ["chess/2.html", f"chess/signatures/2/{KEY}.sig"]
    assert collected(everywhere) == dict.fromkeys(gone, "of a version that is not there")
    assert everywhere.signing_keys("chess", 1) == [KEY]


def test_nothing_of_use_is_garbage(everywhere: Store, model: Model) -> None:
    for _ in range(3):
        everywhere.publish("chess", model)
    everywhere.set_alias("chess", "champion", 1, who="", why="", when=datetime.now(UTC))
    everywhere.remove("chess", 3)
    for stranger in ("README", "chess/notes.txt"):
        put_object(everywhere.storage, stranger, b"strangers are left alone")
    before = contents(everywhere)
    assert "README" in before
    assert collected(everywhere) == {}
    assert contents(everywhere) == before


def test_a_store_that_is_not_there_is_told(store: Store) -> None:
    with pytest.raises(StoreError, match="cannot look for garbage"):
        collected(store)
