"""kserve's InferenceRESTClient with both versions of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Server

kserve = pytest.importorskip("kserve", reason="the clients of others are installed by make clients")

pytestmark = pytest.mark.slow


@pytest.fixture
def ask(server: Server) -> Callable[..., Any]:
    """Return a function that calls one method of the client by name."""

    def call(method: str, *given: Any, protocol: str = "v2", **named: Any) -> Any:
        async def under_way() -> Any:
            client = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol=protocol))
            try:
                return await getattr(client, method)(f"http://127.0.0.1:{server.port}", *given, **named)
            finally:
                await client.close()

        return asyncio.run(under_way())

    return call


def image_request(values: Any, shape: list[int], binary: bool) -> Any:
    tensor = kserve.InferInput("pixels", shape, "FP32")
    tensor.set_data_from_numpy(np.array(values, np.float32).reshape(shape), binary_data=binary)
    return kserve.InferRequest("image", [tensor], request_id="7", parameters={"binary_data_output": binary})


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
    """Inference with tensors as bytes and as JSON in every combination"""
    headers: dict[str, str] = {}
    request = image_request([1, 2, 3, 4], [1, 2, 2], binary)
    answer = ask("infer", request, model_name="image", response_headers=headers)
    _, model = server.store.load("image")
    (expected,) = model.predict([[1, 2, 3, 4]])
    assert (answer.model_name, headers["x-model-version"], answer.id) == (
        "image",
        "1",
        "7",
    )  # the client drops the field
    assert {output.name: output.as_numpy().item() for output in answer.outputs} == expected


def test_categories(ask, server):
    """Inference with BYTES for categories"""
    tensors = []
    for name, datatype, values in (
        ("island", "BYTES", np.array([[b"Biscoe"]], object)),
        ("mass", "FP64", np.array([[4200.5]])),
        ("sex", "BYTES", np.array([[b"MALE"]], object)),
    ):
        tensor = kserve.InferInput(name, [1, 1], datatype)
        tensor.set_data_from_numpy(values, binary_data=True)
        tensors.append(tensor)
    answer = ask("infer", kserve.InferRequest("penguins", tensors), model_name="penguins")
    _, model = server.store.load("penguins")
    (expected,) = model.predict([["Biscoe", 4200.5, "MALE"]])
    outputs = {output.name: output.as_numpy() for output in answer.outputs}
    assert outputs["probabilities"].ravel().tolist() == list(expected["probabilities"].values())


def test_faults(ask):
    """A wrong shape is reported in the error"""
    with pytest.raises(Exception, match=r"expected shape \[-1, 2, 2\], found \[1, 3\]"):
        ask("infer", image_request([1, 2, 3], [1, 3], False), model_name="image")


def test_first_version(ask, server):
    """Version 1 of the protocol: live, ready, predictions and errors"""
    assert ask("is_server_live", protocol="v1")
    assert ask("is_model_ready", "penguins", protocol="v1")
    row = {"island": "Biscoe", "mass": 4200.5, "sex": "MALE"}
    answer = ask("infer", {"instances": [row]}, model_name="penguins", protocol="v1")
    _, model = server.store.load("penguins")
    (expected,) = model.predict([row])
    probabilities = list(expected["probabilities"].values())
    assert answer == {"predictions": [{"label": expected["label"], "probabilities": probabilities}]}
    with pytest.raises(Exception, match="did you mean 'Biscoe'"):
        ask("infer", {"instances": [row | {"island": "Bisco"}]}, model_name="penguins", protocol="v1")


def test_explain(ask):
    """Version 1 of the protocol: explanations"""
    row = {"island": "Biscoe", "mass": 4200.5, "sex": "MALE"}
    (found,) = ask("explain", "penguins", {"instances": [row]}, protocol="v1")["explanations"]
    total = sum(found["contributions"].values())
    assert total == pytest.approx(found["answer"] - found["baseline"], rel=1e-3)
