"""The artifact cache: private, verified copies that do not change with the store's file."""

from __future__ import annotations

import errno
import gc
import os
import re
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_store.artifact import npz
from model_store.artifact.model import Golden, Model
from model_store.errors import ArtifactError, StoreError
from model_store.storage import artifact_cache
from model_store.utils import file_lock


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


@pytest.mark.parametrize("held", [".lock", "the copy"])
def test_a_lock_that_another_process_holds_is_waited_for_aloud_and_not_for_ever(
    held: str, written: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache_dir.mkdir(mode=0o700, parents=True)
    path = cache_dir / ".lock" if held == ".lock" else artifact_cache.cache_file(written, cache_dir)
    holder = "import fcntl, sys; file = open(sys.argv[1], 'a' if sys.argv[1].endswith('.lock') else 'r')\n"
    holder += "fcntl.flock(file, fcntl.LOCK_EX); print('locked', flush=True); sys.stdin.read()"
    monkeypatch.setattr(file_lock, "_SILENT_SECONDS", 0.05)
    monkeypatch.setattr(file_lock, "MAX_WAIT_SECONDS", 0.2)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holder, path], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises((StoreError, ArtifactError), match=rf"{path}: another process has held the lock for"):
            npz.read(artifact_cache.cache_file(written, cache_dir), mapped=True)
        process.communicate(b"")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"waiting for the lock {path}, which another process holds")
    assert npz.read(artifact_cache.cache_file(written, cache_dir), mapped=True)


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

    monkeypatch.setattr(npz, "read_claimed_digest", changing)
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


def test_remove_unused_copies_keeps_what_the_caller_uses(written: Path, cache_dir: Path, make_model) -> None:
    artifact_cache.cache_file(written, cache_dir)
    other = written.with_name("other.npz")
    kept = npz.write(other, make_model(seed=5))
    copy = artifact_cache.cache_file(other, cache_dir)
    assert artifact_cache.remove_unused_copies(cache_dir, {kept})
    assert copies(cache_dir) == [copy]
    assert artifact_cache.remove_unused_copies(cache_dir / "nowhere", set())


def test_remove_unused_copies_spares_the_first_ones_within_a_limit(
    written: Path, cache_dir: Path, make_model, monkeypatch
) -> None:
    made = [artifact_cache.cache_file(written, cache_dir)]
    for seed in (5, 6):
        npz.write(other := written.with_name(f"{seed}.npz"), make_model(seed=seed))
        made.append(artifact_cache.cache_file(other, cache_dir))
    monkeypatch.setattr(artifact_cache, "MAX_SPARE_BYTES", made[0].stat().st_size + made[2].stat().st_size)
    assert artifact_cache.remove_unused_copies(cache_dir, set(), ["0" * 64, made[2].stem, made[0].stem, made[1].stem])
    assert set(copies(cache_dir)) == {made[0], made[2]}


def test_remove_unused_copies_removes_nothing_but_copies(cache_dir: Path) -> None:
    cache_dir.mkdir(parents=True)
    for name in ("1.npz", "data.npz", f"{'g' * 64}.npz", f"{'a' * 64}.txt"):
        (cache_dir / name).touch()
    (copy := cache_dir / f"{'a' * 64}.npz").touch()
    assert artifact_cache.remove_unused_copies(cache_dir, set())
    assert not copy.exists()
    assert len(list(cache_dir.iterdir())) == 4


def test_remove_unused_copies_keeps_what_another_process_has_mapped(written: Path, cache_dir: Path) -> None:
    """The lock lasts as long as the arrays, and ends with the process."""
    copy = artifact_cache.cache_file(written, cache_dir)
    holder = "import sys; from model_store.artifact import npz\n"
    holder += "model = npz.read(sys.argv[1], mapped=True)\nprint('mapped', flush=True); sys.stdin.readline()\n"
    holder += "del model\nprint('unmapped', flush=True); sys.stdin.readline()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holder, copy], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"mapped\n"
        assert not artifact_cache.remove_unused_copies(cache_dir, set())
        assert copy.exists()
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"unmapped\n"
        assert artifact_cache.remove_unused_copies(cache_dir, set())
        process.stdin.close()
    assert not copy.exists()
    model = npz.read(artifact_cache.cache_file(written, cache_dir), mapped=True)
    pid = os.fork()
    if not pid:
        os._exit(0)  # a forked process that ends leaves the lock to the others
    os.waitpid(pid, 0)
    assert not artifact_cache.remove_unused_copies(cache_dir, set())
    assert model.predict([[30, "Bath"]])


def test_a_copy_that_is_removed_before_it_is_locked_is_not_mapped(written: Path, cache_dir: Path, monkeypatch) -> None:
    copy = artifact_cache.cache_file(written, cache_dir)
    flock = file_lock.fcntl.flock
    monkeypatch.setattr(file_lock.fcntl, "flock", lambda *how: (copy.unlink(), flock(*how)))
    with pytest.raises(ArtifactError, match="No such file"):
        npz.read(copy, mapped=True)


def test_on_a_file_system_without_locks_copies_are_read_and_never_removed(
    written: Path, cache_dir: Path, monkeypatch
) -> None:
    copy = artifact_cache.cache_file(written, cache_dir)
    monkeypatch.setattr(file_lock.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    assert npz.read(copy, mapped=True).predict([[30, "Bath"]])
    assert not artifact_cache.remove_unused_copies(cache_dir, set())
    assert copy.exists()


def test_each_store_has_a_folder_of_its_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = artifact_cache.store_cache_dir
    assert folder(tmp_path, "models") == folder(tmp_path, f"{tmp_path}/models") != folder(tmp_path, "other")
    assert folder(tmp_path, "s3://bucket/a") == folder(tmp_path, "s3://bucket/a/") != folder(tmp_path, "s3://bucket/b")
    assert folder(tmp_path, "models").parent == tmp_path
    assert folder(tmp_path, "models").name.startswith(f"{os.geteuid()}-")


def test_check_cache_creates_a_private_folder_in_a_folder_that_others_can_write_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    artifact_cache.check_cache(cache := artifact_cache.store_cache_dir(tmp_path, "models"), "models")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize(("mode", "problem"), [(0o777, ""), (0o2777, ""), (0o755, "Permission denied; set SERVE_")])
def test_a_mounted_directory_of_root_gets_a_private_folder_of_the_user_or_an_error(mode: int, problem: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(mode)
        reader, writer = os.pipe()
        if not os.fork():
            os.setgid(65534)
            os.setuid(65534)
            found = "unexpected"
            try:
                cache = artifact_cache.store_cache_dir(Path(name), "models")
                artifact_cache.check_cache(cache, "models")
                found = f"{cache.name} {cache.stat().st_uid} {stat.S_IMODE(cache.stat().st_mode) & 0o777:o}"
            except StoreError as e:
                found = str(e)
            finally:
                os.write(writer, found.encode())
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            found = pipe.read()
        os.wait()
    if problem:
        assert problem in found
    else:
        assert re.fullmatch("65534-[0-9a-f]{16} 65534 700", found), found
