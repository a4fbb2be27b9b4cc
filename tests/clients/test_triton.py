"""tritonclient[http]: the synchronous and the asyncio client, with defaults and all options."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Server

triton = pytest.importorskip("tritonclient.http", reason="the clients of others are installed by make clients")
aio = pytest.importorskip("tritonclient.http.aio", reason="the clients of others are installed by make clients")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

pytestmark = [
    pytest.mark.slow,
    # The asyncio client does not read response bodies that it does not need.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Awaited:
    """The asyncio client with the interface of the synchronous client."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()

        async def made() -> Any:
            return aio.InferenceServerClient(url)

        self._client = self._loop.run_until_complete(made())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *given, **named: self._loop.run_until_complete(getattr(self._client, name)(*given, **named))

    def end(self) -> None:
        self.close()
        self._loop.close()


@pytest.fixture(params=["sync", "aio"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    url = f"127.0.0.1:{server.port}"
    made = Awaited(url) if request.param == "aio" else triton.InferenceServerClient(url)
    yield made
    made.end() if isinstance(made, Awaited) else made.close()


def tensor(name: str, values: Any, datatype: str, binary: bool = True) -> Any:
    array = np.array(values, object if datatype == "BYTES" else np.float64)
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def penguin_tensors(binary: bool = True) -> list[Any]:
    return [
        tensor("island", [["Biscoe"], ["Dream"]], "BYTES", binary),
        tensor("mass", [[4200.5], [3000.0]], "FP64", binary),
        tensor("sex", [["FEMALE"], ["MALE"]], "BYTES", binary),
    ]


def wanted_penguins(server: Server) -> list[Any]:
    _, model = server.store.load("penguins")
    return model.predict([["Biscoe", 4200.5, "FEMALE"], ["Dream", 3000.0, "MALE"]])


def check(answer: Any, expected: list[Any]) -> None:
    assert answer.as_numpy("probabilities").tolist() == [list(row["probabilities"].values()) for row in expected]
    labels = [label if isinstance(label, str) else label.decode() for label in answer.as_numpy("label").ravel()]
    assert labels == [row["label"] for row in expected]


def test_health(client):
    """Server live and ready"""
    assert client.is_server_live()
    assert client.is_server_ready()


def test_model_ready(client):
    """Model ready
    Model ready, by version"""
    assert client.is_model_ready("price")
    assert client.is_model_ready("price", "1")
    assert not client.is_model_ready("price", "9")
    assert not client.is_model_ready("nothing")


def test_metadata(client):
    """Server and model metadata
    Model configuration"""
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    found = client.get_model_metadata("price")
    assert found["versions"] == ["1", "2"]
    assert client.get_model_config("image")["input"][0]["dims"] == [2, 2]


def test_infer_by_default(client, server):
    """Inference with the client's defaults: binary both ways
    Inference with BYTES for categories"""
    check(client.infer("penguins", penguin_tensors()), wanted_penguins(server))


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("received", [True, False])
def test_infer_binary_and_json(client, server, sent, received):
    """Inference with tensors as bytes and as JSON in every combination"""
    outputs = [triton.InferRequestedOutput(name, binary_data=received) for name in ("probabilities", "label")]
    check(client.infer("penguins", penguin_tensors(sent), outputs=outputs), wanted_penguins(server))


@pytest.mark.parametrize("sent", ["gzip", "deflate", None])
@pytest.mark.parametrize("received", ["gzip", "deflate", None])
def test_infer_compressed(client, server, sent, received):
    """Inference with gzip and deflate in every combination"""
    answer = client.infer(
        "penguins", penguin_tensors(), request_compression_algorithm=sent, response_compression_algorithm=received
    )
    check(answer, wanted_penguins(server))


def test_infer_arrays(client, server):
    """Inference with arrays: bit-identical to the model"""
    _, model = server.store.load("image")
    images = np.random.default_rng(0).uniform(0, 16, (50, 2, 2)).astype(np.float32)
    made = triton.InferInput("pixels", [50, 2, 2], "FP32")
    made.set_data_from_numpy(images)
    answer = client.infer("image", [made])
    expected = model.predict(images.tolist())
    assert answer.as_numpy("ink").ravel().tolist() == [row["ink"] for row in expected]


def test_infer_version(client, server):
    """Inference by version and with a request id"""
    columns = [tensor("rooms", [3.0], "FP64"), tensor("area", [80.0], "FP64")]
    for version, number in (("", 2), ("1", 1), ("2", 2), ("champion", 1)):
        answer = client.infer("price", columns, model_version=version, request_id="a-1")
        head = answer.get_response()
        assert (head["model_name"], head["model_version"], head["id"]) == ("price", str(number), "a-1")
        _, model = server.store.load("price", number)
        assert answer.as_numpy("price").ravel().tolist() == model.predict([[3, 80]])


def test_infer_parameters(client, server):
    """Inference with unknown parameters, which are ignored"""
    answer = client.infer(
        "penguins",
        penguin_tensors(),
        outputs=[triton.InferRequestedOutput("label"), triton.InferRequestedOutput("probabilities", class_count=1)],
        sequence_id=7,
        sequence_start=True,
        priority=1,
        timeout=5_000_000,  # microseconds
        headers={"X-Other": "1"},
        query_params={"other": "1"},
        parameters={"own": "1"},
    )
    check(answer, wanted_penguins(server))


def test_infer_explained(client, server):
    """Inference with explanations, by a parameter"""
    parameters = {"explain": True, "explain_label": "Gentoo"}
    answer = client.infer("penguins", penguin_tensors(), parameters=parameters)
    check(answer, wanted_penguins(server))
    contributions = sum(answer.as_numpy(f"contributions.{name}") for name in ("island", "mass", "sex"))
    difference = answer.as_numpy("explained.answer") - answer.as_numpy("explained.baseline")
    np.testing.assert_allclose(contributions, difference, rtol=1e-3)
    assert answer.as_numpy("explained.label").ravel().tolist() == [b"Gentoo"] * 2


def test_infer_at_once(server):
    """Concurrent inference requests"""
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4)
    under_way = [client.async_infer("penguins", penguin_tensors()) for _ in range(40)]
    for request in under_way:
        check(request.get_result(), wanted_penguins(server))
    client.close()


def test_faults(client):
    """A wrong shape is reported in the error
    A wrong datatype or name is reported in the error"""
    for inputs, expected_text in (
        ([tensor("pixels", np.zeros((1, 3)), "FP64")], "expected shape [-1, 2, 2], found [1, 3]"),
        ([tensor("pixels", [["a", "b", "c", "d"]], "BYTES")], "found text (BYTES)"),
        ([tensor("pixel", np.zeros((1, 4)), "FP64")], "did you mean 'pixels'?"),
    ):
        with pytest.raises(InferenceServerException, match="400") as caught:
            client.infer("image", inputs)
        assert expected_text in caught.value.message()
    with pytest.raises(InferenceServerException, match="did you mean 'penguins'"):
        client.infer("pengins", penguin_tensors())
    with pytest.raises(InferenceServerException, match="did you mean 'label'"):
        client.infer("penguins", penguin_tensors(), outputs=[triton.InferRequestedOutput("lable")])


def test_statistics(client):
    """Statistics of one model and of all models"""

    def counted() -> tuple[int, int]:
        (found,) = client.get_inference_statistics("penguins")["model_stats"]
        return found["inference_count"], found["execution_count"]

    rows, requests = counted()
    client.infer("penguins", penguin_tensors())
    assert counted() == (rows + 2, requests + 1)
    assert len(client.get_inference_statistics()["model_stats"]) == 4


def test_repository(client):
    """Repository index
    Load and unload, effective in all workers at once"""
    columns = [tensor("rooms", [3.0], "FP64"), tensor("area", [80.0], "FP64")]
    client.unload_model("price")
    states = {each["name"]: each["state"] for each in client.get_model_repository_index()}
    assert states == {"half_plus_two": "READY", "image": "READY", "penguins": "READY", "price": "UNAVAILABLE"}
    assert not any(client.is_model_ready("price") for _ in range(20))
    with pytest.raises(InferenceServerException, match="unloaded"):
        client.infer("price", columns)
    client.load_model("price")
    assert all(client.is_model_ready("price") for _ in range(20))
    assert client.infer("price", columns).as_numpy("price").shape == (1, 1)
    with pytest.raises(InferenceServerException, match="file:1/model"):
        client.load_model("price", config="{}", files={"file:1/model": b"bytes"})
