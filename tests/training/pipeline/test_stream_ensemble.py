"""Ensembles of streams: each network is trained without another fold of the rows, which it is validated on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from pyarrow import csv

from model_store.nn import Sequential
from model_store.registry.store import open_store
from tests.training.streams import everything
from training.data.splitting import Fold
from training.data.streaming import dataset as streaming_dataset
from training.data.streaming import record_file, source
from training.engine.loop import TrainingState
from training.errors import DataError
from training.pipeline import streaming_loader
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate
from training.pipeline.network_training import train_ensemble

ROWS = 2000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_file, "CHUNK_ROWS", 32)
    monkeypatch.setattr(streaming_loader, "PIECE_VALUES", 700)
    monkeypatch.setattr(source, "BATCH_BYTES", 1 << 12)


def prepared(folder: Path, fold: Fold | None = None, *, stream: bool = True, **sections: dict[str, Any]) -> PreparedJob:
    rng = np.random.default_rng(0)
    size, colour = rng.standard_normal(ROWS), rng.integers(0, 3, ROWS)
    columns = {
        "size": [None if i % 40 == 1 else float(v) for i, v in enumerate(size)],
        "colour": [("red", "white", "blue")[c] for c in colour],
        "group": rng.integers(0, 80, ROWS),
        "weight": rng.integers(1, 4, ROWS),
        "kind": np.where(size + colour > 1.5, "b", "a"),
    }
    csv.write_csv(pa.table(columns), folder / "t.csv")
    data = {"path": "t.csv", "target": "kind", "columns": ["size", "colour"], "stream": stream}
    train = {"epochs": 8, "ensemble": 3, "learning_rate": 0.2, "early_stopping": {"patience": 3}}
    content = {"model": {"name": "m"}, "data": data, "train": train}
    for name, keys in sections.items():
        content[name] = {**content.get(name, {}), **keys}
    return prepare(from_dict(content, folder), fold)


def test_each_network_is_trained_without_its_fold_and_validated_on_it(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    assert job.stream is not None
    assert job.block_loader is not None
    assert job.sizes == {"training": ROWS - 400, "validation": 0, "test": 400}
    every, _ = everything(job)
    held = [job.encode_rows(rows) for rows in job.stream.folds]
    assert sum(map(len, held)) == len(every) == ROWS - 400
    for fold, validated in enumerate(held):
        loader = job.block_loader.without(fold)
        learned = np.concatenate([x.copy() for x, *_ in loader.epoch_blocks(_state(), 50)])
        assert len(learned) + len(validated) == len(every)
        both = np.concatenate([learned, np.asarray(validated)])
        assert np.array_equal(both[np.lexsort(both.T)], every[np.lexsort(every.T)])
        assert abs(len(validated) - len(every) / 3) < 0.1 * len(every)
        assert np.array_equal(loader.constant_features, (learned == learned[0]).all(axis=0))


def _state() -> Any:
    return TrainingState(Sequential([]), np.random.default_rng(0))


def test_no_group_is_in_two_folds(tmp_path: Path) -> None:
    split = {"by": "group", "column": "group"}
    job, in_memory = (prepared(tmp_path, stream=stream, split=split) for stream in (True, False))
    assert job.sizes == in_memory.sizes
    assert job.stream is not None
    assert job.dataset.lines is not None
    cells = in_memory.dataset.extra["group"]
    groups = [{cells[job.dataset.lines[row] - 1] for row in rows} for rows in job.stream.folds]
    assert len(set.union(*groups)) == sum(map(len, groups))
    sizes = [len(rows) for rows in job.stream.folds]
    assert sum(sizes) == job.sizes["training"]
    assert max(sizes) - min(sizes) < 0.05 * ROWS


def test_an_ensemble_of_a_stream_is_as_good_as_one_in_memory(tmp_path: Path) -> None:
    outcomes = [train_and_evaluate(prepared(tmp_path, stream=stream)) for stream in (True, False)]
    assert all(outcome.metrics["accuracy"] > 0.95 for outcome in outcomes)
    found, expected = (outcome.model.training["ensemble"] for outcome in outcomes)
    assert found["networks"] == expected["networks"] == 3
    assert found["out_of_fold"]["rows"] == expected["out_of_fold"]["rows"] == ROWS - 400
    assert found["out_of_fold"]["accuracy"] == pytest.approx(expected["out_of_fold"]["accuracy"], abs=0.02)
    again = train_and_evaluate(prepared(tmp_path))
    assert all(np.array_equal(one, other) for one, other in zip(
        outcomes[0].model.network.parameters(), again.model.network.parameters(), strict=True
    ))  # fmt: skip


def test_an_ensemble_without_test_rows_is_evaluated_out_of_fold(tmp_path: Path) -> None:
    outcomes = [train_and_evaluate(prepared(tmp_path, stream=stream, split={"test": 0})) for stream in (True, False)]
    for outcome in outcomes:
        assert (outcome.metrics["rows"], outcome.metrics["of"]) == (ROWS, "out-of-fold rows")
        assert outcome.metrics["accuracy"] > 0.95
        assert outcome.linear is not None


def test_large_folds_are_validated_on_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_dataset, "MAX_HELD_OUT_ROWS", 300)
    job = prepared(tmp_path, data={"weight": "weight"})
    assert job.stream is not None
    assert all(50 < len(rows) <= 100 for rows in job.stream.folds)
    assert job.sizes["training"] == ROWS - 400
    trained = train_ensemble(job, 3)
    assert trained.ensemble is not None
    assert trained.ensemble["out_of_fold"]["rows"] == sum(map(len, job.stream.folds))


def test_an_ensemble_can_be_cross_validated_and_needs_rows_for_each_network(tmp_path: Path) -> None:
    job = prepared(tmp_path, Fold(2, 4))
    assert job.sizes["test"] == pytest.approx(ROWS / 4, abs=2)
    with pytest.raises(DataError, match=r"train.ensemble: expected rows for each of 20 networks, found none for \d+"):
        prepared(tmp_path, train={"ensemble": 20}, split={"test": 0.995, "validation": 0})


def test_the_command_counts_each_row_once(tmp_path: Path, train: Callable[..., Result]) -> None:
    prepared(tmp_path)
    (tmp_path / "m.toml").write_text(
        '[model]\nname = "m"\n[data]\npath = "t.csv"\ntarget = "kind"\nstream = true\n'
        "[train]\nepochs = 2\nensemble = 3\n"
    )
    shown = json.loads(train("check", tmp_path / "m.toml", "--json").stdout)
    assert shown["columns"][0]["missing"] == ROWS / 40
    assert sum(shown["split"].values()) == sum(shown["target"]["classes"].values()) == ROWS
    found = train(tmp_path / "m.toml")
    assert found.exit_code == 0, found.output
    assert open_store(tmp_path / "models").versions("m") == [1]
