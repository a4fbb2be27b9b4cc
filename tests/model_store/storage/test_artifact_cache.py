"""The artifact cache: private, verified copies that do not change with the store's file."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_store.artifact import npz
from model_store.artifact.model import Golden, Model
from model_store.errors import ArtifactError, StoreError
from model_store.storage import artifact_cache


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "run" / "cache"


def copies(cache_dir: Path) -> list[Path]:
    """Return the files of the cache, without its lock."""
    return [path for path in cache_dir.iterdir() if path.name != ".lock"]


def test_a_copy_is_named_by_digest_and_is_private_and_read_only(written: Path, cache_dir: Path) -> None:
    copy = artifact_cache.cache_file(written, cache_dir)
    assert copy == cache_dir / f"{npz.read_digest(written)}.npz"
    assert copy.read_bytes() == written.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o400
    assert stat.S_IMODE(cache_dir.stat().st_mode) == 0o700
    assert copies(cache_dir) == [copy]


def test_an_existing_copy_is_reused(written: Path, cache_dir: Path) -> None:
    first = artifact_cache.cache_file(written, cache_dir).stat().st_ino
    assert artifact_cache.cache_file(written, cache_dir).stat().st_ino == first


def test_one_thread_verifies_a_copy_while_the_others_wait(written: Path, cache_dir: Path, monkeypatch) -> None:
    verified = []
    read = npz.read

    def counting(path: Path, **options: bool) -> Model:
        verified.append(path)
        return read(path, **options)

    monkeypatch.setattr(npz, "read", counting)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: artifact_cache.cache_file(written, cache_dir), range(8)))
    assert len(found) == len(verified) == 1


def test_the_lock_is_released_when_its_holder_dies(written: Path, cache_dir: Path) -> None:
    holder = "import sys, time; from pathlib import Path; from model_store.storage import artifact_cache\n"
    holder += "lock = artifact_cache._exclusive_lock(Path(sys.argv[1])); lock.__enter__()\n"
    holder += "print('locked', flush=True); time.sleep(600)"
    cache_dir.mkdir(mode=0o700, parents=True)
    with subprocess.Popen([sys.executable, "-c", holder, cache_dir], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(artifact_cache.cache_file, written, cache_dir)
            assert not waiting.done()
            process.kill()
            assert waiting.result().exists()


def test_temporary_files_of_dead_processes_are_removed(written: Path, cache_dir: Path) -> None:
    cache_dir.mkdir(mode=0o700, parents=True)
    (cache_dir / ".tmp-0123456789abcdef").write_bytes(b"the beginning of a large model")
    copy = artifact_cache.cache_file(written, cache_dir)
    assert copies(cache_dir) == [copy]


def test_a_copy_with_wrong_golden_outputs_is_not_kept(model: Model, cache_dir: Path) -> None:
    assert model.golden is not None
    path = cache_dir.parent.parent / "wrong.npz"
    golden = Golden(model.golden.instances, model.golden.outputs[::-1].copy())
    npz.write(path, Model(model.network, model.signature, golden=golden))
    for _ in range(2):
        with pytest.raises(ArtifactError, match=rf"^{path}: golden\.outputs"):
            artifact_cache.cache_file(path, cache_dir)
    assert copies(cache_dir) == []


def test_a_mapped_copy_survives_truncation_of_the_original(written: Path, cache_dir: Path) -> None:
    model = npz.read(artifact_cache.cache_file(written, cache_dir))
    before = model.predict([[30, "Bath"]])
    os.truncate(written, 0)
    gc.collect()
    assert model.predict([[30, "Bath"]]) == before


def test_a_damaged_original_raises_and_leaves_no_copy(written: Path, cache_dir: Path) -> None:
    data = written.read_bytes()
    weights = npz.read(written).network.arrays()["modules.0.weights"].tobytes()
    written.write_bytes(data.replace(weights, weights[::-1]))
    with pytest.raises(ArtifactError, match=rf"^{written}: modules\.0\.weights: expected SHA-256"):
        artifact_cache.cache_file(written, cache_dir)
    assert copies(cache_dir) == []


def test_an_original_that_changes_during_the_copy_is_rejected(
    written: Path, cache_dir: Path, make_model, monkeypatch
) -> None:
    digest = npz.read_digest

    def changing(path: Path) -> str:
        found = digest(path)
        npz.write(path, make_model(seed=5))
        return found

    monkeypatch.setattr(npz, "read_digest", changing)
    with pytest.raises(ArtifactError, match="found it changed during the copy"):
        artifact_cache.cache_file(written, cache_dir)
    assert copies(cache_dir) == []


def test_a_cache_writable_by_others_is_rejected(written: Path, cache_dir: Path) -> None:
    cache_dir.mkdir(parents=True)
    cache_dir.chmod(0o777)
    with pytest.raises(StoreError, match="expected a directory that only this user can write to, found mode 777"):
        artifact_cache.cache_file(written, cache_dir)


def test_a_cache_that_cannot_be_created_raises(written: Path) -> None:
    with pytest.raises(StoreError, match="cannot keep a copy"):
        artifact_cache.cache_file(written, written / "cache")


def test_remove_unused_copies_keeps_used_and_mapped_ones(written: Path, cache_dir: Path, make_model) -> None:
    model = npz.read(artifact_cache.cache_file(written, cache_dir))
    other = written.with_name("other.npz")
    kept = npz.write(other, make_model(seed=5))
    copy = artifact_cache.cache_file(other, cache_dir)
    artifact_cache.remove_unused_copies(cache_dir, {kept})
    assert copies(cache_dir) == [copy]
    assert model.predict([[30, "Bath"]])
    artifact_cache.remove_unused_copies(cache_dir / "nowhere", set())
