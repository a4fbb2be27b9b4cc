"""Every kind of invalid request gets an error in the format of its protocol."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from tests.service.conftest import assert_error

OWN, PLAIN = "own", "plain"
# A predict endpoint, a similar path that does not exist, and the error format of both.
ENDPOINTS = {
    "native": ("/models/price/predict", "/models/price/predicts", OWN),
    "native, by version": ("/models/price/versions/1/predict", "/models/price/versions/1/predicts", OWN),
    "named in the body": ("/predict", "/predicts", OWN),
    "platforms": ("/invocations", "/invocation", OWN),
    "tensorflow serving": ("/v1/models/price:predict", "/v1/models/price:classify", PLAIN),
    "tensorflow serving, by version": ("/v1/models/price/versions/1:predict", "/v1/model", PLAIN),
    "tensorflow serving, by label": ("/v1/models/price/labels/default:predict", "/v1/", PLAIN),
    "open inference": ("/v2/models/price/infer", "/v2/models/price/generate", PLAIN),
    "open inference, by version": ("/v2/models/price/versions/1/infer", "/v2/systemsharedmemory/status", PLAIN),
    "repository": ("/v2/repository/models/price/load", "/v2/repository", PLAIN),
}
# What is sent, the status, and the native error code. `None`: the unknown path, or the wrong method.
FAULTS: dict[str, tuple[dict[str, Any] | None, int, str]] = {
    "unknown endpoint": (None, 404, "not_found"),
    "another method": (None, 405, "method_not_allowed"),
    "broken": ({"data": '{"instances": [[3, 80]'}, 400, "bad_json"),
    "not a number of JSON": ({"data": '{"instances": [[NaN, 80]]}'}, 400, "bad_json"),
    "not UTF-8": ({"data": b'{"instances": "\xff"}'}, 400, "bad_json"),
    "cut short": ({"data": b"{}", "environ_overrides": {"CONTENT_LENGTH": "9"}}, 400, "broken_body"),
    "not inflated": ({"data": b"{}", "headers": {"Content-Encoding": "gzip"}}, 400, "broken_body"),
    "too large": ({"data": b" " * 5000}, 413, "body_too_large"),
    "too large inside": (
        {"data": gzip.compress(b" " * 5000), "headers": {"Content-Encoding": "gzip"}},
        413,
        "body_too_large",
    ),
    "of another type": ({"data": "<a/>", "content_type": "application/xml"}, 415, "unsupported_media_type"),
    "in another coding": ({"data": b"{}", "headers": {"Content-Encoding": "br"}}, 415, "unsupported_media_type"),
    "not an object": ({"data": "[3]"}, 422, "invalid_request"),
    "no model": ({"json": {"model": "prise", "instances": [[3, 80]], "inputs": 3}}, 422, ""),
}


# Bodies of the repository API are options: they may have any type, and name no model.
CASES = [
    (protocol, fault)
    for protocol in ENDPOINTS
    for fault in FAULTS
    if protocol != "repository" or fault not in {"of another type", "no model"}
]


@pytest.mark.parametrize(("protocol", "fault"), CASES)
def test_every_protocol_reports_every_error_in_its_own_format(store, make_client, protocol, fault):
    client = make_client(store, max_body_bytes=4000, admin=True)
    (url, nowhere, shape), (words, status, code) = ENDPOINTS[protocol], FAULTS[fault]
    if fault == "no model" and url in {"/predict", "/invocations"}:
        status, code = 404, "unknown_model"
    if words is None:
        response = client.post(nowhere, json={}) if status == 404 else client.get(url)
    else:
        response = client.post(url, **words)
    if shape == OWN:
        error = assert_error(response, status, code or "invalid_request")
        assert "curl -s http://" in error["example"]["curl"]
    else:
        assert response.status_code == (400 if status == 422 else status), response.data
        assert response.headers["Content-Type"] == "application/json"
        assert response.json.keys() == {"error"}
        assert "This works: curl -s http://" in response.json["error"]
    assert ("Allow" in response.headers) == (status == 405)
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("path", ["/models/prise", "/v1/models/prise", "/v1/models/prise/metadata", "/v2/models/prise"])
def test_unknown_models_are_reported_in_the_protocols_format(client, path):
    response = client.get(path)
    assert response.status_code == 404
    error = response.json["error"]
    assert "did you mean 'price'?" in (error if path.startswith("/v") else error["message"])
