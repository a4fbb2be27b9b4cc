"""Calls of a server in this process: the answers and errors are those of HTTP."""

from __future__ import annotations

import base64
import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_store.artifact.answers import Answers
from model_store.artifact.conformal import Conformal
from model_store.registry.store import open_store
from tests.service.conftest import PENGUIN, image, move, penguins, price
from tests.service.grpc.conftest import grpc, message_class, over_http, penguin_request, request
from tests.service.routes.test_explain import with_baseline

Code = grpc.StatusCode


def test_raw_outputs_are_the_bytes_that_http_sends(both):
    client, ours = both
    pixels = np.random.default_rng(0).uniform(0, 16, (20, 2, 2)).astype(np.float32)
    data = {"name": "pixels", "shape": [20, 2, 2], "datatype": "FP32", "data": pixels.ravel().tolist()}
    answer = over_http(client, "image", [data], ["ink", "slant"])
    length = int(answer.headers["Inference-Header-Content-Length"])
    found = ours.call("ModelInfer", request("image", pixels=pixels))
    assert b"".join(found.raw_output_contents) == answer.data[length:]
    assert [(each.name, each.datatype, [*each.shape]) for each in found.outputs] == [
        ("ink", "FP64", [20, 1]),
        ("slant", "FP64", [20, 1]),
    ]


def test_typed_contents_are_answered_with_typed_contents(both):
    client, ours = both
    asked = message_class("ModelInferRequest")(model_name="penguins", id="a-1")
    for name, value in PENGUIN.items():
        if value is None:
            continue
        kind, field, value = (
            ("BYTES", "bytes_contents", value.encode()) if isinstance(value, str) else ("FP64", "fp64_contents", value)
        )
        getattr(asked.inputs.add(name=name, shape=[1, 1], datatype=kind).contents, field).append(value)
    found = ours.call("ModelInfer", asked)
    (expected,) = client.post("/models/penguins/predict", json={"instances": [PENGUIN]}).json["predictions"]
    label, probabilities = found.outputs
    assert [text.decode() for text in label.contents.bytes_contents] == [expected["label"]]
    assert probabilities.contents.fp32_contents == pytest.approx([*expected["probabilities"].values()], abs=0)
    assert (found.model_name, found.model_version, found.id, len(found.raw_output_contents)) == (
        "penguins",
        "1",
        "a-1",
        0,
    )
    assert found.parameters["warnings"].string_param.startswith("rows.0.sex: ")


@pytest.mark.parametrize(
    ("datatype", "field"),
    [
        ("INT8", "int_contents"),
        ("UINT16", "uint_contents"),
        ("INT64", "int64_contents"),
        ("UINT64", "uint64_contents"),
        ("FP32", "fp32_contents"),
        ("FP64", "fp64_contents"),
        ("BOOL", "bool_contents"),
    ],
)
def test_every_datatype_has_its_field(both, datatype, field):
    asked = message_class("ModelInferRequest")(model_name="image")
    getattr(asked.inputs.add(name="pixels", shape=[1, 4], datatype=datatype).contents, field).extend([1, 0, 1, 1])
    expected = both[1].call("ModelInfer", request("image", pixels=np.array([[1.0, 0, 1, 1]])))
    (ink, _) = both[1].call("ModelInfer", asked).outputs
    assert ink.contents.fp64_contents == np.frombuffer(expected.raw_output_contents[0]).tolist()


def test_requested_outputs_come_in_their_order(both):
    asked = penguin_request()
    asked.outputs.add(name="probabilities")
    asked.outputs.add(name="label")
    found = both[1].call("ModelInfer", asked)
    assert [each.name for each in found.outputs] == ["probabilities", "label"]


@pytest.mark.parametrize("raw", [True, False])
def test_explanations_are_the_tensors_of_http(store, make, raw):
    store.publish("penguins", with_baseline(penguins()))
    client, ours = make()
    asked = penguin_request()
    if not raw:
        for tensor, data in zip(asked.inputs, asked.raw_input_contents, strict=True):
            if tensor.datatype == "BYTES":
                tensor.contents.bytes_contents.append(data[4:])
            else:
                tensor.contents.fp64_contents.extend(np.frombuffer(data))
        del asked.raw_input_contents[:]
    asked.parameters["explain"].bool_param = True
    asked.parameters["explain_label"].string_param = "Adelie"
    found = ours.call("ModelInfer", asked)
    body = {
        "parameters": {"explain": True, "explain_label": "Adelie"},
        "inputs": [
            {"name": name, "datatype": kind, "shape": [1, 1], "data": [value]}
            for name, kind, value in (
                ("island", "BYTES", "Biscoe"), ("mass", "FP64", 4200.5), ("sex", "BYTES", "MALE")
            )
        ],
    }  # fmt: skip
    expected = client.post("/v2/models/penguins/infer", json=body).json["outputs"]
    assert [(each.name, each.datatype, [*each.shape]) for each in found.outputs] == [
        (each["name"], each["datatype"], each["shape"]) for each in expected
    ]
    contributions = next(i for i, each in enumerate(expected) if each["name"] == "contributions.mass")
    if raw:
        values = np.frombuffer(found.raw_output_contents[contributions]).tolist()
        assert found.raw_output_contents[-1][4:] == b"Adelie"
    else:
        values = [*found.outputs[contributions].contents.fp64_contents]
        assert [*found.outputs[-1].contents.bytes_contents] == [b"Adelie"]
    assert values == expected[contributions]["data"]


def test_faults_of_what_to_explain_are_those_of_http(store, make):
    asked = penguin_request()
    for wrong, words in (
        ({"explain": ("string_param", "yes")}, "parameters.explain: expected true or false, found"),
        ({"explain": ("bool_param", True)}, "parameters.explain: expected a model with a baseline"),
        (
            {"explain": ("bool_param", True), "explain_label": ("string_param", "x")},
            "parameters.explain_label: expected one of",
        ),
    ):
        asked.parameters.clear()
        for name, (field, value) in wrong.items():
            setattr(asked.parameters[name], field, value)
        error = make()[1].error("ModelInfer", asked)
        assert error.code() is Code.INVALID_ARGUMENT
        assert words in error.details()
    store.publish("penguins", with_baseline(penguins()))
    asked = penguin_request(island=[["Biscoe"]] * 2, mass=[[4200.5]] * 2, sex=[["MALE"]] * 2)
    asked.parameters["explain"].bool_param = True
    error = make(max_explained_rows=1)[1].error("ModelInfer", asked)
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert "expected at most 1 row to explain" in error.details()


def test_metadata_of_the_server_and_of_a_model(both):
    client, ours = both
    server = ours.call("ServerMetadata")
    assert (server.name, server.version) == tuple(client.get("/v2").json[key] for key in ("name", "version"))
    found = ours.call("ModelMetadata", message_class("ModelMetadataRequest")(name="penguins"))
    expected = client.get("/v2/models/penguins").json
    assert (found.name, [*found.versions], found.platform) == tuple(
        expected[key] for key in ("name", "versions", "platform")
    )
    for ours_, theirs in ((found.inputs, expected["inputs"]), (found.outputs, expected["outputs"])):
        assert [{"name": t.name, "datatype": t.datatype, "shape": [*t.shape]} for t in ours_] == theirs


def test_a_model_is_ready_if_it_can_predict(both):
    def ready(name: str, version: str = "") -> bool:
        asked = message_class("ModelReadyRequest")(name=name, version=version)
        return bool(both[1].call("ModelReady", asked).ready)

    assert ready("price")
    assert ready("price", "1")
    assert not ready("price", "7")
    assert not ready("nothing")
    assert both[1].call("ServerLive").live
    assert both[1].call("ServerReady").ready


def test_the_health_service_tells_whether_the_service_is_ready(both, store, tmp_path, make_client, serve_grpc):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    kind = health_pb2.HealthCheckResponse
    stub = health_pb2_grpc.HealthStub(both[1].channel)
    for service in ("", "inference.GRPCInferenceService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status == kind.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=20)
    assert caught.value.code() is Code.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watch).status == kind.SERVING
    watch.cancel()
    empty = open_store(tmp_path / "empty")
    empty.root.mkdir()
    app = make_client(empty).application
    none = serve_grpc(app)
    asked = health_pb2.HealthCheckRequest()
    answer = health_pb2_grpc.HealthStub(none.channel).Check(asked, timeout=20, wait_for_ready=True)
    assert answer.status == kind.NOT_SERVING
    assert none.error("ModelInfer", penguin_request()).code() is Code.UNAVAILABLE


def test_repository_calls_load_and_unload_models(make):
    _, ours = make(admin=True, admin_port=1)

    def repository(name: str, **fields: Any) -> Any:
        return message_class(f"{name}Request")(**fields)

    ours.call("RepositoryModelUnload", repository("RepositoryModelUnload", model_name="image"))
    states = {each.name: each.state for each in ours.call("RepositoryIndex").models}
    assert states == {"image": "UNAVAILABLE", "penguins": "READY", "price": "READY"}
    ready = ours.call("RepositoryIndex", repository("RepositoryIndex", ready=True)).models
    assert {each.name for each in ready} == {"penguins", "price"}
    error = ours.error("ModelInfer", request("image", pixels=np.zeros((1, 4))))
    assert error.code() is Code.UNAVAILABLE
    trailers = dict(error.trailing_metadata())
    assert (trailers["retry-after"], trailers["grpc-retry-pushback-ms"]) == ("5", "5000")
    ours.call("RepositoryModelLoad", repository("RepositoryModelLoad", model_name="image"))
    assert ours.call("ModelInfer", request("image", pixels=np.zeros((1, 4)))).model_version == "1"
    files = repository("RepositoryModelLoad", model_name="image")
    files.parameters["file:1/model"].bytes_param = b"bytes"
    assert "expected no file" in ours.error("RepositoryModelLoad", files).details()


def test_a_listener_without_the_repository_says_which_has_it(both):
    error = both[1].error("RepositoryIndex")
    assert (error.code(), "SERVE_GRPC_ADMIN_PORT" in error.details()) == (Code.UNIMPLEMENTED, True)


def test_a_version_that_is_not_in_memory_is_loaded(both, store):
    client, ours = both
    store.publish("price", price(1))
    store.publish("price", price(2))
    client.application.extensions["registry"].refresh()
    move(store, "price", "champion", 2)
    client.application.extensions["registry"].refresh()
    for version, number in (("", "3"), ("1", "1"), ("champion", "2"), ("latest", "3")):
        asked = request("price", version, rooms=[3.0], area=[80.0])
        found, trailers = ours.with_metadata("ModelInfer", asked)
        assert (found.model_version, trailers["x-model-version"]) == (number, number)


def test_a_call_can_require_a_newer_version(both):
    asked = request("price", rooms=[3.0], area=[80.0])
    error = both[1].error("ModelInfer", asked, metadata=[("x-model-version-at-least", "2")])
    assert (error.code(), "expected version 2 or newer" in error.details()) == (Code.UNAVAILABLE, True)
    wrong = both[1].error("ModelInfer", asked, metadata=[("x-model-version-at-least", "two")])
    assert wrong.code() is Code.INVALID_ARGUMENT


def test_a_call_is_counted_logged_and_traced_as_a_request_is(both, caplog):
    client, ours = both
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    metadata = [("x-request-id", "mine"), ("traceparent", trace)]
    with caplog.at_level(logging.INFO, "service.access"):
        _, trailers = ours.with_metadata("ModelInfer", penguin_request(), metadata=metadata)
        ours.error("ModelInfer", request("pengins"))
        ours.call("ServerLive")
    path = "/inference.GRPCInferenceService/ModelInfer"
    lines = [each.getMessage() for each in caplog.records if each.name == "service.access"]
    assert re.fullmatch(rf"POST {path} 200 [\d.]+ms penguins/1 rows=1 id=mine from=127.0.0.1", lines[0])
    assert f"{path} 404" in lines[1]
    assert len(lines) == 2
    assert trailers["x-request-id"] == "mine"
    assert trailers["traceparent"].split("-")[1] == "a" * 32
    assert "compute;dur=" in trailers["server-timing"]
    text = client.get("/metrics").get_data(as_text=True)
    assert f'forward_pass_requests_total{{model="penguins",route="{path}",status="200",version="1"}} 1' in text
    assert 'forward_pass_errors_total{code="unknown_model",model="",version=""} 1' in text
    assert 'forward_pass_rows_total{model="penguins",version="1"} 1' in text
    assert "forward_pass_requests_in_progress 1" in text  # the scrape itself


def test_arrays_of_many_rows_are_those_of_the_model(both, store):
    pixels = np.random.default_rng(1).uniform(0, 16, (300, 4)).astype(np.float32)
    found = both[1].call("ModelInfer", request("image", pixels=pixels))
    expected = image().predict(pixels.reshape(-1, 2, 2).tolist())
    assert np.frombuffer(found.raw_output_contents[0]).tolist() == [row["ink"] for row in expected]


@pytest.mark.parametrize("raw", [True, False])
def test_files_of_images_are_rows(tmp_path, make_client, serve_grpc, raw):
    pytest.importorskip("PIL", reason="the extra images is installed by make test")
    from tests.image_files import image_file, noise
    from tests.service.protocols.test_image_files import photo

    store = open_store(tmp_path / "photos")
    store.publish("photo", photo())
    client = make_client(store)
    files = [image_file(noise(40, 60, 3)), image_file(noise(30, 20, 3), "JPEG")]
    asked = message_class("ModelInferRequest")(model_name="photo")
    tensor = asked.inputs.add(name="image", shape=[2, 1], datatype="BYTES")
    if raw:
        asked.raw_input_contents.append(b"".join(len(data).to_bytes(4, "little") + data for data in files))
    else:
        tensor.contents.bytes_contents.extend(files)
    found = serve_grpc(client.application).call("ModelInfer", asked)
    rows = [{"b64": base64.b64encode(data).decode()} for data in files]
    expected = client.post("/models/photo/predict", json={"instances": rows}).json["predictions"]
    probabilities = np.array([[*row["probabilities"].values()] for row in expected], np.float32)
    if raw:
        assert found.raw_output_contents[1] == probabilities.tobytes()
    else:
        assert found.outputs[1].contents.fp32_contents == probabilities.ravel().tolist()


def test_parameters_ask_for_an_interval(make_client, store, serve_grpc):
    scores = np.linspace(0.1, 0.9, 9, dtype=np.float32)[None]
    store.publish("price", replace(price(), answers=Answers(conformal=Conformal("absolute", scores))))
    client = serve_grpc(make_client(store).application)
    asked = request("price", "latest", rooms=np.array([[3.0]]), area=np.array([[80.0]]))
    asked.parameters["interval"].double_param = 0.9
    found = client.call("ModelInfer", asked)
    assert [(each.name, [*each.shape]) for each in found.outputs] == [("price", [1, 1]), ("interval.price", [1, 2])]
    (value,), (low, high) = map(np.frombuffer, found.raw_output_contents)
    assert [low, high] == pytest.approx([value - 0.9, value + 0.9], rel=1e-6)
    asked.parameters["interval"].double_param = 0.99
    error = client.error("ModelInfer", asked)
    assert error.code() == Code.INVALID_ARGUMENT
    assert "parameters.interval: expected a level that 9 calibration rows can promise" in error.details()
