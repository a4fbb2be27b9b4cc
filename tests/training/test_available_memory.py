"""Arrays that do not fit in memory are an error before they are allocated."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from training import available_memory
from training.available_memory import available_bytes, check_memory
from training.data import readers
from training.data.fitting import statistics
from training.data.fitting.statistics import summarize
from training.errors import DataError
from training.pipeline import prepared_job
from training.pipeline.job import from_dict, prepare


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the files of Linux."""
    monkeypatch.setattr(available_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(available_memory, "_CONTROL_GROUP", tmp_path)
    return tmp_path


def test_the_least_of_machine_and_container_is_available(system: Path) -> None:
    assert available_bytes() is None
    check_memory(1 << 60)  # nothing is known
    (system / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2000000 kB\n")
    assert available_bytes() == 2_048_000_000
    for limit, expected in (("max", 2_048_000_000), ("1000000000", 400_000_000), ("500000000", 0)):
        (system / "memory.max").write_text(f"{limit}\n")
        (system / "memory.current").write_text("600000000\n")
        assert available_bytes() == expected


def test_more_than_is_available_is_a_memory_error_with_both_sizes(system: Path) -> None:
    (system / "meminfo").write_text(f"MemAvailable: {1 << 20} kB\n")
    check_memory(1 << 30)
    with pytest.raises(MemoryError, match=r"1\.5 GiB are needed, 1\.0 GiB are available"):
        check_memory(3 << 29)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a megabyte."""
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 1 << 20)
    monkeypatch.setattr(available_memory, "_MIN_CHECKED_BYTES", 1)


@pytest.mark.usefixtures("small")
def test_arrays_that_do_not_fit_name_the_memory_that_they_need(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((200, 10_000), np.uint8), y=np.arange(200) % 2)
    with pytest.raises(DataError, match=r"arrays do not fit in memory: 0\.0 GiB are needed, .* \(write stream"):
        readers.read_npz(path)
    np.savez(path, x=np.zeros((60, 10_000), np.uint8), y=np.arange(60) % 2)
    data = {"path": "a.npz", "task": "classification"}
    with pytest.raises(DataError, match=r"rows do not fit in memory, 10000 numbers each: .* GiB are needed"):
        prepare(from_dict({"model": {"name": "m"}, "data": data}, tmp_path))


def test_texts_of_no_characters_are_rejected(tmp_path: Path) -> None:
    """A header of a few bytes claims billions of them."""
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.empty(3, "V0"))
    with pytest.raises(DataError, match="y: expected values, found empty texts"):
        readers.read_npz(tmp_path / "a.npz")


def test_wide_rows_are_encoded_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """250 rows of a million bytes took 2.9 GB, 11 times the array: four copies of all rows in float64."""
    monkeypatch.setattr(prepared_job, "_ENCODED_BLOCK_VALUES", 20_000)
    x = np.random.default_rng(0).integers(0, 256, (200, 10_000), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(200) % 2)
    job = from_dict(
        {"model": {"name": "m"}, "data": {"path": "a.npz", "task": "classification"}, "network": {"layers": [2]}},
        tmp_path,
    )
    prepared = prepare(job)
    tracemalloc.start()
    try:
        encoded = prepared.encode_rows(np.arange(200))
        assert tracemalloc.get_traced_memory()[1] < 2 * encoded.nbytes
    finally:
        tracemalloc.stop()
    assert np.array_equal(encoded, (x / 255).astype(np.float32))


def test_many_numbers_are_summarized_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((100, 77))
    whole = summarize(values)
    monkeypatch.setattr(statistics, "_MAX_SUMMARIZED", 1000)
    parts = summarize(values)
    assert (parts.count, parts.minimum, parts.maximum) == (whole.count, whole.minimum, whole.maximum)
    assert (parts.mean, parts.std) == pytest.approx((whole.mean, whole.std), rel=1e-12)
