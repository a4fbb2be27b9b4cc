"""Folds of streams: each row is tested once, and classes, groups and times are divided as in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv

from training.data.splitting import Fold
from training.data.streaming import row_draw, source
from training.data.streaming.strata import fold_places
from training.errors import DataError
from training.pipeline.cross_validation import cross_validate, summarize_folds
from training.pipeline.job import Job, PreparedJob, from_dict, prepare

ROWS = 1203


@given(st.lists(st.integers(0, 3), min_size=1, max_size=300), st.integers(2, 7), st.integers(0, 50), st.integers(1, 99))
def test_of_successive_rows_of_a_stratum_one_is_in_each_fold(
    strata: list[int], count: int, seed: int, batch: int
) -> None:
    found: list[int] = []
    for start in range(0, len(strata), batch):
        seen = np.bincount(strata[:start], minlength=4)
        found += fold_places(np.array(strata[start : start + batch]), seen, count, seed).tolist()
    for stratum in set(strata):
        places = [place for place, own in zip(found, strata, strict=True) if own == stratum]
        for run in range(0, len(places), count):
            assert len(set(places[run : run + count])) == len(places[run : run + count])
    assert set(found) <= set(range(count))


def job(folder: Path, *, stream: bool = True, target: str = "kind", **sections: dict[str, Any]) -> Job:
    rng = np.random.default_rng(0)
    size = rng.standard_normal(ROWS)
    kind = np.where(size > 1, "b", "a").astype(object)
    kind[7] = "rare"
    content = {"size": size, "group": rng.integers(0, 60, ROWS), "day": rng.integers(0, 90, ROWS), "kind": kind}
    csv.write_csv(pa.table({**content, "price": size * 3}), folder / "t.csv")
    data = {"path": "t.csv", "target": target, "columns": ["size"], "stream": stream}
    return from_dict({"model": {"name": "m"}, "data": data, "train": {"epochs": 2}, **sections}, folder)


def rows_tested(prepared: PreparedJob, unit: int) -> list[int]:
    return [prepared.dataset.lines[row] - unit for row in prepared.split.test]  # type: ignore[index]


@pytest.mark.parametrize(("target", "split"), [("kind", {}), ("price", {}), ("price", {"stratify": True})])
def test_each_row_is_tested_in_one_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, split: dict[str, Any]
) -> None:
    monkeypatch.setattr(source, "BATCH_BYTES", 1 << 10)
    own = job(tmp_path, target=target, split=split)
    folds = [prepare(own, Fold(number, 4)) for number in range(1, 5)]
    rows = sorted(sum((rows_tested(fold, 1) for fold in folds), []))  # noqa: RUF017  # of four
    assert rows == [row for row in range(ROWS) if target == "price" or row != 7]  # a single row is always learned
    for fold in folds:
        assert sum(fold.sizes.values()) == ROWS
        assert abs(fold.sizes["test"] - ROWS / 4) <= 2
        assert abs(fold.sizes["validation"] - ROWS / 10) <= 1
        assert fold.stream is not None
        assert (fold.stream.class_counts > 0).all()
    again = prepare(job(tmp_path, target=target, split=split), Fold(2, 4, repeat=2))
    assert rows_tested(again, 1) != rows_tested(folds[1], 1)


@pytest.mark.parametrize("split", [{"by": "group", "column": "group"}, {"by": "time", "column": "day"}])
def test_folds_by_a_column_are_those_in_memory(tmp_path: Path, split: dict[str, Any]) -> None:
    for number in (1, 3):
        streamed, in_memory = (
            prepare(job(tmp_path, stream=stream, target="price", split=split), Fold(number, 3))
            for stream in (True, False)
        )
        assert rows_tested(streamed, 1) == rows_tested(in_memory, 2)
        assert streamed.sizes == in_memory.sizes


def test_a_stream_is_cross_validated(tmp_path: Path, train: Callable[..., Result]) -> None:
    found = summarize_folds(cross_validate(job(tmp_path), 3))
    assert found["accuracy"]["mean"] > 0.8
    (tmp_path / "m.toml").write_text(
        '[model]\nname = "m"\n[data]\npath = "t.csv"\ntarget = "kind"\nstream = true\n[train]\nepochs = 1\n'
    )
    result = train(tmp_path / "m.toml", "--folds", 3)
    assert result.exit_code == 0, result.output


def test_too_many_folds_are_an_error_and_large_folds_are_tested_on_fewer_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="expected at most 1202 folds"):
        prepare(job(tmp_path), Fold(1, 1300))
    monkeypatch.setattr(row_draw, "MAX_HELD_OUT_ROWS", 50)
    prepared = prepare(job(tmp_path), Fold(1, 3))
    assert 40 <= prepared.sizes["test"] <= 60
    assert any("at most about 50 rows" in note for note in prepared.notes)
