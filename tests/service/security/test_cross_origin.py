"""Pages of other origins: which may read responses, on every way that a response takes (CORS)."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from service.config import Settings, SettingsError
from service.security.api_keys import generate_key
from tests.chromium import CHROMIUM, running_chromium
from tests.service.conftest import store  # noqa: F401 - a fixture
from tests.service.server.conftest import loop, own_server  # noqa: F401 - fixtures
from tests.service.server.event_worker.harness import Loop

SHOP = "https://shop.example"
GOOD = {"instances": [[3, 80]]}
PREFLIGHT = {
    "Origin": SHOP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def cross_origin(response: Any) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("Access-Control-")}


def test_by_default_no_origin_is_allowed(client):
    for response in (
        client.post("/models/price/predict", json=GOOD, headers={"Origin": SHOP}),
        client.options("/models/price/predict", headers=PREFLIGHT),
    ):
        assert cross_origin(response) == {}
        assert "Vary" not in response.headers


@pytest.mark.parametrize(
    "path", ["/models/price/predict", "/v1/models/price:predict", "/models", "/healthz", "/nothing"]
)
def test_a_listed_origin_may_read_every_response(store, make_client, path):  # noqa: F811
    client = make_client(store, cors_origins=f"http://localhost:3000, {SHOP}")
    for origin in (SHOP, "http://localhost:3000"):
        response = client.post(path, json=GOOD, headers={"Origin": origin})
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
        assert response.headers.getlist("Vary") == ["Origin"]


@pytest.mark.parametrize("origin", ["https://shop.example.evil", "http://shop.example", f"{SHOP}:8443", "null", None])
def test_another_origin_may_read_none(store, make_client, origin):  # noqa: F811
    client = make_client(store, cors_origins=SHOP)
    headers = {} if origin is None else {"Origin": origin}
    response = client.post("/models/price/predict", json=GOOD, headers=headers)
    assert response.status_code == 200
    assert cross_origin(response) == {}
    assert response.headers["Vary"] == "Origin"
    if origin is not None:
        asked = client.options("/models/price/predict", headers=PREFLIGHT | headers)
        assert cross_origin(asked) == {}


def test_all_origins_may_be_allowed(store, make_client):  # noqa: F811
    client = make_client(store, cors_origins="*")
    response = client.post("/models/price/predict", json=GOOD, headers={"Origin": "https://any.example"})
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in response.headers


def test_a_preflight_request_needs_no_key_and_the_request_does(store, make_client, tmp_path):  # noqa: F811
    secret, key = generate_key("shop", ("predict",))
    (tmp_path / "keys").write_text(f"{key}\n")
    client = make_client(store, cors_origins=SHOP, keys_file=str(tmp_path / "keys"))
    asked = client.options("/models/price/predict", headers=PREFLIGHT)
    assert (asked.status_code, asked.data) == (204, b"")
    assert asked.headers["Access-Control-Allow-Origin"] == SHOP
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert {"Authorization", "Content-Type"} <= {*asked.headers["Access-Control-Allow-Headers"].split(", ")}
    refused = client.post("/models/price/predict", json=GOOD, headers={"Origin": SHOP})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == SHOP
    headers = {"Origin": SHOP, "Authorization": f"Bearer {secret}"}
    assert client.post("/models/price/predict", json=GOOD, headers=headers).status_code == 200
    plain = client.options("/models/price/predict", headers={"Origin": SHOP})
    assert plain.status_code == 401  # no preflight request


@pytest.mark.parametrize("path", ["/metrics", "/v2/repository/index", "/v2/repository/models/price/unload"])
def test_no_origin_may_use_metrics_and_the_repository(store, make_client, path):  # noqa: F811
    client = make_client(store, cors_origins="*", admin=True, admin_port=80)  # the port of Flask's test client
    method = "GET" if path == "/metrics" else "POST"
    asked = client.options(path, headers=PREFLIGHT | {"Access-Control-Request-Method": method})
    assert cross_origin(asked) == {}
    assert cross_origin(client.open(path, method=method, headers={"Origin": SHOP})) == {}


def test_error_responses_of_the_worker_may_be_read(loop: Loop):  # noqa: F811
    loop.app.crash = RuntimeError("outside Flask")
    for path in ("/nothing", "/v2"):
        found = loop.take(loop.client(f"GET {path} HTTP/1.1\r\nHost: h\r\nOrigin: {SHOP}\r\n\r\n".encode()))
        assert found.startswith(b"HTTP/1.1 500 ")
        assert f"\r\nAccess-Control-Allow-Origin: {SHOP}\r\n".encode() in found
    other = loop.take(loop.client(b"GET / HTTP/1.1\r\nHost: h\r\nOrigin: https://other.example\r\n\r\n"))
    assert b"Access-Control-" not in other
    assert b"\r\nVary: Origin\r\n" in other


@pytest.mark.parametrize(
    "origins", ["shop.example", f"{SHOP}/", f"{SHOP}/page", "https://*.example", "null", "ftp://a"]
)
def test_an_invalid_origin_is_reported_at_the_start(origins):
    with pytest.raises(SettingsError, match="SERVE_CORS_ORIGINS: expected comma-separated origins such as"):
        Settings.from_environ({"SERVE_CORS_ORIGINS": f"{SHOP},{origins}"})


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")
def test_a_page_of_another_origin_predicts_with_a_key_in_a_browser(own_server, tmp_path):  # noqa: F811
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Shop</title>")

        def log_message(self, *_: Any) -> None:
            pass

    secret, key = generate_key("shop", ("predict",))
    (tmp_path / "keys").write_text(f"{key}\n")
    pages = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    allowed = f"http://127.0.0.1:{pages.server_port}"
    server = own_server(SERVE_CORS_ORIGINS=allowed, SERVE_KEYS_FILE=str(tmp_path / "keys"))
    script = """async ([url, key, body]) => {
        const headers = { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
        try {
            const response = await fetch(url, { method: "POST", headers, body });
            return [response.status, response.headers.get("X-Request-Id") !== null, await response.json()];
        } catch (problem) { return [0, false, String(problem)]; }
    }"""
    with running_chromium() as browser:
        page = browser.new_page()
        url = f"http://127.0.0.1:{server.port}/models/price/predict"
        page.goto(allowed)
        fast = page.evaluate(script, [url, secret, json.dumps(GOOD)])
        assert fast[:2] == [200, True]
        assert page.evaluate(script, [url, secret, "{}"])[0] == 422
        assert page.evaluate(script, [url, "", json.dumps(GOOD)])[0] == 401
        page.goto(f"http://localhost:{pages.server_port}")  # another origin
        assert page.evaluate(script, [url, secret, json.dumps(GOOD)])[0] == 0
    pages.shutdown()
    pages.server_close()
