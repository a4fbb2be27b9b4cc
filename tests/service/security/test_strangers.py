"""What callers without a key, and with a key of another scope, get from every route, method and path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from model_store.registry.store import Store, open_store
from tests.model_store.conftest import chess
from tests.service.conftest import MakeClient, price
from tests.service.security.keys import HEALTH, ROWS, bearer

METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "BREW")
STRANGERS = {
    "no key": {},
    "a wrong key": {"Authorization": "Bearer fp_nobody"},
    "another scheme": {"Authorization": "Basic eDp5"},
}
BASES = ("http://localhost:8000", "http://localhost:8001")
Response = tuple[int, str, tuple[tuple[str, str], ...]]


def is_public(path: str) -> bool:
    return (
        path == "/docs/" or path.startswith("/static/") or path.rstrip("/") in {public.rstrip("/") for public in HEALTH}
    )


def requests(client: FlaskClient) -> Iterator[tuple[str, str]]:
    """Yield the method and path of requests to every route, beside it and below it."""
    found = {
        "/nothing",
        "/models/price/nothing",
        "/v2/models/pric",
        "/v1/models/price:nothing",
        "/metrics/x",
        "/static/page.css",
    }
    for rule in client.application.url_map.iter_rules():
        path = re.sub(r"<[^>]*name>", "price", rule.rule)
        found |= {path, path.rstrip("/") + "/", f"{path.rstrip('/')}/nothing", path.replace("price", "pric")}
        found |= {re.sub(r"<[^>]*>", version, path) for version in ("1", "default")}
    for path in sorted(found):
        for method in METHODS:
            yield method, path


def answer(client: FlaskClient, method: str, path: str, headers: dict[str, str], base: str) -> Response:
    body = ROWS if method in {"POST", "PUT"} else None
    with client.open(path, method=method, headers=headers, json=body, base_url=base) as response:
        text = re.sub(r'"request_id":"[^"]*"', "", response.text)
        ids = {"X-Request-Id", "traceparent", "Date", "Last-Modified", "ETag"}
        return response.status_code, text, tuple((k, v) for k, v in response.headers.items() if k not in ids)


@pytest.fixture
def guarded_stores(tmp_path: Path, make_client: MakeClient, file: Path) -> Callable[..., list[FlaskClient]]:
    """A function that makes two services: one with the model `price`, one with another model."""

    def make(**settings: object) -> list[FlaskClient]:
        stores: list[Store] = [open_store(tmp_path / name) for name in ("price", "chess")]
        stores[0].publish("price", price())
        stores[1].publish("chess", chess())
        stores[1].publish("chess", chess(1))
        return [make_client(store, keys_file=str(file), **settings) for store in stores]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("admin_port", [0, 8001])
def test_a_stranger_gets_the_same_responses_whatever_is_served(
    guarded_stores: Callable[..., list[FlaskClient]], admin_port: int
) -> None:
    first, other = guarded_stores(admin=True, admin_port=admin_port)
    for base in BASES:
        for kind, headers in STRANGERS.items():
            closed: dict[bool, set[Response]] = {False: set(), True: set()}  # by whether the protocol has plain errors
            for method, path in requests(first):
                found = answer(first, method, path, headers, base)
                assert answer(other, method, path, headers, base) == found, (method, path, kind)
                if not is_public(path):
                    assert found[0] == 401, (method, path, kind)
                    if method != "HEAD":
                        closed[path.startswith(("/v1", "/v2"))].add(found)
            assert [len(bodies) for bodies in closed.values()] == [1, 1], closed


@pytest.mark.parametrize("scope", ["metrics", "admin"])
def test_a_key_learns_nothing_of_the_models_outside_its_scope(
    guarded_stores: Callable[..., list[FlaskClient]], scope: str
) -> None:
    client, *_ = guarded_stores(admin=True, admin_port=8001)
    for base in BASES:
        for method, path in requests(client):
            is_operators = scope == "admin" and (path.startswith("/v2/repository") or "/aliases/" in path)
            is_operators |= scope == "metrics" and path.rstrip("/") == "/traffic"
            if is_operators or path.rstrip("/") in {"/readyz", f"/{scope}"}:
                continue
            status, text, _ = answer(client, method, path, bearer(scope), base)
            assert "rooms" not in text, (method, path)
            assert '"instances"' not in text, (method, path)
            assert status in {200, 204, 302, 403, 404, 405}, (method, path)
            if not is_public(path):
                assert status in {403, 404}, (method, path)
