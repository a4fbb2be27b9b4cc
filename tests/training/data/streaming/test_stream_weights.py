"""Weights of rows in streams: the loss, the metrics and the baseline are those of rows in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from tests.training.streams import everything
from training.data.streaming.source import WEIGHT_FIELD
from training.errors import DataError
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate
from training.pipeline.lr_range_test import find_job_learning_rate

ROWS = 2000


def write(folder: Path, **columns: Any) -> None:
    rng = np.random.default_rng(0)
    size = rng.standard_normal(ROWS)
    content = {
        "size": size,
        "weight": rng.integers(0, 5, ROWS) / 2 + (size > 1) * 9,
        "group": rng.integers(0, 100, ROWS),
        "kind": np.where(size + rng.standard_normal(ROWS) > 1, "b", "a"),
        "price": size * 2 + rng.standard_normal(ROWS),
    }
    csv.write_csv(pa.table({**content, **columns}), folder / "t.csv")


def prepared(folder: Path, target: str, *, stream: bool, **train: Any) -> PreparedJob:
    data = {"path": "t.csv", "target": target, "columns": ["size"], "weight": "weight", "stream": stream}
    split = {"by": "group", "column": "group"}
    train = {"epochs": 2, "learning_rate": 0.02, **train}
    return prepare(from_dict({"model": {"name": "m"}, "data": data, "split": split, "train": train}, folder))


@pytest.mark.parametrize(
    ("target", "train"),
    [
        ("kind", {}),
        ("kind", {"class_weights": "balanced"}),
        ("price", {}),
        ("price", {"loss": "pinball", "quantile": 0.8}),
    ],
)
def test_weights_are_those_of_rows_in_memory(tmp_path: Path, target: str, train: dict[str, Any]) -> None:
    write(tmp_path)
    stream, in_memory = (prepared(tmp_path, target, stream=stream, **train) for stream in (True, False))
    x, y = everything(stream)
    expected = np.column_stack([in_memory.x_training, in_memory.encode_learned(in_memory.split.training)])
    found = np.column_stack([x, y])
    assert found.shape == expected.shape
    assert np.allclose(found[found[:, 0].argsort()], expected[expected[:, 0].argsort()], rtol=1e-5)
    outcomes = [train_and_evaluate(job) for job in (stream, in_memory)]
    assert outcomes[0].metrics["weight"] == "weight"
    baselines = [outcome.baseline for outcome in outcomes]
    if target == "kind":
        assert baselines[0] == baselines[1]
        assert abs(outcomes[0].metrics["accuracy"] - outcomes[1].metrics["accuracy"]) < 0.02
    else:
        assert baselines[0]["answer"] == pytest.approx(baselines[1]["answer"])
        rmse = [outcome.metrics["targets"]["price"]["rmse"] for outcome in outcomes]
        assert rmse[0] == pytest.approx(rmse[1], rel=0.05)
    assert len(find_job_learning_rate(stream).rates) > 1


def test_weights_that_are_no_weights_are_reported_with_their_row(tmp_path: Path) -> None:
    weights = [1.0] * ROWS
    write(tmp_path, weight=[*weights[:1500], -2.0, None, *weights[1502:]])
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, "kind", stream=True)
    assert "row 1501, column weight: expected a weight of at least 0, found -2" in str(caught.value)
    assert "2 cells are like this, also 'none' in row 1502" in str(caught.value)
    assert WEIGHT_FIELD not in str(caught.value)
    write(tmp_path, weight=[0.0] * ROWS)
    with pytest.raises(DataError, match="column weight: all training rows have a weight of 0"):
        prepared(tmp_path, "kind", stream=True)
