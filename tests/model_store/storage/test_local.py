"""The local store: files, links and errors of the operating system."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model_store.artifact.model import Model
from model_store.errors import ArtifactError, NotFoundError, StoreError
from model_store.registry import store as stores
from model_store.registry.store import Store, open_store
from tests.model_store.conftest import contents

BY = {"who": "ada", "why": "better", "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}


def test_published_versions_are_read_only_files(chess: Store) -> None:
    assert all(not chess.path("chess", number).stat().st_mode & 0o222 for number in chess.versions("chess"))


@pytest.mark.parametrize("step", ["write", "fsync", "link"])
def test_a_failed_publish_leaves_nothing(step: str, chess: Store, model: Model, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"write": (stores.npz, step), "fsync": (os, step), "link": (os, step)}[step], broken)
    before = contents(chess)
    with pytest.raises(StoreError, match=r"chess: cannot publish: No space left on device; free some space"):
        chess.publish("chess", model)
    assert contents(chess) == before


def test_a_partially_written_version_is_invisible(chess: Store) -> None:
    """A publisher that dies leaves a hidden file without a number."""
    (chess.root / "chess" / ".tmp-0123").write_bytes(chess.path("chess", 1).read_bytes()[:100])
    (chess.root / "go").mkdir()
    (chess.root / "go" / ".tmp-0123").touch()
    assert chess.names() == ["chess"]
    assert chess.versions("chess") == [1, 2, 3]


def test_reading_writes_no_file(chess: Store) -> None:
    chess.set_alias("chess", "champion", 2, **BY)
    paths = [chess.root, *chess.root.rglob("*")]
    before = [(path, path.stat().st_mtime_ns) for path in paths]
    for path in paths:
        path.chmod(0o555)
    try:
        chess.load("chess", "champion")
        chess.state()
        chess.names()
        chess.history("chess", "champion")
    finally:
        for path in paths:
            path.chmod(0o755)
    assert [(path, path.stat().st_mtime_ns) for path in [chess.root, *chess.root.rglob("*")]] == before


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def deny(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def listing(folder: Path) -> Any:
        if Path(folder) == path:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", listing)


FAULTS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "a loop of links": lambda folder, _: loop(folder),
    "a link that leads nowhere": lambda folder, _: folder.symlink_to("unmounted"),
    "no permission": deny,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["go", "go/aliases", "go/aliases/default"])
def test_a_model_whose_folder_cannot_be_read_hides_no_other(
    chess: Store, model: Model, place: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place != "go":
        chess.publish("go", model)
    folder = chess.root / place
    folder.parent.mkdir(exist_ok=True)
    if fault == "no permission":
        folder.mkdir()
    before = chess.state()["chess"]
    FAULTS[fault](folder, monkeypatch)
    found = chess.state()
    assert found["chess"] == before
    assert (found["go"]["versions"], before["error"]) == ((), "")
    assert any(reason in found["go"]["error"] for reason in ("levels of symbolic", "No such file", "Permission denied"))
    assert chess.names() == ["chess", "go"]
    with pytest.raises(NotFoundError, match="did you mean 'chess'"):
        chess.versions("ches")


def test_a_version_that_is_a_loop_of_links_harms_itself_alone(chess: Store) -> None:
    loop(chess.root / "chess" / "4.npz")
    assert chess.versions("chess") == [1, 2, 3, 4]
    assert chess.load("chess", 3)
    with pytest.raises(ArtifactError, match="symbolic links"):
        chess.load("chess", 4)


def test_unknown_files_are_ignored(chess: Store) -> None:
    (chess.root / "README").write_text("hello")
    (chess.root / "lost+found").mkdir()
    (chess.root / "empty").mkdir()
    (chess.root / "chess" / "notes.npz").touch()
    (chess.root / "chess" / "07.npz").touch()
    (chess.root / "chess" / "aliases").mkdir()
    (chess.root / "chess" / "aliases" / "README").touch()
    (chess.root / "chess" / "aliases" / "begun").mkdir()
    (found,) = chess.state().values()
    assert (found["versions"], found["aliases"], found["unreadable"]) == ((1, 2, 3), {}, {})
    with pytest.raises(NotFoundError):
        chess.versions("README")


def test_a_pipe_in_place_of_a_revision_does_not_block(chess: Store) -> None:
    chess.set_alias("chess", "champion", 2, **BY)
    os.mkfifo(chess.root / "chess" / "aliases" / "champion" / "2.json")
    with pytest.raises(StoreError, match=r"2\.json: .*expected a regular file, found a pipe"):
        chess.history("chess", "champion")
    assert chess.state()["chess"]["versions"] == (1, 2, 3)


def test_a_store_whose_directory_cannot_be_made_is_not_to_be_filled_first() -> None:
    with pytest.raises(StoreError, match=r"^/proc/nope/chess: cannot publish: No such file or directory; choose ano"):
        open_store("/proc/nope").check_writable("chess")


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file: expected a directory, found a file; choose another store$"):
        open_store(tmp_path / "file")


def test_a_missing_store_raises(tmp_path: Path) -> None:
    missing = open_store(tmp_path / "nowhere")
    for read in (missing.names, missing.state, lambda: missing.resolve("chess")):
        with pytest.raises(StoreError, match=r"nowhere: cannot read the model store: .*train a model first"):
            read()
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_place_of_a_directory_raises(tmp_path: Path, store: Store, model: Model) -> None:
    (tmp_path / "file").write_text("x")
    below = tmp_path / "file" / "models"
    with pytest.raises(StoreError, match="a file is where a directory is expected"):
        open_store(below).names()
    with pytest.raises(StoreError, match=r"cannot publish: .*a file is where a directory is expected"):
        open_store(below).publish("chess", model)
    store.root.mkdir()
    (store.root / "chess").write_text("x")
    with pytest.raises(StoreError, match="a file is where a directory is expected"):
        store.publish("chess", model)


@pytest.mark.parametrize(("number", "fix"), [(13, "write permissions"), (30, "mounted read-only")])
def test_an_unwritable_store_raises_with_a_fix(number: int, fix: str, chess: Store, model: Model, monkeypatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(StoreError, match=f"cannot publish: .*{fix}"):
        chess.publish("chess", model)
    with pytest.raises(StoreError, match=f"cannot move an alias: .*{fix}"):
        chess.set_alias("chess", "champion", 1, **BY)
    with pytest.raises(StoreError, match=f"cannot remove a version: .*{fix}"):
        chess.remove("chess", 1)


def test_a_failed_report_leaves_nothing(chess: Store, model: Model, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    version = chess.publish("chess", model)
    before = contents(chess)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StoreError, match=r"cannot write a report: No space left on device; free some space"):
        chess.add_report(version, "page")
    assert contents(chess) == before


@pytest.mark.parametrize(("seconds", "year"), [(10.0**13, 9999), (-(10.0**13), 1), (0.0, 1970)])
def test_a_file_of_any_date_is_a_version(chess: Store, monkeypatch, seconds: float, year: int) -> None:
    """File systems such as tmpfs have dates far beyond the year 9999."""
    stat = Path.stat

    def dated(path: Path, **options: Any) -> Any:
        found = stat(path, **options)
        return SimpleNamespace(st_size=found.st_size, st_mtime=seconds) if path.suffix == ".npz" else found

    chess.path("chess", 1).with_suffix(".json").unlink(missing_ok=True)
    monkeypatch.setattr(Path, "stat", dated)
    assert chess.publication("chess", 1).when.year == year
