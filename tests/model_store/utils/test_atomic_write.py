"""Files appear complete or not at all; links, permissions, devices and pipes stay what they are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model_store.utils.atomic_write import atomic_write, remove_temporary_files


def write(path: Path, text: str = "new") -> None:
    with atomic_write(path, "x", encoding="utf-8") as file:
        file.write(text)


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def fail() -> None:
        with atomic_write(path, "x") as file:
            file.write("half")
            assert not path.exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    write(path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_keeps_its_permissions_and_a_new_one_has_those_of_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    path.write_text("old")
    path.chmod(mode)
    with atomic_write(path, "x") as file:
        (temporary,) = tmp_path.glob(".tmp-*")
        assert stat.S_IMODE(temporary.stat().st_mode) == mode  # a secret is never readable by others
        file.write("new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    before = os.umask(0o027)
    try:
        write(tmp_path / "other")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old")
    os.chown(path, 1234, 4321)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


@pytest.mark.parametrize("exists", [True, False])
def test_links_stay_and_their_target_is_written(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.csv"
    if exists:
        target.write_text("old")
    (tmp_path / "first").symlink_to("real/a.csv")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    write(tmp_path / "second")
    assert target.read_text() == "new"
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()


def test_temporary_files_behind_a_link_are_removed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / ".tmp-a.npz-00").write_text("half")
    (tmp_path / "a").symlink_to("real/a.npz")
    remove_temporary_files(tmp_path / "a")
    assert list((tmp_path / "real").iterdir()) == []


def test_devices_are_written_and_not_replaced() -> None:
    before = Path("/dev/null").stat()
    write(Path("/dev/null"))
    after = Path("/dev/null").stat()
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_pipes_are_written_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(path.read_text()))
    reader.start()
    write(path)
    reader.join()
    assert found == ["new"]
    assert stat.S_ISFIFO(path.stat().st_mode)


PROGRAM = """
import sys
from pathlib import Path
from model_store.utils.atomic_write import atomic_write
with atomic_write(Path(sys.argv[1]), "x") as file:
    file.write("new")
"""


def run(path: str, shell: str) -> bytes:
    root = Path(__file__).parents[3]
    command = ["bash", "-c", shell, sys.executable, PROGRAM, path]
    return subprocess.run(command, check=True, capture_output=True, cwd=root).stdout


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_wherever_it_leads(tmp_path: Path, path: str) -> None:
    before = Path("/dev/stdout").lstat()
    assert run(path, '"$0" -c "$1" "$2" | cat') == b"new"
    assert run(path, f'{{ echo first; "$0" -c "$1" "$2"; echo last; }} > {tmp_path}/a') == b""
    assert (tmp_path / "a").read_text() == "first\nnewlast\n"
    run(path, f'"$0" -c "$1" "$2" >> {tmp_path}/a')
    assert (tmp_path / "a").read_text() == "first\nnewlast\nnew"
    assert Path("/dev/stdout").lstat().st_ino == before.st_ino


def test_the_shells_process_substitution_is_written() -> None:
    assert run("", '"$0" -c "$1" >(tr a-z A-Z) | cat') == b"NEW"


def test_errors_name_the_path_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "no" / "a.csv", tmp_path, tmp_path / "loop", tmp_path / ("a" * 300)):
        with pytest.raises(OSError, match=str(path)) as caught:
            write(path)
        assert caught.value.filename == str(path)
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="/dev/full") as caught:
            write(Path("/dev/full"))
        assert caught.value.filename == "/dev/full"
