"""Artifacts that version 0.1.0 wrote load with the same digest and predictions.

The files in tests/fixtures were written by the code of commit 6f54a2a, before its modules were moved and renamed: a
classifier of rows in float32, and a regression of images in float64 with layers of every kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.registry.store import open_store

FIXTURES = Path(__file__).parents[2] / "fixtures"
CLASSIFIER, IMAGES = FIXTURES / "artifact_0_1_classifier.npz", FIXTURES / "artifact_0_1_images.npz"
ROWS: list[Any] = [[30, "Bath"], {"age": None, "town": "York"}, [61.5, "York"]]
IMAGE = [[[float((i * 7 + j * 3) % 17)] for j in range(6)] for i in range(6)]


@pytest.mark.parametrize(
    ("path", "digest"),
    [
        (CLASSIFIER, "2844b196bc95b57fb0133268610e6257a55381e8bd8c10d44dc559990f9ea8c4"),
        (IMAGES, "3d7f1c41c51a829f290876880014bd008363d50380b7b8c1640e2cd139de5607"),
    ],
)
def test_an_old_artifact_keeps_its_digest_and_golden_outputs(path: Path, digest: str) -> None:
    model = npz.read(path)
    model.check_golden()
    assert model.digest == npz.read_digest(path) == digest


def test_an_old_classifier_keeps_its_predictions() -> None:
    predictions = npz.read(CLASSIFIER).predict(ROWS)
    assert [prediction["label"] for prediction in predictions] == ["no", "no", "yes"]
    found = [[prediction["probabilities"][label] for label in ("no", "yes")] for prediction in predictions]
    expected = [
        [0.8027508854866028, 0.19724909961223602],
        [0.5695623159408569, 0.43043771386146545],
        [0.042021412402391434, 0.9579785466194153],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_old_network_of_images_keeps_its_predictions() -> None:
    (prediction,) = npz.read(IMAGES).predict([IMAGE])
    assert prediction == pytest.approx({"ink": -0.7513001637221762, "slant": -0.13639928452847994}, rel=1e-12)


def test_an_old_artifact_is_published_and_loaded_again(tmp_path: Path) -> None:
    store = open_store(tmp_path / "models")
    store.publish("chess", npz.read(CLASSIFIER))
    _, model = store.load("chess")
    assert model.predict(ROWS) == npz.read(CLASSIFIER).predict(ROWS)
