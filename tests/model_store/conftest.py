"""Models and stores for the tests of model_store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.artifact.model import Golden, Model
from model_store.nn import build
from model_store.registry.store import Store, open_store
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from model_store.storage.base import put_object
from model_store.storage.local import LocalStorage

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
    age = NumberColumn("age", 40.0, 12.5, fill=38.0, statistics={"min": 7.0, "max": 90.0})
    signature = Signature((age, CategoryColumn("town", ("Bath", "York"))), ClassificationOutput("chess", ("no", "yes")))
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
    signature = Signature((column,), RegressionOutput(("ink", "slant"), (0.0, 0.0), (1.0, 1.0)))
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
    """Write the model to a file. Return its path."""
    path = tmp_path / "model.npz"
    npz.write(path, model)
    return path


# Stores ----------------------------------------------------------------------------------------------------------

BUCKETS = ["s3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gs", "seaweedfs", "az"))]
BACKENDS = ["directory", *BUCKETS]
"""All backends of a store. Those with a server of their own, or a second dialect of one, are slow."""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    from tests.model_store.s3 import running  # moto takes seconds to import

    with running() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.model_store import seaweedfs

    with seaweedfs.running(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def azurite_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.model_store import azurite

    with azurite.running(tmp_path_factory.mktemp("azurite")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def seaweedfs_server(seaweedfs_endpoint: str) -> Iterator[S3]:
    from tests.model_store.s3 import S3, serving

    with serving(S3(seaweedfs_endpoint)) as server:
        yield server


@pytest.fixture(scope="session")
def az_server(azurite_endpoint: str) -> Iterator[S3]:
    from tests.model_store import azurite
    from tests.model_store.s3 import S3, serving

    with serving(S3(azurite_endpoint, "az", azurite.environment)) as server:
        yield server


def fresh(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in server.reset().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A server with an empty bucket; it works correctly until a test injects a fault."""
    return fresh(s3_server, monkeypatch)


@pytest.fixture
def gs(s3: S3) -> S3:
    """The same server with the API of Google Cloud Storage."""
    s3.use_google_api()
    return s3


@pytest.fixture
def seaweedfs(seaweedfs_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A proxy of SeaweedFS that can inject faults."""
    return fresh(seaweedfs_server, monkeypatch)


@pytest.fixture
def az(az_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A proxy of Azurite that can inject faults."""
    return fresh(az_server, monkeypatch)


@pytest.fixture(params=BACKENDS)
def everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store on each backend."""
    if request.param == "directory":
        return open_store(tmp_path / "models")
    server: S3 = request.getfixturevalue(request.param)
    return open_store(server.url, tmp_path / "cache")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a directory. Test modules for all backends override this fixture."""
    return open_store(tmp_path / "models")


@pytest.fixture(name="chess")
def three_versions(store: Store, make_model: MakeModel) -> Store:
    """A store with three versions of one model."""
    for seed in range(3):
        store.publish("chess", make_model(seed))
    return store


def contents(store: Store) -> dict[str, bytes | None]:
    """Return the contents of a store by path or key; None for a directory."""
    if isinstance(store.storage, LocalStorage):
        paths = sorted(store.root.rglob("*"))
        return {str(path.relative_to(store.root)): path.read_bytes() if path.is_file() else None for path in paths}
    keys = store.storage.keys("*", "*/*", "*/*/*/*")
    return {key: store.storage.get(key) for key in keys}


def replace_object(store: Store, key: str, data: bytes) -> None:
    """Replace an object, against the rules."""
    store.storage.delete(key)
    assert put_object(store.storage, key, data)
