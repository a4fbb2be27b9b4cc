"""Copies between stores: the same bytes, signatures and authors, verified on both sides."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from model_store.artifact.model import Model
from model_store.errors import ArtifactError, StoreError
from model_store.registry import signing
from model_store.registry.copying import copy_version
from model_store.registry.publication import Copy, Publication
from model_store.registry.store import Store, open_store
from model_store.storage.base import MAX_SMALL_OBJECT_BYTES, put_object
from tests.model_store.conftest import replace_object

MONDAY, TUESDAY, FRIDAY = (datetime(2026, 10, day, 12, tzinfo=UTC) for day in (5, 6, 9))
BOB = {"who": "bob", "when": TUESDAY}


@pytest.fixture
def private_key(tmp_path: Path) -> signing.PrivateKey:
    signing.generate_key(tmp_path / "key")
    return signing.load_private_key(tmp_path / "key")


def publish_signed(store: Store, model: Model, key: signing.PrivateKey) -> str:
    version = store.publish("chess", model, who="ada", when=MONDAY)
    by = signing.fingerprint(key.public_key())
    store.add_signature("chess", version.number, by, signing.sign(key, "chess", version.digest))
    return by


def test_a_copy_there_and_back_keeps_digest_signature_and_author(
    everywhere: Store, model: Model, private_key, tmp_path: Path
) -> None:
    """From a directory to each backend, and from there to another directory."""
    store = open_store(tmp_path / "source")
    by = publish_signed(store, model, private_key)
    there = copy_version(store, "chess", 1, everywhere, "chess", **BOB)
    last = open_store(tmp_path / "last")
    back = copy_version(everywhere, "chess", there.version.number, last, "chess", who="cyd", when=FRIDAY)
    assert (back.added, back.signed_by) == (True, [by])
    assert last.path("chess", 1).read_bytes() == store.path("chess", 1).read_bytes()
    find = partial(last.signature, "chess", 1)
    assert signing.verify([private_key.public_key()], "chess", 1, back.version.digest, find) == by
    first = Copy(store.load("chess", 1)[0].location, "bob", TUESDAY)
    second = Copy(everywhere.load("chess", there.version.number)[0].location, "cyd", FRIDAY)
    assert last.publication("chess", 1) == Publication("ada", MONDAY, copies=(first, second))


def test_a_version_that_is_there_is_not_copied_again(everywhere: Store, make_model, tmp_path: Path) -> None:
    source = open_store(tmp_path / "source")
    for seed in range(2):
        source.publish("chess", make_model(seed))
    everywhere.publish("chess", make_model(7))
    first = copy_version(source, "chess", 1, everywhere, "chess", **BOB)
    assert (first.version.number, first.added) == (2, True)
    before = everywhere.publication("chess", 2)
    again = copy_version(source, "chess", 1, everywhere, "chess", who="cyd", when=FRIDAY)
    assert (again.version, again.added) == (first.version, False)
    assert everywhere.publication("chess", 2) == before
    assert everywhere.versions("chess") == [1, 2]
    other = copy_version(source, "chess", 1, everywhere, "go", **BOB)
    assert (other.version.name, other.version.number, other.version.digest) == ("go", 1, first.version.digest)


def test_an_interrupted_copy_is_completed(store: Store, model: Model, private_key, tmp_path: Path) -> None:
    """The process died between the artifact and its signature."""
    by = publish_signed(store, model, private_key)
    target = open_store(tmp_path / "target")
    copy_version(store, "chess", 1, target, "chess", **BOB)
    target.storage.delete(f"chess/signatures/1/{by}.sig")
    done = copy_version(store, "chess", 1, target, "chess", **BOB)
    assert (done.added, done.signed_by) == (False, [by])


def test_signatures_are_not_copied_under_another_name(store: Store, model: Model, private_key) -> None:
    publish_signed(store, model, private_key)
    assert copy_version(store, "chess", 1, store, "go", **BOB).signed_by == []


def test_numbers_of_removed_versions_are_not_reused_by_copies(store: Store, model: Model, make_model, tmp_path) -> None:
    store.publish("chess", model)
    target = open_store(tmp_path / "target")
    copy_version(store, "chess", 1, target, "chess", **BOB)
    target.remove("chess", 1)
    assert copy_version(store, "chess", 1, target, "chess", **BOB).version.number == 2


def test_a_version_without_a_record_stays_without_an_author(store: Store, model: Model, tmp_path: Path) -> None:
    store.publish("chess", model)
    store.storage.delete("chess/1.json")
    target = open_store(tmp_path / "target")
    copy_version(store, "chess", 1, target, "chess", **BOB)
    found = target.publication("chess", 1)
    assert (found.who, found.recorded, [copy.who for copy in found.copies]) == (None, False, ["bob"])
    assert found.when == store.publication("chess", 1).when


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-200] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_damaged_version_is_not_copied(store: Store, model: Model, tmp_path: Path) -> None:
    store.publish("chess", model)
    damage(store.path("chess", 1))
    target = open_store(tmp_path / "target")
    with pytest.raises(ArtifactError):
        copy_version(store, "chess", 1, target, "chess", **BOB)
    assert target.storage.keys("chess/*") == []


def test_a_copy_that_changes_on_its_way_is_detected(store: Store, model: Model, tmp_path: Path, monkeypatch) -> None:
    store.publish("chess", model)
    target = open_store(tmp_path / "target")
    commit = type(target.storage.stage("chess/1.npz").__enter__()).commit

    def broken(staged, key: str) -> bool:
        done = commit(staged, key)
        if key.endswith(".npz"):
            damage(target.root / key)
        return done

    monkeypatch.setattr("model_store.storage.local.LocalStagedObject.commit", broken)
    with pytest.raises(ArtifactError):
        copy_version(store, "chess", 1, target, "chess", **BOB)


def test_a_damaged_version_at_the_destination_is_no_obstacle(store: Store, make_model, tmp_path: Path) -> None:
    store.publish("chess", make_model(1))
    target = open_store(tmp_path / "target")
    put_object(target.storage, "chess/1.npz", b"not an artifact")
    assert copy_version(store, "chess", 1, target, "chess", **BOB).version.number == 2


@pytest.mark.parametrize("name", ["../chess", "", "a/b"])
def test_an_invalid_name_is_rejected(store: Store, model: Model, tmp_path: Path, name: str) -> None:
    store.publish("chess", model)
    with pytest.raises(StoreError, match="expected a letter or digit"):
        copy_version(store, "chess", 1, open_store(tmp_path / "target"), name, **BOB)
    assert not (tmp_path / "target").exists()


def test_nothing_is_copied_if_a_signature_or_the_record_cannot_be_read(
    store: Store, model: Model, private_key, tmp_path: Path
) -> None:
    by = publish_signed(store, model, private_key)
    target = open_store(tmp_path / "target")
    too_long = b"x" * (MAX_SMALL_OBJECT_BYTES + 1)
    lone_surrogate = b'{"who": "\\ud800", "when": "2026-01-01T00:00:00+00:00", "recorded": true, "copies": []}'
    for key, damaged in ((f"chess/signatures/1/{by}.sig", too_long), ("chess/1.json", lone_surrogate)):
        before = store.storage.get(key)
        replace_object(store, key, damaged)
        with pytest.raises(StoreError):
            copy_version(store, "chess", 1, target, "chess", **BOB)
        assert target.storage.keys("chess/*", "chess/*/*/*") == []
        replace_object(store, key, before)
    assert copy_version(store, "chess", 1, target, "chess", **BOB).signed_by == [by]


def test_a_source_whose_path_is_not_utf_8_is_recorded_with_escapes(model: Model, tmp_path: Path) -> None:
    source, target = open_store(tmp_path / os.fsdecode(b"\xff")), open_store(tmp_path / "target")
    source.publish("chess", model)
    copy_version(source, "chess", 1, target, "chess", **BOB)
    assert target.publication("chess", 1).copies[0].source == f"{tmp_path}/\\xff/chess/1.npz"
