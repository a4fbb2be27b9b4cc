"""The baseline of explanations: training leaves the mean of the training rows in the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.encoded_rows import CompactRows
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate

ROWS = 400


def prepared(folder: Path, **data: Any) -> PreparedJob:
    """Prepare a job of a number with gaps, a category as features, and one with so many values that it is embedded."""
    rng = np.random.default_rng(4)
    shops = np.minimum(rng.geometric(0.1, ROWS), 20)
    sizes = ["" if i % 7 == 0 else f"{size:.4f}" for i, size in enumerate(rng.normal(size=ROWS))]
    colours, kinds = ("red", "blue", "red"), ("yes", "no")
    lines = [f"{sizes[i]},{colours[i % 3]},shop{shops[i]},{kinds[i % 2]}" for i in range(ROWS)]
    (folder / "t.csv").write_text("size,colour,shop,kind\n" + "\n".join(lines) + "\n")
    content = {
        "model": {"name": "m"},
        "data": {"path": "t.csv", "target": "kind", **data},
        "network": {"layers": [{"embedding": 3, "one_hot": 9}, 8, "relu"]},
        "train": {"epochs": 2},
    }
    return prepare(from_dict(content, folder))


def expected(x: np.ndarray, codes: list[int]) -> np.ndarray:
    row = x.mean(axis=0, dtype=np.float64)
    for position in codes:
        row[position] = np.bincount(x[:, position].astype(int)).argmax()
    return row


def positions_of_codes(job: PreparedJob) -> list[int]:
    widths = [column.width for column in job.signature.inputs]
    return [
        sum(widths[:i]) for i, column in enumerate(job.signature.inputs) if getattr(column, "encoding", "") == "code"
    ]


def test_the_model_holds_the_mean_of_the_training_rows(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    codes = positions_of_codes(job)
    assert len(codes) == 1
    model = train_and_evaluate(job, diagnostics=False).model
    assert model.baseline is not None
    assert model.baseline.dtype == model.network.dtype
    np.testing.assert_allclose(model.baseline, expected(np.asarray(job.x_training), codes), rtol=1e-6)


def test_rows_in_compact_form_have_the_same_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = prepared(tmp_path)
    monkeypatch.setattr("training.pipeline.row_encoding.MIN_COMPACT_BYTES", 0)
    compact = prepared(tmp_path)
    if isinstance(compact.x_training, CompactRows):
        np.testing.assert_allclose(compact.mean.row, plain.mean.row, rtol=1e-6)
    else:
        pytest.fail("expected rows in compact form")


def test_a_stream_has_the_mean_of_its_rows(tmp_path: Path) -> None:
    job = prepared(tmp_path, stream=True)
    assert job.block_loader is not None
    x, _ = job.block_loader.sample(ROWS, np.random.default_rng(0))
    assert len(x) == len(job.block_loader)
    np.testing.assert_allclose(job.mean.row, expected(x, positions_of_codes(job)), rtol=1e-6, atol=1e-7)
