"""Splits of streams by a column, by tenths of the target, and with a test file: those of rows in memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet

from training.data.splitting import quantile_classes
from training.data.streaming import part_plan, row_draw
from training.data.streaming.part_plan import NumberCounts
from training.errors import DataError
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate

ROWS = 3000
DAYS = np.datetime64("2023-12-01") + np.random.default_rng(1).integers(0, 300, ROWS)
TIMES: dict[str, list[Any]] = {
    "number": (DAYS - DAYS.min()).astype(int).tolist(),
    "iso": [str(day) for day in DAYS],
    "day": [f"{day.day:02}/{day.month:02}/{day.year}" for day in DAYS.tolist()],
    "quarter": [f"{day.year}-Q{(day.month + 2) // 3}.{day.month:02}" for day in DAYS.tolist()],
}


@pytest.fixture(params=[1 << 16, 40])
def few_texts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of different times that decide how times are written."""
    monkeypatch.setattr(part_plan, "_MAX_TIME_TEXTS", request.param)
    monkeypatch.setattr(part_plan, "_MERGED_ROWS", 500)
    return int(request.param)


def table(**columns: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    size, group = rng.standard_normal(ROWS), np.minimum(rng.geometric(0.02, ROWS), 250)
    return {
        "size": size.tolist(),
        "patient": [None if i < 3 else f"patient {i}" for i in group],
        "kind": [None if i % 50 == 3 else "ab"[int(v > 0)] for i, v in enumerate(size)],
        "price": (np.exp(size) + group / 100).tolist(),
        **columns,
    }


def write(folder: Path, columns: dict[str, Any], name: str = "t.csv") -> None:
    content = pa.table(columns)
    (csv.write_csv if name.endswith(".csv") else parquet.write_table)(content, folder / name)


def prepared(folder: Path, target: str, split: dict[str, Any], *, path: str = "t.csv", **data: Any) -> PreparedJob:
    own = {"path": path, "target": target, "columns": ["size"], **data}
    content = {"model": {"name": "m"}, "data": own, "split": split, "train": {"epochs": 1}}
    return prepare(from_dict(content, folder))


def parts_in_memory(job: PreparedJob) -> list[list[int]]:
    return [
        [job.dataset.lines[row] - 1 for row in rows]  # the header is line 1
        for rows in (job.split.validation, job.split.test)
    ]


def parts_of_stream(job: PreparedJob) -> list[list[int]]:
    return [[job.dataset.lines[row] for row in rows] for rows in (job.split.validation, job.split.test)]


@pytest.mark.parametrize("target", ["kind", "price"])
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_stream_is_split_into_the_same_groups_as_in_memory(
    tmp_path: Path, few_texts: int, target: str, name: str
) -> None:
    columns = table()
    write(tmp_path, columns)
    write(tmp_path, columns, name)
    split = {"by": "group", "column": "patient"}
    in_memory = prepared(tmp_path, target, split)
    stream = prepared(tmp_path, target, split, path=name, stream=True)
    assert parts_of_stream(stream) == parts_in_memory(in_memory)
    assert stream.sizes == in_memory.sizes
    (note,) = (note for note in stream.notes if note.startswith("split by patient"))
    assert note in in_memory.notes
    groups = [{columns["patient"][line - 1] for line in part} for part in parts_of_stream(stream)]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize("target", ["kind", "price"])
@pytest.mark.parametrize("form", TIMES)
def test_a_stream_is_split_at_the_same_times_as_in_memory(
    tmp_path: Path, few_texts: int, target: str, form: str
) -> None:
    write(tmp_path, table(time=TIMES[form]))
    split = {"by": "time", "column": "time"}
    in_memory = prepared(tmp_path, target, split)
    if form == "quarter" and few_texts == 40:
        return
    stream = prepared(tmp_path, target, split, stream=True)
    assert parts_of_stream(stream) == parts_in_memory(in_memory)
    assert stream.sizes == in_memory.sizes
    (note,) = (note for note in stream.notes if note.startswith("split by time"))
    assert note in in_memory.notes


@given(st.integers(0, 9), st.integers(4, 200), st.booleans())
def test_rows_up_to_a_counted_number_are_exact_although_memory_is_bounded(
    seed: int, limit: int, in_order: bool
) -> None:
    numbers = np.random.default_rng(seed).standard_normal(2000).round(3)
    numbers = np.sort(numbers) if in_order else numbers
    counts = NumberCounts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_plan, "MAX_TIMES", limit)
        patch.setattr(part_plan, "_MERGED_ROWS", 100)
        for start in range(0, 2000, 70):
            counts.add(numbers[start : start + 70])
        counts.merge()
    assert limit / 2 <= len(counts.values) <= limit
    assert np.array_equal(counts.counts.cumsum(), np.searchsorted(np.sort(numbers), counts.values, side="right"))


def test_a_time_that_cannot_be_read_is_reported_with_its_row(tmp_path: Path, few_texts: int) -> None:
    times = [*TIMES["iso"]]
    times[2500] = "soon"
    write(tmp_path, table(time=times))
    split = {"by": "time", "column": "time"}
    with pytest.raises(DataError, match=r"row 2501, column time: expected times: .* found 'soon'"):
        prepared(tmp_path, "kind", split, stream=True)
    write(tmp_path, table(time=[*times[:2500], None, *times[2501:]]))
    with pytest.raises(DataError, match=r"column time: expected a time in every row.* row 2501"):
        prepared(tmp_path, "kind", split, stream=True)


@pytest.mark.parametrize("by", ["group", "time"])
def test_the_column_of_a_split_may_be_an_input_too(tmp_path: Path, by: str) -> None:
    write(tmp_path, table(time=TIMES["number"]))
    column = {"group": "patient", "time": "time"}[by]
    jobs = [
        prepared(tmp_path, "kind", {"by": by, "column": column}, columns=["size", column], stream=stream)
        for stream in (True, False)
    ]
    assert jobs[0].signature.names == jobs[1].signature.names == ("size", column)
    assert jobs[0].sizes == jobs[1].sizes


def test_of_too_large_a_part_evenly_spaced_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_draw, "MAX_HELD_OUT_ROWS", 100)
    write(tmp_path, table(day=[int(i >= ROWS // 2) + int(i >= ROWS - 10) for i in range(ROWS)]))
    stream = prepared(tmp_path, "price", {"by": "time", "column": "day"}, stream=True)
    assert stream.sizes == {"training": ROWS // 2, "validation": 100, "test": 10}
    assert np.ptp(np.diff(parts_of_stream(stream)[0])) <= 1


def test_tenths_of_the_target_have_their_share_of_each_part(tmp_path: Path) -> None:
    columns = table()
    write(tmp_path, columns)
    stream = prepared(tmp_path, "price", {"stratify": True}, stream=True)
    classes = quantile_classes(np.array(columns["price"]))
    for part, share in zip(parts_of_stream(stream), (0.1, 0.2), strict=True):
        counts = np.bincount(classes[np.array(part) - 1])
        assert np.abs(counts - share * ROWS / 10).max() <= 2
    with pytest.raises(DataError, match="classifications are always stratified"):
        prepared(tmp_path, "kind", {"stratify": False}, stream=True)


def test_the_rows_of_a_test_file_are_tested(tmp_path: Path) -> None:
    columns = table()
    write(tmp_path, columns)
    write(tmp_path, {name: cells[:100] for name, cells in columns.items()}, "test.csv")
    jobs = [prepared(tmp_path, "kind", {"test_file": "test.csv"}, stream=stream) for stream in (True, False)]
    for job in jobs:
        assert job.sizes["test"] == 98
        assert "test rows: 98 of test.csv" in job.notes
        assert job.dataset.location(int(job.split.test[0])) == "test.csv, line 2"
    digests = [job.dataset.rows_digest(job.split.test) for job in jobs]
    assert digests[0] == digests[1]
    outcome = train_and_evaluate(jobs[0])
    assert outcome.metrics["rows"] == 98
    assert outcome.model.training["data"]["test_sha256"]


def test_an_array_of_its_own_can_test_a_stream(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((300, 3))
    for name, rows in (("t.npz", slice(0, 250)), ("test.npz", slice(250, 300))):
        np.savez(tmp_path / name, x=x[rows], y=(x[rows, 0] > 0).astype(int))
    content = {"model": {"name": "m"}, "split": {"test_file": "test.npz"}, "train": {"epochs": 1}}
    jobs = [
        prepare(from_dict({**content, "data": {"path": "t.npz", "stream": stream}}, tmp_path))
        for stream in (True, False)
    ]
    assert jobs[0].sizes == jobs[1].sizes
    assert jobs[0].dataset.location(int(jobs[0].split.test[1])) == "test.npz, row 1"
    assert len({job.dataset.rows_digest(job.split.test) for job in jobs}) == 1


def test_validation_rows_are_between_training_and_test(tmp_path: Path) -> None:
    columns = table(time=TIMES["number"])
    write(tmp_path, columns)
    stream = prepared(tmp_path, "price", {"by": "time", "column": "time"}, stream=True)
    validation, test = ([columns["time"][line - 1] for line in part] for part in parts_of_stream(stream))
    training = [columns["time"][i] for i in range(ROWS) if columns["time"][i] < min(validation)]
    assert len(training) == stream.sizes["training"]
    assert all(max(before) < min(after) for before, after in pairwise((training, validation, test)))
