"""The fast path: its responses equal Flask's, however many requests share a forward pass."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from gunicorn.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential
from model_store.registry.store import Store
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature
from service.security.api_keys import generate_key
from service.server import fast_path as module
from service.server.fast_path import FastPath, ParsedPredict
from service.server.request_reader import HeadCache
from service.telemetry.request_record import clock
from tests.service.conftest import MakeClient, price
from tests.service.routes.test_api import figures

CFG = Config()
CFG.set("http_parser", "python")
PRICES = [[1, 20.5], [2, 70], [3, 100]]


def head(path: str = "/models/price/predict", *lines: str, method: str = "POST", version: str = "1.1") -> Any:
    text = "\r\n".join([f"{method} {path} HTTP/{version}", "Host: here", *lines, "", ""]).encode()
    return HeadCache(CFG).parse(text, ("127.0.0.1", 1), 1)


def body(*instances: Any, **more: Any) -> bytes:
    return json.dumps({"instances": list(instances), **more}).encode()


@pytest.fixture
def fast_path(client: FlaskClient) -> FastPath:
    return fast_path_of(client)


def fast_path_of(client: FlaskClient) -> FastPath:
    made: FastPath = client.application.extensions["fast_path"]()
    return made


def take(fast_path: FastPath, data: bytes, path: str = "/models/price/predict", *lines: str) -> ParsedPredict | None:
    return fast_path.try_parse(head(path, *lines), data, "127.0.0.1", clock())


def taken(fast_path: FastPath, data: bytes, path: str = "/models/price/predict", *lines: str) -> ParsedPredict:
    asked = take(fast_path, data, path, *lines)
    assert asked is not None
    return asked


def split(answer: bytes | None) -> tuple[str, dict[str, str], bytes]:
    assert answer is not None
    start, _, content = answer.partition(b"\r\n\r\n")
    status, *lines = start.decode("latin-1").split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), content


CELLS = st.one_of(st.floats(-1e6, 1e6), st.integers(-1000, 1000))
BODIES = st.one_of(
    st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=9).map(lambda rows: ("price", rows)),
    st.lists(st.lists(st.floats(0, 16), min_size=4, max_size=4), min_size=1, max_size=9).map(lambda r: ("image", r)),
    st.lists(
        st.fixed_dictionaries(
            {"island": st.sampled_from(["Biscoe", "Dream"]), "mass": CELLS, "sex": st.sampled_from([None, "MALE"])}
        ),
        min_size=1,
        max_size=9,
    ).map(lambda rows: ("penguins", rows)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES)
def test_responses_equal_flasks_byte_for_byte(client: FlaskClient, asked: tuple[str, list[Any]]) -> None:
    name, rows = asked
    path = f"/models/{name}/predict"
    fast_path = fast_path_of(client)
    (answer,) = fast_path.respond([taken(fast_path, body(*rows), path)])
    by_flask = client.post(path, data=body(*rows))
    status, headers, content = split(answer)
    assert (status, content) == ("HTTP/1.1 200 OK", by_flask.data)
    varying = {"X-Request-Id", "traceparent", "Server-Timing"}
    assert {k: v for k, v in by_flask.headers.items() if k not in varying}.items() <= headers.items()
    assert headers.keys() == {*by_flask.headers.keys(), "Server", "Date", "Connection"}
    assert int(headers["Content-Length"]) == len(content)


def test_every_predict_endpoint_is_accepted(client: FlaskClient, store: Store) -> None:
    store.publish("price", price(1))
    client.application.extensions["registry"].refresh()
    fast_path = fast_path_of(client)
    rows = [[2, 70]]
    for path, data in {
        "/models/price/predict": body(*rows),
        "/models/price/versions/1/predict": body(*rows),
        "/models/price/versions/latest/predict": body(*rows),
        "/predict": body(*rows, model="price"),
        "/predict?": body(*rows, model="price", version=1),
    }.items():
        (answer,) = fast_path.respond([taken(fast_path, data, path)])
        assert split(answer)[2] == client.post(path, data=data).data


def test_responses_of_a_batch_equal_those_of_single_requests(fast_path: FastPath) -> None:
    requests = [[PRICES[0]], PRICES, [PRICES[2], PRICES[1]], [[0, 0]]]
    alone = [split(fast_path.respond([taken(fast_path, body(*rows))])[0])[2] for rows in requests]
    together = fast_path.respond([taken(fast_path, body(*rows)) for rows in requests])
    assert [split(answer)[2] for answer in together] == alone


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_request_without_a_finite_prediction_does_not_affect_its_batch(store: Store, make_client: MakeClient) -> None:
    """A finite row with an infinite prediction: Flask reports it, and the other requests are unaffected."""
    steep = Linear(1, 1, rng=np.random.default_rng(0))
    steep.weights[...] = 2
    store.publish(
        "steep", Model(Sequential([steep]), Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,))))
    )
    fast_path = fast_path_of(make_client(store))
    path = "/models/steep/predict"
    answers = fast_path.respond([taken(fast_path, body([x]), path) for x in (1, 3e38, 2)])
    assert answers[1] is None
    for x, answer in zip((1, 2), (answers[0], answers[2]), strict=True):
        assert split(answer)[2] == split(fast_path.respond([taken(fast_path, body([x]), path)])[0])[2]


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_rows_that_flask_handles_again_are_counted_once(store: Store, make_client: MakeClient) -> None:
    steep = Linear(1, 1, rng=np.random.default_rng(0))
    steep.weights[...] = 2
    signature = Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,)))
    store.publish("steep", Model(Sequential([steep]), signature))
    client = make_client(store)
    fast_path, path = fast_path_of(client), "/models/steep/predict"
    for rows in ([[1], [2]], [[3e38]]), ([[3e38]],):
        batch = [taken(fast_path, body(*each), path) for each in rows]
        fast_path.respond(batch)
        fast_path.record_metrics(batch)
    found = figures(client)
    labels = (("model", "steep"), ("version", "1"))
    assert found["forward_pass_batch_rows_sum", *labels] == 2
    assert found["forward_pass_batch_rows_count", *labels] == 1


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("/models/price", ()),
        ("/models/price/predict/", ()),
        ("/models/price/predict?receipt=true", ()),
        ("/models/pric%65/predict", ()),
        ("/v1/models/price:predict", ()),
        ("/models/price/predict", ("Content-Type: text/csv",)),
        ("/models/price/predict", ("Content-Encoding: gzip",)),
        ("/models/price/predict", ("Connection: close",)),
        ("/models/price/predict", ("X-Request-Id: a", "X-Request-Id: b")),
    ],
)
def test_requests_with_special_paths_or_headers_are_left_to_flask(
    fast_path: FastPath, path: str, lines: tuple[str, ...]
) -> None:
    assert take(fast_path, body(*PRICES), path, *lines) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        body(),
        body([1]),
        body([1, "2"]),
        body([1, 2], other=1),
        body([1, 2], model="image"),
        body([1, 2], model=7),
        body([1, 2], version=9),
        body([1, 2], version=True),
        body([1, 1e39]),
    ],
)
def test_invalid_bodies_are_left_to_flask(client: FlaskClient, data: bytes) -> None:
    assert take(fast_path_of(client), data) is None
    assert client.post("/models/price/predict", data=data).status_code in {400, 404, 422}


def test_get_and_http_1_0_are_left_to_flask(fast_path: FastPath) -> None:
    for odd in (head(method="GET"), head(version="1.0")):
        assert fast_path.try_parse(odd, body(*PRICES), "127.0.0.1", clock()) is None


def test_requests_are_counted_and_traced_as_flask_does(own_client: FlaskClient) -> None:
    fast_path = fast_path_of(own_client)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    asked = taken(fast_path, body(*PRICES), "/models/price/predict", "X-Request-Id: mine", f"traceparent: {trace}")
    _, headers, _ = split(fast_path.respond([asked])[0])
    fast_path.record_metrics([asked])
    assert headers["X-Request-Id"] == "mine"
    assert headers["traceparent"].split("-")[1] == trace.split("-")[1]
    assert re.fullmatch(r"(\w+;dur=[\d.]+(, )?){4}", headers["Server-Timing"])
    assert own_client.post("/models/price/predict", data=body(*PRICES)).status_code == 200
    exposition = own_client.get("/metrics").get_data(as_text=True)
    counted = 'forward_pass_requests_total{model="price",route="/models/<name>/predict",status="200",version="1"} 2.0'
    assert counted in exposition
    assert 'forward_pass_rows_total{model="price",version="1"} 6.0' in exposition


def figures_of(client: FlaskClient) -> str:
    return client.application.extensions["recorder"].metrics.counters.exposition()


COUNTED = 'forward_pass_requests_total{model="price",route="/models/<name>/predict",status="200",version="1"} '


@pytest.mark.parametrize("failing", ["pass", "request"])
def test_a_failure_to_record_one_request_does_not_affect_the_others(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """For example, a counter file has to grow and no descriptor is left."""
    fast_path, metrics = fast_path_of(client), client.application.extensions["recorder"].metrics
    family = metrics.batch_rows if failing == "pass" else metrics.requests
    labels, left = family.labels, [OSError("Too many open files")]

    def once(*values: str) -> Any:
        if left:
            raise left.pop()
        return labels(*values)

    monkeypatch.setattr(family, "labels", once)
    together = [taken(fast_path, body(*PRICES)) for _ in range(3)]
    fast_path.respond(together)
    with pytest.raises(OSError, match="Too many open files"):
        fast_path.record_metrics(together)
    figures = figures_of(client)
    assert "forward_pass_requests_in_progress 0.0" in figures
    assert f"{COUNTED}{3.0 if failing == 'pass' else 2.0}" in figures
    fast_path.respond(together[:1])
    fast_path.record_metrics(together[:1])
    rows = 3.0 if failing == "pass" else 12.0  # what failed is not counted later
    assert f'forward_pass_batch_rows_sum{{model="price",version="1"}} {rows}' in figures_of(client)


def test_a_batch_that_fails_at_one_response_is_recorded_by_flask_alone(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []

    def short_of_memory(told: Any) -> bytes:
        if made:
            raise MemoryError
        made.append(b"{}")
        return made[0]

    fast_path = fast_path_of(client)
    monkeypatch.setattr(module, "json_bytes", short_of_memory)
    together = [taken(fast_path, body(*PRICES)) for _ in range(2)]
    with pytest.raises(MemoryError):
        fast_path.respond(together)
    fast_path.record_metrics(together)
    assert len(made) == 1
    figures = figures_of(client)
    assert COUNTED not in figures
    assert "forward_pass_requests_in_progress 0.0" in figures
    assert client.post("/models/price/predict", data=body(*PRICES)).status_code == 200
    assert f"{COUNTED}1.0" in figures_of(client)


def test_a_newly_published_version_serves_the_next_request(client: FlaskClient, store: Store) -> None:
    fast_path = fast_path_of(client)
    assert taken(fast_path, body(*PRICES)).served.number == 1
    store.publish("price", price(1))
    client.application.extensions["registry"].refresh()
    assert taken(fast_path, body(*PRICES)).served.number == 2


def test_keys_are_required_on_the_fast_path_too(store: Store, make_client: MakeClient, tmp_path: Path) -> None:
    made = {scope: generate_key(scope, (scope,)) for scope in ("predict", "metrics")}
    file = tmp_path / "keys"
    file.write_text("".join(f"{key}\n" for _, key in made.values()))
    client = make_client(store, keys_file=str(file))
    fast_path, path, data = fast_path_of(client), "/models/price/predict", body(*PRICES)
    good = head(path, f"Authorization: Bearer {made['predict'][0]}")
    request = fast_path.try_parse(good, data, "127.0.0.1", clock())
    assert request is not None
    fast_path.respond([request])
    assert request.record is not None
    assert request.record.key_name == "predict"
    for lines in (
        [],
        ["Authorization: Bearer fp_nobody"],
        [f"Authorization: Bearer {made['metrics'][0]}"],
        [f"Authorization: Bearer {made['predict'][0]}", "Authorization: Bearer fp_nobody"],
    ):
        assert take(fast_path, data, path, *lines) is None
    file.write_text(f"{made['metrics'][1]}\n")
    client.application.extensions["keys"].reload_if_changed()
    assert (
        fast_path.try_parse(good, data, "127.0.0.1", clock()) is None
    )  # the same head, with a key that is no longer valid
