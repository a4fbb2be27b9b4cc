"""An error response repeats little of what was sent, however long it is."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

LONG = "x\u202e" * 50_000
BODIES = [
    {"model": LONG, "instances": [[1, 2]]},
    {"model": "price", "version": LONG, "instances": [[1, 2]]},
    {LONG: 1, "instances": [[1, 2]]},
    {"instances": [{LONG: 1}]},
    {"instances": [{"rooms": LONG, "area": 1}]},
    {"instances": LONG},
    {"inputs": [{"name": LONG, "shape": [1], "datatype": "FP32", "data": [1]}]},
    {"inputs": [{"name": "rooms", "shape": [1], "datatype": LONG, "data": [1]}]},
    {"inputs": [], "outputs": [{"name": LONG}, {"name": LONG}]},
    {"parameters": {f"file:{LONG}": 1}},
    {"signature_name": LONG, "instances": [[1, 2]]},
]
PATHS = ["/predict", "/models/price/predict", "/v1/models/price:predict", "/v2/models/price/infer", "/invocations"]


@pytest.mark.parametrize("path", [*PATHS, "/v2/repository/models/price/load", "/v2/repository/index"])
def test_an_error_repeats_little_of_the_request(make_client, store, path: str) -> None:
    client: FlaskClient = make_client(store, admin=True)
    for body in BODIES:
        assert len(client.post(path, json=body).data) < 5000, list(body)
    for name in ("Content-Type", "Content-Encoding", "Accept", "Inference-Header-Content-Length", "Host"):
        assert len(client.post(path, data=b"{}", headers={name: "y" * 7000}).data) < 3000, name
