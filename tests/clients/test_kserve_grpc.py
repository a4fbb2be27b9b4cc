"""kserve's InferenceGRPCClient."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Server

kserve = pytest.importorskip("kserve", reason="the clients of others are installed by make clients")
grpc = pytest.importorskip("grpc", reason="the clients of others are installed by make clients")

pytestmark = pytest.mark.slow


@pytest.fixture
def ask(server: Server) -> Callable[..., Any]:
    """Return a function that calls one method of the client by name."""

    def call(method: str, *given: Any, **named: Any) -> Any:
        async def under_way() -> Any:
            client = kserve.InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}")
            try:
                return await getattr(client, method)(*given, **named)
            finally:
                await client.close()

        return asyncio.run(under_way())

    return call


def image_request(values: Any, shape: list[int], binary: bool) -> Any:
    tensor = kserve.InferInput("pixels", shape, "FP32")
    tensor.set_data_from_numpy(np.array(values, np.float32).reshape(shape), binary_data=binary)
    return kserve.InferRequest("image", [tensor], request_id="7")


def test_health(ask):
    """Server live and ready"""
    assert ask("is_server_live")
    assert ask("is_server_ready")


def test_model_ready(ask):
    """Model ready"""
    assert ask("is_model_ready", "price")
    assert not ask("is_model_ready", "prise")


@pytest.mark.parametrize("binary", [True, False])
def test_infer(ask, server, binary):
    """Inference with tensors as raw and as typed contents"""
    answer = ask("infer", image_request([1, 2, 3, 4], [1, 2, 2], binary))
    _, model = server.store.load("image")
    (expected,) = model.predict([[1, 2, 3, 4]])
    assert (answer.model_name, answer.model_version, answer.id) == ("image", "1", "7")
    assert {output.name: output.as_numpy().item() for output in answer.outputs} == expected


def test_categories(ask, server):
    """Inference with BYTES for categories"""
    values = (("island", ["Biscoe"], "BYTES"), ("mass", [4200.5], "FP64"), ("sex", ["MALE"], "BYTES"))
    inputs = []
    for name, column, datatype in values:
        made = kserve.InferInput(name, [1, 1], datatype)
        array = np.array([column], object if datatype == "BYTES" else np.float64)
        made.set_data_from_numpy(array, binary_data=True)
        inputs.append(made)
    answer = ask("infer", kserve.InferRequest("penguins", inputs))
    _, model = server.store.load("penguins")
    (expected,) = model.predict([["Biscoe", 4200.5, "MALE"]])
    outputs = {output.name: output.as_numpy() for output in answer.outputs}
    assert outputs["probabilities"].ravel().tolist() == list(expected["probabilities"].values())


def test_faults(ask):
    """A wrong shape is reported in the error"""
    with pytest.raises(grpc.RpcError) as caught:
        ask("infer", image_request([1, 2, 3], [1, 3], False))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected shape [-1, 2, 2], found [1, 3]" in caught.value.details()
