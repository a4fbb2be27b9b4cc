"""X-Model-Version-At-Least: a client gets no version older than one that it has seen on another replica."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from model_store.registry.store import Store
from service.http.model_version import AT_LEAST_HEADER, MODEL_VERSION_HEADER
from service.registry import on_demand
from service.registry.registry import ModelRegistry
from tests.service.conftest import MakeClient, assert_error, move, price, text_error

ROWS = {"instances": [[3, 80]]}
TENSORS = {"inputs": [{"name": "instances", "shape": [1, 2], "datatype": "FP64", "data": [3, 80]}]}
PROTOCOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/models/price/predict", {"json": ROWS}),
    "native, the model in the body": ("/predict", {"json": {"model": "price", **ROWS}}),
    "native, an alias": ("/models/price/versions/latest/predict", {"json": ROWS}),
    "native, an alias in the body": ("/models/price/predict", {"json": {"version": "latest", **ROWS}}),
    "CSV": ("/models/price/predict", {"data": "rooms,area\n3,80\n", "content_type": "text/csv"}),
    "SageMaker": ("/invocations", {"json": {"model": "price", **ROWS}}),
    "TensorFlow Serving": ("/v1/models/price:predict", {"json": ROWS}),
    "TensorFlow Serving, a label": ("/v1/models/price/labels/latest:predict", {"json": ROWS}),
    "Open Inference": ("/v2/models/price/infer", {"json": TENSORS}),
}


@pytest.fixture
def replica(store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A service that has version 1 of `price`, and no regular sync during a test; a request may sync at once."""
    monkeypatch.setattr(on_demand, "EARLY_SYNC_SECONDS", 0.0)
    client = make_client(store, poll_seconds=3600)
    assert client.get("/models/price").json["version"] == 1
    return client


def ask(client: FlaskClient, path: str, sent: dict[str, Any], at_least: object = None) -> Any:
    headers = {} if at_least is None else {AT_LEAST_HEADER: str(at_least)}
    return client.post(path, headers=headers, **sent)


@pytest.mark.parametrize(("path", "sent"), PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_replica_reads_the_store_before_it_gives_an_older_version(
    replica: FlaskClient, store: Store, path: str, sent: dict[str, Any]
) -> None:
    store.publish("price", price(1))
    assert ask(replica, path, sent).headers[MODEL_VERSION_HEADER] == "1"
    assert ask(replica, path, sent, 1).headers[MODEL_VERSION_HEADER] == "1"
    newer = ask(replica, path, sent, 2)
    assert (newer.status_code, newer.headers[MODEL_VERSION_HEADER]) == (200, "2")
    assert ask(replica, path, sent).headers[MODEL_VERSION_HEADER] == "2"


@pytest.mark.parametrize(("path", "sent"), PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_request_for_a_version_that_is_not_there_yet_is_503(
    replica: FlaskClient, path: str, sent: dict[str, Any]
) -> None:
    response = ask(replica, path, sent, 2)
    problem = "expected version 2 or newer of price, found 1"
    if path.startswith(("/v1", "/v2")):
        assert problem in text_error(response, 503)
    else:
        error = assert_error(response, 503, "older_version")
        fix = "try again: this replica has not yet found a newer version"
        assert error["faults"] == [{"location": AT_LEAST_HEADER, "problem": problem, "fix": fix}]
    assert int(response.headers["Retry-After"]) >= 1  # more after a slow sync: see registry/test_on_demand.py
    assert MODEL_VERSION_HEADER not in response.headers


@pytest.mark.parametrize(("path", "sent"), PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("value", ["", "0", "-1", "1.0", "2, 2", "two", "٢", "1000000000", " "])
def test_a_value_that_is_no_version_is_400(client: FlaskClient, path: str, sent: dict[str, Any], value: str) -> None:
    response = ask(client, path, sent, value)
    if path.startswith(("/v1", "/v2")):
        assert f"{AT_LEAST_HEADER}: expected the number of a version" in text_error(response)
    else:
        assert assert_error(response, 400, "bad_request")["faults"][0]["location"] == AT_LEAST_HEADER


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/models/price/versions/1/predict", {"json": ROWS}),
        ("/models/price/predict", {"json": {"version": 1, **ROWS}}),
        ("/v1/models/price/versions/1:predict", {"json": ROWS}),
        ("/v2/models/price/versions/1/infer", {"json": TENSORS}),
    ],
)
def test_a_version_by_number_is_served_however_old_it_is(replica: FlaskClient, path: str, sent: dict[str, Any]) -> None:
    assert ask(replica, path, sent, 2).headers[MODEL_VERSION_HEADER] == "1"


def test_a_default_that_was_set_back_is_reported_as_such(replica: FlaskClient, store: Store) -> None:
    store.publish("price", price(1))
    move(store, "price", "default", 1)
    error = assert_error(ask(replica, "/models/price/predict", {"json": ROWS}, 2), 503, "older_version")
    assert error["faults"][0]["fix"] == "send a smaller number if an older version was chosen on purpose, or try again"


def test_requests_cannot_make_the_service_sync_more_often_than_the_limit(
    replica: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry: ModelRegistry = replica.application.extensions["registry"]
    syncs: list[int] = []
    monkeypatch.setattr(registry._early_sync, "_refresh", lambda: syncs.append(1))
    monkeypatch.setattr(on_demand, "EARLY_SYNC_SECONDS", 3600.0)
    registry._barrier._clock = lambda: 7200 * 10**9
    for _ in range(20):
        assert_error(ask(replica, "/models/price/predict", {"json": ROWS}, 2), 503, "older_version")
    assert len(syncs) == 1


def test_a_service_that_never_reads_the_store_by_itself_does_not_for_a_request_either(
    store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "EARLY_SYNC_SECONDS", 0.0)
    client = make_client(store, poll_seconds=0)
    store.publish("price", price(1))
    assert_error(ask(client, "/models/price/predict", {"json": ROWS}, 2), 503, "older_version")
