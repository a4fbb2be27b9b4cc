"""A store on a full disk of 1 MiB: a failed publish raises an error, and all published versions stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.errors import StoreError
from model_store.registry.store import open_store
from tests.crashes import operations
from tests.crashes.operations import ALIAS, NAME
from tests.small_disk import small_disk


@pytest.fixture(name="small_disk")
def disk_of_one_mib(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, "1m") as location:
        yield location


def fill(disk: Path, leaving: int) -> None:
    status = os.statvfs(disk)
    with (disk / "ballast").open("ab") as ballast:
        ballast.write(bytes(status.f_bavail * status.f_frsize - leaving))


def test_a_full_disk_fails_publishes_and_loses_nothing(small_disk: Path) -> None:
    store = open_store(small_disk / "models")
    fill(small_disk, leaving=100_000)
    for seed in range(100):
        try:
            operations.publish(store, seed)
        except StoreError as e:
            assert "cannot publish: No space left on device; free some space" in str(e)  # noqa: PT017 - the failing publish varies
            break
    assert store.versions(NAME) == list(range(1, seed + 1))
    assert 1 < seed < 99
    for number in store.versions(NAME):
        store.load(NAME, number)[1].check_golden()
    assert list(store.root.rglob(".tmp-*")) == []

    fill(small_disk, leaving=0)
    with pytest.raises(StoreError, match=r"cannot move an alias: No space left on device; free some space"):
        operations.move(store, 1)
    assert store.aliases(NAME) == {}

    (small_disk / "ballast").unlink()
    store.remove(NAME, 1)
    assert operations.publish(store, 99).split()[0] == str(seed + 1)
    operations.move(store, 2)
    assert store.resolve(NAME, ALIAS) == 2
