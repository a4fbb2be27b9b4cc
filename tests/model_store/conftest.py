"""A small model that has everything a model can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_store import artifact
from model_store.model import Golden, Model
from model_store.nn import build
from model_store.signature import Array as ArrayColumn
from model_store.signature import Category, Classes, Number, Signature, Values
from model_store.store import Store, open_store

if TYPE_CHECKING:
    from tests.model_store.s3 import S3

MakeModel = Callable[..., Model]


def chess(seed: int = 0, description: str = "Who plays chess", dtype: str = "float32") -> Model:
    """A classifier of (age, town) whose weights differ from seed to seed."""
    layers = [
        {"type": "Linear", "input_size": 3, "output_size": 4},
        {"type": "Tanh"},
        {"type": "Linear", "input_size": 4, "output_size": 2},
        {"type": "Softmax"},
    ]
    network = build(layers, dtype, rng=np.random.default_rng(seed))
    age = Number("age", 40.0, 12.5, fill=38.0, statistics={"min": 7.0, "max": 90.0})
    signature = Signature((age, Category("town", ("Bath", "York"))), Classes("chess", ("no", "yes")))
    rows = [[30, "Bath"], {"age": None, "town": "York"}]
    golden = Golden(rows, network(signature.encode(rows, dtype=dtype)))
    training = {"metrics": {"accuracy": 0.75}, "data": {"sha256": "ab" * 32, "rows": 40}}
    return Model(network, signature, description, training, golden)


def pictures(seed: int = 0) -> Model:
    """A regression of images, in float64, through layers of every kind."""
    layers = [
        {"type": "Conv2D", "input_shape": [6, 6, 1], "filters": 3, "kernel": 3, "stride": 1, "padding": 1},
        {"type": "BatchNorm", "size": 3, "momentum": 0.1, "epsilon": 1e-5},
        {"type": "ReLU"},
        {"type": "MaxPool2D", "input_shape": [6, 6, 3], "size": 2, "stride": 2},
        {"type": "Flatten", "input_shape": [3, 3, 3]},
        {"type": "Dropout", "rate": 0.5},
        {"type": "Linear", "input_size": 27, "output_size": 4},
        {"type": "LayerNorm", "size": 4, "epsilon": 1e-5},
        {"type": "GELU"},
        {"type": "Linear", "input_size": 4, "output_size": 2},
    ]
    network = build(layers, "float64", rng=np.random.default_rng(seed))
    column = ArrayColumn("pixels", (6, 6, 1), 0.0, 16.0, 0.0, 16.0, {})
    signature = Signature((column,), Values(("ink", "slant"), (0.0, 0.0), (1.0, 1.0)))
    rows = [np.full((6, 6, 1), 3.0).tolist()]
    golden = Golden(rows, network(signature.encode(rows, dtype="float64")))
    return Model(network, signature, "Ink on paper", {}, golden)


@pytest.fixture
def make_model() -> MakeModel:
    return chess


@pytest.fixture
def model(make_model: MakeModel) -> Model:
    return make_model()


@pytest.fixture
def written(model: Model, tmp_path: Path) -> Path:
    """The model in a file of its own."""
    path = tmp_path / "model.npz"
    artifact.write(path, model)
    return path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    from tests.model_store.s3 import running  # moto takes seconds to import

    with running() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A server with an empty bucket, which answers as it should until it is told otherwise."""
    for name, value in s3_server.reset().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def gs(s3: S3) -> S3:
    """The same server, spoken to as Google's."""
    s3.speak_googles()
    return s3


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: in a directory, or where a test is parametrised so, in a bucket."""
    kind = getattr(request, "param", "directory")
    if kind == "directory":
        return open_store(tmp_path / "models")
    server: S3 = request.getfixturevalue(kind)
    return open_store(server.address, tmp_path / "cache")
