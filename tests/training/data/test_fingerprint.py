"""The fingerprint of a data file is of the bytes that are trained on."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from training.data import fingerprint
from training.data.fingerprint import Fingerprint
from training.errors import DataError
from training.pipeline.job import from_dict, prepare


def test_the_fingerprint_depends_only_on_the_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"12")
    second.write_bytes(b"3")
    found = Fingerprint.of(first, second)
    assert found.sha256 == "a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3"
    assert found.line_ends == 0
    found.check_unchanged()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_in_place(path: Path) -> None:
    """Change one byte, and restore the times that a program can restore."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(60)
        byte = file.read(1)[0]
        file.seek(60)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace_file(path: Path) -> None:
    content = path.read_bytes()
    (path.parent / "new").write_bytes(content[:-9] + b"9" + content[-8:])
    (path.parent / "new").replace(path)


@pytest.mark.parametrize("form", ["csv", "csv stream", "parquet", "npz", "npz stream", "idx", "idx stream"])
@pytest.mark.parametrize("change", [write_in_place, replace_file, Path.unlink])
@pytest.mark.parametrize("changed_recently", [True, False])
def test_a_file_that_changes_while_it_is_read_is_not_trained_on(
    tmp_path: Path, form: str, change: Callable[[Path], None], changed_recently: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the fingerprint in the model would be of data that it was never trained on."""
    suffix, _, stream = form.partition(" ")
    path, x, y = tmp_path / f"t.{suffix}", np.arange(80, dtype=np.uint8).reshape(40, 2), np.arange(40) % 2
    data: dict[str, Any] = {"path": path.name, "target": "y"} | ({"stream": True} if stream else {})
    if suffix == "csv":
        path.write_text("x,y\n" + "".join(f"{i}.5,{'ab'[i % 2]}\n" for i in range(60)))
    elif suffix == "parquet":
        parquet.write_table(pa.table({"x": np.arange(60.0), "y": ["a", "b"] * 30}), path)
    elif suffix == "npz":
        np.savez(path, x=x, y=y)
        del data["target"]
    else:
        path.write_bytes(idx(x))
        (tmp_path / "labels").write_bytes(idx(y.astype(np.uint8)))
        data = {"images": path.name, "labels": "labels"} | ({"stream": True} if stream else {})
    content = path.read_bytes()
    prepare(from_dict({"model": {"name": "m"}, "data": data}, tmp_path))
    path.write_bytes(content)
    if not changed_recently:
        monkeypatch.setattr(fingerprint, "_MAX_TIMESTAMP_SECONDS", 0.0)
        time.sleep(0.02)  # longer than the file system's unit of time
    of = Fingerprint.of.__func__  # type: ignore[attr-defined]

    def change_after_hashing(cls: type[Fingerprint], *paths: Path) -> Fingerprint:
        found: Fingerprint = of(cls, *paths)
        if path.exists() and path.read_bytes() == content:
            change(path)
        return found

    monkeypatch.setattr(Fingerprint, "of", classmethod(change_after_hashing))
    with pytest.raises(DataError) as caught:
        prepare(from_dict({"model": {"name": "m"}, "data": data}, tmp_path))
    if change is not Path.unlink and suffix in {"csv", "idx"}:  # else it may be unreadable
        assert "the file changed while it was read (train again when nothing writes to it" in str(caught.value)


def test_a_file_that_is_only_touched_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    found = Fingerprint.of(path)
    path.touch()
    path.chmod(0o600)
    found.check_unchanged()


def test_a_pipe_is_reported_as_it_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(DataError, match="expected a regular file, found a pipe, which cannot be read twice"):
        prepare(from_dict({"model": {"name": "m"}, "data": {"path": "table.csv", "target": "y"}}, tmp_path))
