"""A network with every kind of layer predicts the same bits over HTTP as when published, in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_store.artifact.model import Model
from model_store.nn import build
from model_store.registry.store import open_store
from model_store.schema.signature import ArrayColumn, ClassificationOutput, Signature
from tests.service.conftest import MakeClient, with_golden

LAYERS = [
    {"type": "Conv2D", "input_shape": [6, 5, 1], "filters": 3, "kernel": 3, "stride": 1, "padding": 1},
    {"type": "BatchNorm", "size": 3, "momentum": 0.1, "epsilon": 1e-5},
    {"type": "ReLU"},
    {"type": "MaxPool2D", "input_shape": [6, 5, 3], "size": 2, "stride": 2},
    {"type": "Flatten", "input_shape": [3, 2, 3]},
    {"type": "LayerNorm", "size": 18, "epsilon": 1e-5},
    {"type": "Dropout", "rate": 0.5},
    {"type": "Linear", "input_size": 18, "output_size": 2},
    {"type": "Softmax"},
]


def test_a_convolutional_model_is_published_and_served(tmp_path: Path, make_client: MakeClient) -> None:
    column = ArrayColumn("pixels", (6, 5), 0.0, 255.0, 0.0, 255.0, {"min": 0.0, "mean": 99.0, "max": 255.0})
    network = build(LAYERS, rng=np.random.default_rng(0), initializer="he_normal")
    images = np.random.default_rng(1).integers(0, 256, (9, 6, 5)).tolist()
    model = with_golden(Model(network, Signature((column,), ClassificationOutput("kind", ("a", "b")))), images[:4])
    store = open_store(tmp_path / "models")
    store.publish("stripes", model)
    with make_client(store) as client:
        together = client.post("/predict", json={"instances": images}).get_json()["predictions"]
        alone = [client.post("/predict", json={"instances": [row]}).get_json()["predictions"][0] for row in images]
    assert together == alone == model.predict(images)
