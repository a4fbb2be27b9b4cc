"""Rows in compact form are the same rows: the same features, batches and model as those in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_store.nn import Sequential
from tests.training.tables import job, refusal
from training.encoded_rows import CodedGroup, CompactRows, FeatureGroup, OneHotGroup, apply_in_pieces, hold_features
from training.engine.loop import Samples, TrainingState
from training.pipeline import row_encoding
from training.pipeline.job import PreparedJob, prepare, train_and_evaluate
from training.pipeline.lr_range_test import find_job_learning_rate

TABLE = "x,city,colour,k,y\n" + "".join(
    f"{'' if i % 9 == 4 else i % 17},c{i * i % 40},{['red', 'blue', ''][i % 3]},1,{'ab'[i * i % 7 % 2]}\n"
    for i in range(600)
)


def prepare_both(folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: dict[str, object]) -> list[PreparedJob]:
    """Return the job with its rows in compact form, and with their features in memory."""
    found = []
    for limit in (0, 1 << 40):
        monkeypatch.setattr(row_encoding, "MIN_COMPACT_BYTES", limit)
        found.append(prepare(job(folder, TABLE, **sections)))
    return found


def test_compact_rows_have_the_features_that_they_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compact, full = prepare_both(tmp_path, monkeypatch)
    for name in ("x_training", "x_validation", "x_evaluation"):
        rows, features = getattr(compact, name), getattr(full, name)
        assert isinstance(rows, CompactRows)
        assert isinstance(features, np.ndarray)
        assert rows.nbytes < features.nbytes / 2
        assert rows.shape == features.shape
        assert np.array_equal(np.asarray(rows), features)
        assert np.array_equal(np.asarray(rows[5:9]), features[5:9])
        assert np.array_equal(np.asarray(rows[np.array([7, 2])]), features[[7, 2]])
        assert np.array_equal(apply_in_pieces(lambda x: 2 * x, rows), 2 * features)
        mask = compact.constant_features
        held = hold_features(rows, mask, compact.samples.first_sample + 1)
        assert np.array_equal(np.asarray(held), hold_features(features, mask, full.samples.first_sample + 1))
    assert np.array_equal(compact.constant_features, full.constant_features)
    assert compact.constant_features.any()


@pytest.mark.parametrize("batch_size", [1, 32, 50, 10_000])
def test_batches_have_the_same_rows_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    monkeypatch.setattr(row_encoding, "PIECE_VALUES", 4096)
    epochs = []
    for prepared in prepare_both(tmp_path, monkeypatch):
        samples, state = prepared.samples, TrainingState(Sequential([]), np.random.default_rng(3))
        found = []
        for x, y, order, first in samples.epoch_blocks(state, batch_size):
            rows = np.arange(len(x)) if order is None else order
            found += [(x[rows[at]].copy(), y[rows[at]].copy()) for at in range(first, len(rows))]
        epochs.append([np.array(part) for part in zip(*found, strict=True)])
    assert all(np.array_equal(*pair) for pair in zip(*epochs, strict=True))


@pytest.mark.parametrize("sections", [{}, {"network": {"layers": [8, "relu"]}, "train": {"batch_size": 7}}])
def test_the_model_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, dict[str, object]]
) -> None:
    compact, full = (train_and_evaluate(one) for one in prepare_both(tmp_path, monkeypatch, **sections))
    np.testing.assert_array_equal(compact.model.network.parameter_vector, full.model.network.parameter_vector)
    assert compact.metrics == full.metrics


def test_numbers_and_full_batches_are_not_compact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, _ = prepare_both(tmp_path, monkeypatch, data={"columns": ["x", "k"]})
    whole, _ = prepare_both(tmp_path, monkeypatch, train={"batch_size": "all"})
    assert type(numbers.samples) is type(whole.samples) is Samples


def test_a_value_that_cannot_be_encoded_is_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_encoding, "MIN_COMPACT_BYTES", 0)
    found = refusal(tmp_path, TABLE + "1e300,c1,red,1,a\n" * 9, data={"scale": "none"})
    assert "line 602, column x: expected a number that fits float32" in found


def test_the_learning_rate_test_takes_compact_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compact, full = (find_job_learning_rate(one) for one in prepare_both(tmp_path, monkeypatch))
    assert compact == full


def test_each_kind_of_group_expands_and_knows_its_constants() -> None:
    table = np.array([[1.0, 5.0, 0.5], [1.0, 6.0, 0.25], [2.0, 6.0, 0.0]], np.float32)
    codes = np.array([0, 1, 1, 0], np.uint8)
    groups = [
        FeatureGroup(slice(0, 2), np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0], [1.0, 5.0]], np.float32)),
        CodedGroup(slice(2, 5), codes, table),
        OneHotGroup(slice(5, 8), np.array([0, -1, 2, 0], np.int8)),
        OneHotGroup(slice(8, 10), np.array([1, 1, 1, 1], np.int8)),
    ]
    rows = CompactRows(groups, 4, 10, np.dtype(np.float32))
    full = np.asarray(rows)
    assert full[:, 2:5].tolist() == table[codes].tolist()
    assert full[:, 5:8].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert np.array_equal(rows.constant_features, (full == full[0]).all(axis=0))
    assert len(rows[1:3]) == 2
    assert apply_in_pieces(lambda x: x[:, :1], rows[:0]).shape == (0, 1)
