"""The keys of `[split]`: groups, times, strata of a quantity, and a file of its own for testing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.training.tables import job, refusal, rows
from training.data.splitting import Fold
from training.pipeline.cross_validation import cross_validate
from training.pipeline.job import from_dict, prepare, train_and_evaluate

PATIENTS = "x,patient,day,y\n" + "".join(f"{i},p{i % 9},2024-01-{i % 28 + 1:02d},{'ab'[i % 2]}\n" for i in range(90))


def test_rows_are_split_by_a_group_that_is_no_input(tmp_path: Path) -> None:
    columns = ["x", "day"]
    split = {"by": "group", "column": "patient"}
    prepared = prepare(job(tmp_path, PATIENTS, data={"columns": columns}, split=split))
    assert prepared.signature.names == ("x", "day")
    cells = np.array(prepared.dataset.extra["patient"])
    assert not set(cells[prepared.split.test]) & set(cells[prepared.split.training])
    assert "split by patient: 6 training, 1 validation, 2 test groups" in prepared.notes
    again = prepare(from_dict(train_and_evaluate(prepared).model.training["job"], tmp_path))
    assert again.split.test.tolist() == prepared.split.test.tolist()


@pytest.mark.parametrize("stream", [False, True])
def test_a_group_that_is_an_input_is_a_note(tmp_path: Path, stream: bool) -> None:
    split = {"by": "group", "column": "patient"}
    prepared = prepare(job(tmp_path, PATIENTS, data={"columns": ["x", "patient"], "stream": stream}, split=split))
    assert prepared.signature.names == ("x", "patient")
    (note,) = (note for note in prepared.notes if "both the group of the split and an input" in note)
    assert note.startswith("column patient is both")
    assert note.endswith("remove it from data.columns")
    other = prepare(job(tmp_path, PATIENTS, data={"columns": ["x"], "stream": stream}, split=split))
    assert not any("both the group" in note for note in other.notes)


def test_rows_are_split_by_a_time_that_may_be_an_input(tmp_path: Path) -> None:
    split = {"by": "time", "column": "day", "test": 0.25}
    prepared = prepare(job(tmp_path, PATIENTS, split=split, data={"columns": ["day", "x"], "unknown": "bucket"}))
    assert prepared.signature.names == ("day", "x")
    cells = np.array(prepared.dataset.extra["day"])
    assert max(cells[prepared.split.training]) < min(cells[prepared.split.validation])
    assert max(cells[prepared.split.validation]) < min(cells[prepared.split.test])
    assert any(note.startswith("split by day: training 2024-01-01 to 2024-01-") for note in prepared.notes)


def test_a_quantity_is_stratified_by_quantiles_on_request(tmp_path: Path) -> None:
    table = "x,y\n" + "".join(f"{i % 13},{i}.5\n" for i in range(400))
    prepared = prepare(job(tmp_path, table, split={"stratify": True}))
    tenths = (prepared.dataset.targets[prepared.split.test, 0] // 40).astype(int)
    assert np.bincount(tenths).tolist() == [8] * 10
    plain, stated = (prepare(job(tmp_path, table, split=split)) for split in ({}, {"stratify": False}))
    assert plain.split.test.tolist() == stated.split.test.tolist() != prepared.split.test.tolist()
    held = [prepare(job(tmp_path, table, split={"stratify": True}), Fold(i, 5)).split.test for i in (1, 2, 3, 4, 5)]
    assert sorted(np.concatenate(held).tolist()) == list(range(400))


def test_a_test_file_holds_the_test_rows(tmp_path: Path) -> None:
    (tmp_path / "later.csv").write_text("y,more,x\n" + "a,1,7\na,2,8\n")
    prepared = prepare(job(tmp_path, rows(40), split={"test_file": "later.csv"}))
    assert prepared.sizes == {"training": 36, "validation": 4, "test": 2}
    assert prepared.instances(prepared.split.test) == [[7.0], [8.0]]
    assert prepared.evaluation_labels == ["a", "a"]
    assert prepared.dataset.location(41) == "later.csv, line 3"
    assert "test rows: 2 of later.csv" in prepared.notes
    record = train_and_evaluate(prepared).model.training
    assert record["data"]["test_sha256"] == hashlib.sha256((tmp_path / "later.csv").read_bytes()).hexdigest()
    assert record["metrics"]["rows"] == 2
    assert record["job"]["split"] == {"test": 0.0, "validation": 0.1, "test_file": "later.csv"}
    again = prepare(from_dict(record["job"], tmp_path))
    assert again.sizes == prepared.sizes


def test_versions_are_compared_on_the_rows_of_a_test_file(tmp_path: Path) -> None:
    (tmp_path / "later.csv").write_text("x,y\n7,a\n8,b\n")
    first = prepare(job(tmp_path, rows(40), split={"test_file": "later.csv"}))
    second = prepare(job(tmp_path, rows(60), split={"test_file": "later.csv"}))
    assert first.dataset.rows_digest(first.split.test) == second.dataset.rows_digest(second.split.test)
    (tmp_path / "later.csv").write_text("x,y\n7,a\n9,b\n")
    third = prepare(job(tmp_path, rows(40), split={"test_file": "later.csv"}))
    assert first.dataset.rows_digest(first.split.test) != third.dataset.rows_digest(third.split.test)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("x,z\n1,a\n", "unknown column 'y'"),
        ("x,y\n1,c\n", "no training row has the class 'c'"),
        ("x,y\none,a\n", "line 2, column x: expected a finite number, found 'one'"),
        (None, "later.csv"),
    ],
)
def test_a_test_file_that_does_not_fit_is_an_error(tmp_path: Path, table: str | None, fault: str) -> None:
    if table is not None:
        (tmp_path / "later.csv").write_text(table)
    found = refusal(tmp_path, rows(40), split={"test_file": "later.csv"})
    assert "later.csv" in found
    assert fault in found


def test_arrays_have_a_test_file_too(tmp_path: Path) -> None:
    x, y = np.arange(80.0).reshape(40, 2), np.arange(40) % 2
    np.savez(tmp_path / "t.npz", x=x, y=y)
    np.savez(tmp_path / "later.npz", x=x[:3] + 0.5, y=y[:3])
    content = {
        "model": {"name": "m"},
        "data": {"path": "t.npz"},
        "split": {"test_file": "later.npz"},
        "train": {"epochs": 1},
    }
    prepared = prepare(from_dict(content, tmp_path))
    assert prepared.sizes["test"] == 3
    assert prepared.dataset.location(41) == "later.npz, row 1"
    np.savez(tmp_path / "later.npz", x=np.zeros((3, 3)), y=y[:3])
    with pytest.raises(Exception, match=r"expected rows of shape \(2,\), as in t.npz, found \(3,\)"):
        prepare(from_dict(content, tmp_path))


@pytest.mark.parametrize(
    ("split", "fault"),
    [
        ({"by": "group"}, "split.column: missing; expected the column of the group"),
        ({"column": "x"}, "split.by: missing; expected 'group' or 'time' for the column"),
        ({"by": "week", "column": "x"}, "split.by: expected one of 'group', 'time', found 'week'"),
        ({"by": "time", "column": "y"}, "split.column: 'y' is the target"),
        ({"by": "time", "column": "z"}, "split.column: unknown column 'z'"),
        ({"by": "time", "column": "x", "stratify": True}, "split.stratify: rows that are split by time"),
        ({"stratify": False}, "split.stratify: classifications are always stratified"),
        ({"test_file": "u.csv", "test": 0.3}, "split.test: expected either a fraction of the rows or a test_file"),
        ({"test_file": "u.parquet"}, "split.test_file: expected a .csv file, as data.path is, found 'u.parquet'"),
    ],
)
def test_keys_that_do_not_fit_are_an_error(tmp_path: Path, split: dict[str, object], fault: str) -> None:
    assert fault in refusal(tmp_path, rows(40), split=split)


def test_repeated_folds_divide_the_rows_anew(tmp_path: Path) -> None:
    found: list[tuple[int, int]] = []
    outcomes = cross_validate(
        job(tmp_path, rows(40)), 2, lambda fold, _: found.append((fold.repeat, fold.number)), repeats=2
    )
    assert found == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert len(outcomes) == 4
    first, other = (prepare(job(tmp_path, rows(40)), Fold(1, 2, repeat)).split.test.tolist() for repeat in (1, 2))
    assert first != other
    assert first == prepare(job(tmp_path, rows(40)), Fold(1, 2)).split.test.tolist()
    with pytest.raises(Exception, match="folds by time are the same in every repetition"):
        cross_validate(job(tmp_path, rows(40), split={"by": "time", "column": "x"}), 2, repeats=2)
