"""The cache holds private, verified copies: what happens to the store's file does not happen to the copy."""

from __future__ import annotations

import gc
import os
import stat
from pathlib import Path

import pytest

from model_store import artifact, cache
from model_store.errors import ArtifactError, StoreError


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "run" / "cache"


def test_a_copy_is_named_by_digest_and_is_private_and_read_only(written: Path, cache_dir: Path) -> None:
    copy = cache.localise(written, cache_dir)
    assert copy == cache_dir / f"{artifact.digest(written)}.npz"
    assert copy.read_bytes() == written.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o400
    assert stat.S_IMODE(cache_dir.stat().st_mode) == 0o700
    assert os.listdir(cache_dir) == [copy.name]  # noqa: PTH208 - names, to be compared


def test_a_copy_is_made_once(written: Path, cache_dir: Path) -> None:
    first = cache.localise(written, cache_dir).stat().st_ino
    assert cache.localise(written, cache_dir).stat().st_ino == first


def test_a_mapped_copy_survives_its_original_being_cut(written: Path, cache_dir: Path) -> None:
    model = artifact.read(cache.localise(written, cache_dir))
    before = model.predict([[30, "Bath"]])
    os.truncate(written, 0)
    gc.collect()
    assert model.predict([[30, "Bath"]]) == before


def test_a_damaged_original_is_named_and_leaves_no_copy(written: Path, cache_dir: Path) -> None:
    data = written.read_bytes()
    weights = artifact.read(written).network.arrays()["modules.0.weights"].tobytes()
    written.write_bytes(data.replace(weights, weights[::-1]))
    with pytest.raises(ArtifactError, match=rf"^{written}: modules\.0\.weights: wanted SHA-256"):
        cache.localise(written, cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_an_original_that_changes_while_it_is_copied_is_refused(
    written: Path, cache_dir: Path, make_model, monkeypatch
) -> None:
    digest = artifact.digest

    def changing(path: Path) -> str:
        found = digest(path)
        artifact.write(path, make_model(seed=5))
        return found

    monkeypatch.setattr(artifact, "digest", changing)
    with pytest.raises(ArtifactError, match="found it changed while it was copied"):
        cache.localise(written, cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_a_cache_that_others_can_write_to_is_refused(written: Path, cache_dir: Path) -> None:
    cache_dir.mkdir(parents=True)
    cache_dir.chmod(0o777)
    with pytest.raises(StoreError, match="wanted a directory that only this user can write to, found mode 777"):
        cache.localise(written, cache_dir)


def test_a_cache_that_cannot_be_made_is_told(written: Path) -> None:
    with pytest.raises(StoreError, match="cannot keep a copy"):
        cache.localise(written, written / "cache")


def test_trimming_keeps_what_is_wanted_and_what_is_mapped(written: Path, cache_dir: Path, make_model) -> None:
    model = artifact.read(cache.localise(written, cache_dir))
    other = written.with_name("other.npz")
    kept = artifact.write(other, make_model(seed=5))
    copy = cache.localise(other, cache_dir)
    cache.trim(cache_dir, {kept})
    assert list(cache_dir.iterdir()) == [copy]
    assert model.predict([[30, "Bath"]])
    cache.trim(cache_dir / "nowhere", set())
