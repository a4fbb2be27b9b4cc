"""Readers of .npz and IDX files, and the errors of unreadable files."""

from __future__ import annotations

import gzip
import random
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from training.config.settings import DataSection
from training.data.readers import read_idx, read_npz
from training.data.streaming.table_reader import open_source
from training.engine.checkpoint import Checkpoint
from training.errors import DataError, FaultListError


def test_npz_arrays_are_read_unchanged(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.array([0, 1, 0])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    found = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.y, y)


@pytest.mark.parametrize("dtype", [np.longdouble, ">f8", ">f4"])
def test_numbers_of_other_machines_and_long_doubles_are_read_as_this_machines(tmp_path: Path, dtype: str) -> None:
    values = np.arange(6, dtype=dtype).reshape(3, 2)
    np.savez(tmp_path / "a.npz", x=values, y=values[:, 0])
    (batch,) = open_source(DataSection(path="a.npz", stream=True), tmp_path).batches()
    for array in (read_npz(tmp_path / "a.npz").x, read_npz(tmp_path / "a.npz").y, *batch.values()):
        assert isinstance(array, np.ndarray)
        assert array.dtype in (np.dtype("f4"), np.dtype("f8"))
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, values if array.ndim > 1 else values[:, 0])


def test_a_long_double_beyond_float64_is_reported(tmp_path: Path) -> None:
    huge = np.array([[np.longdouble("1e4000")], [0]])
    if np.isinf(huge).any():
        pytest.skip("long doubles are float64 on this machine")
    np.savez(tmp_path / "a.npz", x=huge, y=np.zeros(2))
    with pytest.raises(DataError, match=r"x\[0, 0\]: expected a finite number, found inf"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": np.zeros((3, 2))}, "expected an array 'y', found x"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "expected as many as in x, 3, found 2"),
        ({"x": np.zeros(3), "y": np.zeros(3)}, "expected shape (examples, ...)"),
        ({"x": np.zeros((0, 3)), "y": np.zeros(0)}, "x: expected values, found the empty shape (0, 3)"),
        ({"x": np.zeros((3, 3)), "y": np.zeros((3, 0))}, "y: expected values, found the empty shape (3, 0)"),
        ({"x": np.array([[1, np.nan]]), "y": np.zeros(1)}, "x[0, 1]: expected a finite number, found nan"),
        ({"x": np.array([["a"]]), "y": np.zeros(1)}, "expected numbers, found <U1"),
        (
            {"x": np.array([[{}]], dtype=object), "y": np.zeros(1)},
            "x: expected plain values, found Python objects (save x.astype(float))",
        ),
        (
            {"x": np.zeros((2, 2)), "y": np.array([{}, {}])},
            "y: expected plain values, found Python objects (save y.astype",
        ),
    ],
)
def test_invalid_npz_arrays_are_rejected(tmp_path: Path, arrays: dict[str, np.ndarray], expected: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as caught:
        read_npz(tmp_path / "a.npz")
    assert expected in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut"])
def test_a_file_that_is_not_npz_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable .npz file"):
        read_npz(tmp_path / "a.npz")


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Return the content with a few bytes changed, removed or inserted."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(found)), rng.randint(1, 12)
        match rng.randrange(4):
            case 0:
                del found[at : at + length]
            case 1:
                found[at:at] = rng.randbytes(length)
            case _:
                found[at] = rng.randrange(256)
    return bytes(found)


@pytest.mark.parametrize("read", ["memory", "stream", "checkpoint"])
def test_a_damaged_archive_raises_only_its_readers_error(tmp_path: Path, read: str) -> None:
    """For example an archive that claims to be encrypted, or compressed by an unknown method."""
    path = tmp_path / "a.npz"
    if read == "checkpoint":
        Checkpoint(path, {}).save()
    else:
        np.savez(path, x=np.arange(12.0).reshape(6, 2), y=np.arange(6) % 2)
    whole, rng = path.read_bytes(), random.Random(1)
    for _ in range(1000):
        path.write_bytes(damaged(rng, whole))
        with suppress(FaultListError):
            if read == "memory":
                read_npz(path)
            elif read == "stream":
                list(open_source(DataSection(path=path.name), tmp_path).batches())
            else:
                Checkpoint(path, {}, resume=True)


def test_a_single_array_is_not_accepted_as_npz(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros((2, 2)))
    with pytest.raises(DataError, match="found a single array"):
        read_npz(tmp_path / "a.npz")


def idx(array: np.ndarray, kind: int) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_idx_images_and_labels_are_read(tmp_path: Path, compress: type[bytes]) -> None:
    images, labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([7, 2], dtype=">i4")
    (tmp_path / "images").write_bytes(compress(idx(images, 0x08)))
    (tmp_path / "labels").write_bytes(compress(idx(labels, 0x0C)))
    found = read_idx(tmp_path / "images", tmp_path / "labels")
    np.testing.assert_array_equal(found.x, images)
    assert found.y.tolist() == [7, 2]
    assert found.y.dtype.isnative


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected an IDX file"),
        (b"\0\0\x07\x01\0\0\0\0", "expected an IDX file"),
        (b"\0\0\x08\x02\0\0\0\x02", "expected 2 dimensions"),
        (b"\0\0\x08\x01\0\0\0\x02a", "expected 2 bytes of values for the shape (2,), found 1"),
        (b"\0\0\x08\x01\xff\xff\xff\xffa", "bytes of values for the shape (4294967295,)"),
        (b"\x1f\x8bnot gzip", "cannot be read: Unknown compression method"),
    ],
)
def test_a_damaged_idx_file_is_reported_with_the_reason(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "images").write_bytes(content)
    (tmp_path / "labels").write_bytes(idx(np.array([1], np.uint8), 0x08))
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "images", tmp_path / "labels")
    assert expected in str(caught.value)


def test_wide_labels_are_rejected_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.array(["a", "b", "c" * 1025]))
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(DataError, match="y: expected values of at most 4096 bytes, found <U1025"):
        read_npz(tmp_path / "a.npz")
