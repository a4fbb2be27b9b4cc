"""Configured paths: only regular files are opened, and nothing else blocks."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from model_store.errors import TrustError
from model_store.registry.signing import load_public_key
from model_store.storage.local import LocalStorage
from model_store.utils.regular_file import open_regular
from training.config.settings import DataSection
from training.config.toml_loader import read_toml
from training.data.tables import open_job_table, read_table
from training.errors import DataError, JobError


def other_files(folder: Path) -> dict[str, Path]:
    os.mkfifo(pipe := folder / "pipe")
    (link := folder / "link").symlink_to(pipe)
    (device := folder / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bound := folder / "socket"))
    return {"a pipe": pipe, "a pipe ": link, "a device": device, "a socket": bound}


def descriptor_count() -> int:
    listed = Path("/proc/self/fd")
    return len(list(listed.iterdir())) if listed.exists() else 0


def test_a_pipe_or_a_device_is_refused_without_waiting(tmp_path: Path) -> None:
    for found, path in other_files(tmp_path).items():
        with pytest.raises(OSError, match=f"expected a regular file, found {found.strip()}"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    descriptors = descriptor_count()
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "to-file").symlink_to("file")
    for name in ("file", "to-file"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"
    assert descriptor_count() <= descriptors  # fewer if files of another test are freed meanwhile


def test_no_reader_of_configured_paths_waits_for_a_pipe(tmp_path: Path) -> None:
    for path in other_files(tmp_path).values():
        with pytest.raises(JobError, match="regular file"):
            read_toml(path)
        with pytest.raises(DataError, match="regular file"):
            read_table(open_job_table(path, DataSection(path=path.name)))
        with pytest.raises(TrustError, match="regular file"):
            load_public_key(path)
        with pytest.raises(OSError, match="regular file"):
            LocalStorage(tmp_path).get(path.name)


def test_garbage_collection_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".tmp-pipe")
    assert LocalStorage(tmp_path).abandoned_keys() == [".tmp-pipe"]
