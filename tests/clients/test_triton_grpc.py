"""tritonclient[grpc]: the synchronous and the asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Server

triton = pytest.importorskip("tritonclient.grpc", reason="the clients of others are installed by make clients")
aio = pytest.importorskip("tritonclient.grpc.aio", reason="the clients of others are installed by make clients")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

pytestmark = pytest.mark.slow


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
    url = f"127.0.0.1:{server.grpc_port}"
    made = Awaited(url) if request.param == "aio" else triton.InferenceServerClient(url)
    yield made
    made.end() if isinstance(made, Awaited) else made.close()


def tensor(name: str, values: Any, datatype: str) -> Any:
    array = np.array(values, object if datatype == "BYTES" else np.float64)
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def penguin_tensors() -> list[Any]:
    return [
        tensor("island", [["Biscoe"], ["Dream"]], "BYTES"),
        tensor("mass", [[4200.5], [3000.0]], "FP64"),
        tensor("sex", [["FEMALE"], ["MALE"]], "BYTES"),
    ]


def wanted_penguins(server: Server) -> list[Any]:
    _, model = server.store.load("penguins")
    return model.predict([["Biscoe", 4200.5, "FEMALE"], ["Dream", 3000.0, "MALE"]])


def check(answer: Any, expected: list[Any]) -> None:
    assert answer.as_numpy("probabilities").tolist() == [list(row["probabilities"].values()) for row in expected]
    assert [label.decode() for label in answer.as_numpy("label").ravel()] == [row["label"] for row in expected]


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
    """Server and model metadata"""
    assert "model_repository" in client.get_server_metadata(as_json=True)["extensions"]
    found = client.get_model_metadata("price", as_json=True)
    assert found["versions"] == ["1", "2"]
    assert [each["name"] for each in found["inputs"]] == ["rooms", "area"]


def test_infer_by_default(client, server):
    """Inference with the client's defaults: binary both ways
    Inference with BYTES for categories"""
    check(client.infer("penguins", penguin_tensors()), wanted_penguins(server))


@pytest.mark.parametrize("sent", ["gzip", "deflate"])
def test_infer_compressed(client, sent):
    """A compressed request is refused"""
    with pytest.raises(InferenceServerException, match=f"UNIMPLEMENTED.*'{sent}' is disabled"):
        client.infer("penguins", penguin_tensors(), compression_algorithm=sent)


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
        assert (head.model_name, head.model_version, head.id) == ("price", str(number), "a-1")
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
        client_timeout=20,
        headers={"x-other": "1"},
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
    answers: SimpleQueue[Any] = SimpleQueue()
    client = triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
    for _ in range(40):
        client.async_infer("penguins", penguin_tensors(), lambda result, error: answers.put((result, error)))
    for _ in range(40):
        result, error = answers.get(timeout=20)
        assert error is None
        check(result, wanted_penguins(server))
    client.close()


def test_faults(client):
    """A wrong shape is reported in the error
    A wrong datatype or name is reported in the error"""
    for inputs, expected_text in (
        ([tensor("pixels", np.zeros((1, 3)), "FP64")], "expected shape [-1, 2, 2], found [1, 3]"),
        ([tensor("pixels", [["a", "b", "c", "d"]], "BYTES")], "found text (BYTES)"),
        ([tensor("pixel", np.zeros((1, 4)), "FP64")], "did you mean 'pixels'?"),
    ):
        with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT") as caught:
            client.infer("image", inputs)
        assert expected_text in caught.value.message()
    with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*did you mean 'penguins'"):
        client.infer("pengins", penguin_tensors())
    with pytest.raises(InferenceServerException, match="did you mean 'label'"):
        client.infer("penguins", penguin_tensors(), outputs=[triton.InferRequestedOutput("lable")])


def test_repository(client):
    """Repository index
    Load and unload, effective in all workers at once"""
    columns = [tensor("rooms", [3.0], "FP64"), tensor("area", [80.0], "FP64")]
    client.unload_model("price")
    states = {each.name: each.state for each in client.get_model_repository_index().models}
    assert states == {"half_plus_two": "READY", "image": "READY", "penguins": "READY", "price": "UNAVAILABLE"}
    assert not client.is_model_ready("price")
    with pytest.raises(InferenceServerException, match=r"UNAVAILABLE.*unloaded"):
        client.infer("price", columns)
    client.load_model("price")
    assert client.is_model_ready("price")
    assert client.infer("price", columns).as_numpy("price").shape == (1, 1)
    with pytest.raises(InferenceServerException, match="file:1/model"):
        client.load_model("price", config="{}", files={"file:1/model": b"bytes"})
