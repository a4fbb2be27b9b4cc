"""Streamed .npz and IDX files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.streaming import source
from training.errors import DataError
from training.pipeline.job import from_dict, prepare, train_and_evaluate


def images(rows: int = 900) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, rows).astype(np.uint8)
    x = rng.integers(0, 40, (rows, 4, 4)).astype(np.uint8)
    x[np.arange(rows), labels, 1] += 150
    x[:, 3, 3] = 0
    return x, labels


def idx(path: Path, values: np.ndarray) -> None:
    content = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("form", ["npz", "packed", "idx", "gz"])
def test_arrays_can_be_streamed(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images()
    monkeypatch.setattr(source, "BATCH_BYTES", 1 << 12)  # then fewer images than labels are read for type inference
    if form in {"npz", "packed"}:
        (np.savez if form == "npz" else np.savez_compressed)(tmp_path / "t.npz", x=x, y=y)
        data = {"path": "t.npz", "stream": True}
    else:
        names = {"images": f"images.{form}", "labels": f"labels.{form}"}
        for name, values in zip(names.values(), (x, y), strict=True):
            idx(tmp_path / name, values)
        data = {**names, "stream": True}
    content = {"model": {"name": "m"}, "data": data, "train": {"epochs": 5, "batch_size": 20, "learning_rate": 0.3}}
    prepared = prepare(from_dict(content, tmp_path))
    expected = prepare(from_dict({**content, "data": {**data, "stream": False}}, tmp_path)).signature
    assert prepared.signature.inputs[0].scale == expected.inputs[0].scale
    assert prepared.signature.output == expected.output
    assert prepared.samples.constant_features[15]
    outcome = train_and_evaluate(prepared)
    assert outcome.metrics["accuracy"] == 1
    assert outcome.model.predict(prepared.evaluation_instances[:3])


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": np.zeros((30, 0)), "y": np.zeros(30)}, "x: expected values, found the empty shape (30, 0)"),
        ({"x": np.zeros((30, 2)), "y": np.array(["a"] * 30, object)}, "y: expected plain values, found Python objects"),
        ({"x_train": np.zeros((30, 2)), "y": np.zeros(30)}, "expected an array 'x', found x_train, y"),
    ],
)
def test_invalid_arrays_are_reported_as_in_memory(tmp_path: Path, arrays: Any, expected: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    for streamed in (True, False):
        data = {"path": "t.npz", "stream": streamed}
        with pytest.raises(DataError) as caught:
            prepare(from_dict({"model": {"name": "m"}, "data": data}, tmp_path))
        assert expected in str(caught.value)
