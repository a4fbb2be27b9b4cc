"""Calls that are refused, by a server in this process: with the text of HTTP and the code of gRPC."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model_store.errors import InputError
from service.config import Settings
from service.grpc import calls, codec, status, turns
from service.http.exceptions import error_at
from tests.service.grpc.conftest import grpc, message_class, over_http, penguin_request, request

Code = grpc.StatusCode


def wrong_contents(datatype: str, shape: list[int], **contents: Any) -> Any:
    asked = message_class("ModelInferRequest")(model_name="image")
    tensor = asked.inputs.add(name="pixels", shape=shape, datatype=datatype)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return asked


def with_both_contents() -> Any:
    asked = request("image", pixels=np.zeros((1, 4)))
    asked.inputs[0].contents.fp64_contents.append(1.0)
    return asked


def with_extra_raw() -> Any:
    asked = request("image", pixels=np.zeros((1, 4)))
    asked.raw_input_contents.append(b"")
    return asked


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (request("imag", pixels=[[1.0]]), Code.NOT_FOUND, "did you mean 'image'?"),
        (request("image", "9", pixels=[[1.0]]), Code.NOT_FOUND, "there is no version '9'"),
        (request("", pixels=[[1.0]]), Code.INVALID_ARGUMENT, "expected the name of one of 3 models"),
        (request("image", pixels=np.zeros((1, 3))), Code.INVALID_ARGUMENT, "expected shape [-1, 2, 2], found [1, 3]"),
        (request("image", pixel=np.zeros((1, 4))), Code.INVALID_ARGUMENT, "did you mean 'pixels'?"),
        (request("image"), Code.INVALID_ARGUMENT, "expected a list of tensors"),
        (
            request("image", pixels=np.zeros((20_000, 4), np.int8)),
            Code.RESOURCE_EXHAUSTED,
            "expected at most 10000 rows",
        ),
        (
            wrong_contents("FP32", [1, 4], fp64_contents=[1.0]),
            Code.INVALID_ARGUMENT,
            "expected only fp32_contents for FP32",
        ),
        (wrong_contents("FP16", [1, 4]), Code.INVALID_ARGUMENT, "expected FP16 in raw_input_contents"),
        (wrong_contents("FP61", [1, 4]), Code.INVALID_ARGUMENT, "expected one of BOOL"),
        (wrong_contents("INT8", [1, 4], int_contents=[300] * 4), Code.INVALID_ARGUMENT, "found a value out of range"),
        (wrong_contents("BYTES", [1, 1], bytes_contents=[b"\xff"]), Code.INVALID_ARGUMENT, "expected UTF-8"),
        (wrong_contents("FP32", [-1, 4], fp32_contents=[1.0]), Code.INVALID_ARGUMENT, "whole numbers above 0"),
        (
            wrong_contents("BOOL", [1, 2**23 // 8], bool_contents=[True] * 2**20),
            Code.RESOURCE_EXHAUSTED,
            "or raw_input_contents",
        ),
        (with_both_contents(), Code.INVALID_ARGUMENT, "expected no contents beside raw_input_contents"),
        (with_extra_raw(), Code.INVALID_ARGUMENT, "expected 1, one for each input; found 2"),
        (b"\xff\xff", Code.INVALID_ARGUMENT, "expected the message ModelInferRequest, found other bytes"),
        (b"\x2a\x00" * 400_000, Code.RESOURCE_EXHAUSTED, "expected at most 262144 fields, found more"),
        (b"\x0b\x0c" + b"\x2a\x00" * 400_000, Code.INVALID_ARGUMENT, "expected the message ModelInferRequest, found"),
        (b"\x2a" + b"\x80\x80\x40" + b"\x22\x00" * 2**19, Code.RESOURCE_EXHAUSTED, "expected at most 262144 fields"),
        (bytes(9 * 2**20), Code.RESOURCE_EXHAUSTED, "larger than max"),
    ],
)
def test_a_wrong_request_is_refused_with_what_is_wrong(both, asked, code, text):
    error = both[1].error("ModelInfer", asked)
    assert (error.code(), text in error.details()) == (code, True), error.details()


def test_the_text_of_an_error_is_that_of_http(both):
    client, ours = both
    values = {"island": [["Bisco"]], "mass": [[4200.5]], "sex": [["MALE"]]}
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES" if name != "mass" else "FP64", "data": data[0]}
        for name, data in values.items()
    ]
    expected = over_http(client, "penguins", inputs, []).json["error"]
    error = ours.error("ModelInfer", penguin_request(island=[["Bisco"]]))
    assert expected.startswith(error.details())
    assert "did you mean 'Biscoe'?" in error.details()


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_message_is_refused_before_it_is_decompressed(both, method, compression):
    """A message of 2^26 zeros is 64 KiB as gzip; decompressed, it would exceed the limit of messages."""
    error = both[1].error(method, bytes(2**26), compression=compression)
    assert (error.code(), "is disabled" in error.details()) == (Code.UNIMPLEMENTED, True), error.details()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"\x2a\x00" * 102, "inputs: expected up to 1 tensors, found 102"),
        (b"\x2a\x00" * 262_000, "inputs: expected up to 1 tensors, found 262000"),
        (b"\x2a\x02\x2a\x00" * 130_000, "inputs: expected up to 1 tensors, found 130000"),
        (b"\x2a\x00" * 130_000 + b"\x3a\x00" * 130_000, "inputs: expected up to 1 tensors, found 130000"),
        (b"\x32\x00" * 262_000, "outputs: expected up to 2 tensors, found 262000"),
    ],
    ids=["few", "empty inputs", "empty contents", "raw contents", "outputs"],
)
def test_too_many_tensors_are_refused_before_objects_are_made_of_them(both, monkeypatch, message, text):
    monkeypatch.setattr(codec, "_typed_values", None)
    monkeypatch.setattr(codec, "_check_all_raw", None)
    error = both[1].error("ModelInfer", request("image").SerializeToString() + message)
    assert (error.code(), text in error.details()) == (Code.INVALID_ARGUMENT, True), error.details()


def test_a_shape_of_millions_of_dimensions_does_not_become_a_list():
    """The list would take 32 MB, and what the codec of HTTP does with it 200 MB."""
    model = SimpleNamespace(model=SimpleNamespace(signature=SimpleNamespace(inputs=("pixels",))))
    asked = message_class("ModelInferRequest")()
    asked.inputs.add(name="pixels", datatype="FP32").shape.extend([300] * 2**20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec.tensors, "output_specs", lambda _: ("probabilities",))
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=r"expected at most 8 dimensions, found 1048576"):
                codec.to_document(asked, model, 2**23)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
def test_only_tensors_may_be_large(both, method):
    """Any client may send a health check: 8 MB of fields that nobody knows took 0.15 s to count."""
    error = both[1].error(method, b"\x7a\x00" * 2**15 + b"\x7a\x00")
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert "expected at most 65536 bytes, found 65538" in error.details()


def test_a_large_health_check_is_refused_unparsed(both):
    check = both[1].channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=20) == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as caught:
        check(b"\x7a\x00" * 2**16, timeout=20)
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED


def test_a_bug_is_an_internal_error_that_tells_nothing(both, monkeypatch, caplog):
    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(calls, "to_document", crash)
    error = both[1].error("ModelInfer", penguin_request())
    assert (error.code(), "secret" in error.details()) == (Code.INTERNAL, False)
    assert "secret" in caplog.text


def test_too_many_calls_are_shed(both, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(turns, "MAX_WAITING", 0)
        error = both[1].error("ModelInfer", penguin_request())
    assert (error.code(), dict(error.trailing_metadata())["retry-after"]) == (Code.UNAVAILABLE, "1")
    assert both[1].call("ServerReady").ready


def test_messages_beyond_the_limit_of_input_are_shed(both, monkeypatch):
    monkeypatch.setattr(Settings, "input_limit", 10)
    assert both[1].error("ModelInfer", penguin_request()).code() is Code.UNAVAILABLE


def test_large_responses_are_shed_while_clients_do_not_read(both, monkeypatch):
    monkeypatch.setattr(calls, "MAX_OUTPUT_BYTES", 10)
    pixels = np.zeros((10_000, 4), np.int8)
    assert both[1].error("ModelInfer", request("image", pixels=pixels)).code() is Code.UNAVAILABLE
    assert both[1].call("ModelInfer", request("image", pixels=pixels[:10])).model_version == "1"


def test_a_call_whose_deadline_is_over_is_not_answered(both, monkeypatch):
    async def wait(*_: Any) -> None:
        await asyncio.sleep(20)

    monkeypatch.setattr(calls.GrpcService, "_wait_for_turn", wait)
    started = time.monotonic()
    assert both[1].error("ModelInfer", penguin_request(), timeout=0.3).code() is Code.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 20
    until_idle(both[0])


def until_idle(client: Any) -> None:
    """Wait until no request is in progress but the scrape."""
    deadline = time.monotonic() + 20
    while "forward_pass_requests_in_progress 1" not in client.get("/metrics").get_data(as_text=True):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_details_are_cut_to_what_metadata_may_hold():
    for text in ("é" * 10_000, "x" * 10_000, "100 %\n" * 1000):
        error = error_at(422, "invalid_request", "rows", text, "")
        shown = status.details(error)
        assert len(shown.encode()) <= status.MAX_DETAILS_BYTES
        assert "\n" not in shown
