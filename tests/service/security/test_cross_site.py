"""Requests that a web page makes the browser of an operator send, and hosts that are not the service's."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from model_store.registry.store import Store
from service.config import Settings, SettingsError
from tests.service.conftest import MakeClient
from tests.service.conftest import store as store  # noqa: PLC0414 - a fixture
from tests.service.security.keys import HEALTH, ROWS
from tests.service.server.conftest import own_server  # noqa: F401 - a fixture

UNLOAD = "/v2/repository/models/price/unload"
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/price/load", UNLOAD])
def test_a_page_of_another_origin_cannot_use_the_repository(
    store: Store, make_client: MakeClient, headers: dict[str, str], path: str
) -> None:
    client = make_client(store, admin=True, cors_origins="*")
    for body in ({}, {"json": {}}, {"data": "{}", "content_type": "text/plain"}):
        refused: Any = client.post(path, headers=headers, **body)  # type: ignore[arg-type]
        assert refused.status_code == 403
        assert "expected no page of another origin" in refused.json["error"]
    assert client.post("/models/price/predict", json=ROWS).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}],
    ids=str,
)
def test_programs_and_own_pages_can_use_the_repository(
    store: Store, make_client: MakeClient, headers: dict[str, str]
) -> None:
    client = make_client(store, admin=True)
    for body in ({}, {"json": {}}, {"data": "{}"}, {"data": b"{}", "content_type": "application/json; charset=utf-8"}):
        assert client.post(UNLOAD, headers=headers, **body).status_code == 200  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_the_repository_accepts_no_body_that_a_form_can_send(store: Store, make_client: MakeClient, kind: str) -> None:
    client = make_client(store, admin=True)
    for data in ("{}", ""):
        refused: Any = client.post(UNLOAD, data=data, content_type=kind, headers={"Origin": "http://localhost"})
        assert refused.status_code == 415
        assert "send -H 'Content-Type: application/json'" in refused.json["error"]


def test_a_program_may_send_any_type(store: Store, make_client: MakeClient) -> None:
    """Triton's asynchronous client sends text/plain."""
    assert make_client(store, admin=True).post(UNLOAD, data="{}", content_type="text/plain").status_code == 200


def test_only_trusted_hosts_are_served(store: Store, make_client: MakeClient) -> None:
    client = make_client(store, admin=True, trusted_hosts="ml.example.com, LOCALHOST:8001,[::1]")
    trusted = ["ml.example.com", "ML.example.com:443", "localhost:8001", "[::1]", "[::1]:9000"]
    others = ["evil.example", "ml.example.com.evil.example", "localhost", "localhost:8000", "10.0.0.7", "[::2]", ""]
    for host, status in [*((host, 200) for host in trusted), *((host, 400) for host in others)]:
        headers = {"Host": host}
        assert client.post("/models/price/predict", json=ROWS, headers=headers).status_code == status, host
        assert client.get("/openapi.json", headers=headers).status_code == status, host
        assert client.post("/v2/repository/index", headers=headers).status_code == status, host
        for path in HEALTH:  # probes send an IP address
            assert client.get(path, headers=headers).status_code == 200, (host, path)
        assert ("models" in client.get("/readyz", headers=headers).json) == (status == 200)
    answer: Any = client.get("/models", headers={"Host": "evil.example"})
    assert answer.json["error"]["code"] == "bad_request"
    for path in ("/models", "/static/none", "/nothing"):
        answer = client.get(path, headers={"Host": "evil.example"})
        assert "evil" not in answer.text
        assert "rooms" not in answer.text


@pytest.mark.slow
@pytest.mark.parametrize("worker", ["event", "gthread"])
def test_both_paths_of_the_real_server_check_the_host(own_server: Any, worker: str) -> None:  # noqa: F811
    server = own_server(SERVE_WORKER=worker, SERVE_WORKERS="1", SERVE_TRUSTED_HOSTS="ml.example.com")
    body = json.dumps(ROWS)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for host, status in (
        ("evil.example", 400),
        ("ml.example.com", 200),
        ("evil.example", 400),
        ("ml.example.com:1", 200),
    ):
        for path in ("/models/price/predict", "/models/price/predict?receipt=true"):  # the fast path, and Flask
            connection.request("POST", path, body, {"Host": host, "Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == status, (host, path)
    connection.close()


@pytest.mark.parametrize("text", ["https://ml.example.com", "ml.example.com/x", "*", "a b", "host:x"])
def test_an_invalid_trusted_host_is_a_settings_error(text: str) -> None:
    with pytest.raises(SettingsError, match="SERVE_TRUSTED_HOSTS: expected comma-separated hosts"):
        Settings.from_environ({"SERVE_TRUSTED_HOSTS": text})
