"""The service behind a proxy that strips a prefix, /ml, with a real nginx and a real browser."""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import open_store
from service.security.api_keys import generate_key
from tests.chromium import CHROMIUM, running_chromium
from tests.edge.proxy import NGINX, PATIENCE_SECONDS
from tests.service.conftest import penguins, price
from tests.service.server.server_process import ROOT, Server, free_port, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]

CONFIGURATION = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
{location}
  }}
}}
"""


def documented_location() -> str:
    """Return the location in docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    return text.partition("### Below a path\n")[2].partition("```nginx\n")[2].partition("```")[0]


@contextmanager
def prefixing_proxy(folder: Path, upstream: int, location: str) -> Iterator[str]:
    """Run nginx with a location, and yield the URL of the service behind it."""
    port = free_port()
    folder.mkdir()
    location = location.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=port, location=location))
    words = [str(NGINX), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    if Path("/proc/self").stat().st_uid == 0:  # its workers' user could not enter the folder
        words += ["-g", "user root;"]
    process = subprocess.Popen(words)
    try:
        url = f"http://127.0.0.1:{port}/ml"
        until(lambda: ask(f"{url}/healthz")[0] == 200)
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def ask(url: str, body: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, body, timeout=PATIENCE_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except urllib.error.URLError as error:
        raise ConnectionError(str(error)) from error


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    store = open_store(folder / "models")
    store.publish("price", price())
    store.publish("penguins", penguins())
    server = Server(store, folder, SERVE_WORKERS="1")
    yield server
    server.process.terminate()
    server.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def url(server: Server, tmp_path: Path) -> Iterator[str]:
    with prefixing_proxy(tmp_path / "nginx", server.port, documented_location()) as url:
        yield url


def test_the_curl_line_of_an_error_works_behind_the_prefix(url):
    for path in ("/models/price/predict", "/v1/models/price:predict", "/v2/models/price/infer"):
        status, text = ask(url + path, b"{}")
        assert status in {400, 422}
        error = json.loads(text)["error"]
        line = error["example"]["curl"] if isinstance(error, dict) else error.partition("This works: ")[2]
        assert f" {url}{path} " in line
        done = subprocess.run(shlex.split(line), capture_output=True, check=True, timeout=PATIENCE_SECONDS)
        assert "error" not in json.loads(done.stdout)
    assert f"see {url[-3:]}/docs" in ask(f"{url}/nothing")[1]


def test_the_openapi_document_has_the_prefix_as_its_server(url, server):
    assert json.loads(ask(f"{url}/openapi.json")[1])["servers"] == [{"url": "/ml"}]
    assert server.ask("GET", "/openapi.json")[1]["servers"] == [{"url": "/"}]
    assert json.loads(ask(f"{url}/openapi.json")[1])["servers"] == [{"url": "/ml"}]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")
@pytest.mark.parametrize("path", ["/", "/docs/"])
def test_the_page_asks_for_the_key_behind_the_prefix(server, tmp_path, path):
    secret, key = generate_key("browser", ("predict",))
    (tmp_path / "keys").write_text(f"{key}\n")
    guarded = Server(server.store, tmp_path, SERVE_WORKERS="1", SERVE_KEYS_FILE=str(tmp_path / "keys"))
    with (
        prefixing_proxy(tmp_path / "nginx", guarded.port, documented_location()) as url,
        running_chromium() as browser,
    ):
        page = browser.new_page()
        page.goto(url + path)
        page.get_by_label("API key").fill(secret)
        page.get_by_role("button", name="Open").click()
        if path == "/":
            page.get_by_role("heading", name="Models", exact=True).wait_for()  # before it, links have no key
            page.get_by_role("link", name="API reference").first.click()
        form = page.locator("form[data-model=penguins]")
        form.get_by_role("button", name="Predict").click()
        form.locator(".bars").wait_for()
        with page.expect_download() as download:
            page.get_by_role("link", name="OpenAPI document").click()
        assert json.loads(Path(download.value.path()).read_text())["servers"] == [{"url": "/ml"}]
    assert guarded.stop() == 0


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")
@pytest.mark.parametrize("header", [True, False], ids=["with the header", "without it"])
@pytest.mark.parametrize("path", ["/", "/docs", "/docs/"])
def test_the_page_works_behind_the_prefix(server, tmp_path, path, header):
    location = documented_location()
    lines = location.splitlines()
    if not header:
        location = "\n".join(line for line in lines if "X-Forwarded-Prefix" not in line)
        assert len(location.splitlines()) == len(lines) - 1
    with prefixing_proxy(tmp_path / "nginx", server.port, location) as url, running_chromium() as browser:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("response", lambda response: complaints.append(response.url) if response.status >= 400 else None)
        page.goto(url + path)
        if path == "/":
            page.get_by_role("link", name="API reference").first.click()
        page.wait_for_url(f"{url}/docs")
        assert page.evaluate("document.styleSheets.length === 2 && getComputedStyle(document.body).margin === '0px'")
        form = page.locator("form[data-model=penguins]")
        form.get_by_role("button", name="Predict").click()
        form.locator(".bars").wait_for()
        if header:
            assert f"{url}/models/penguins/predict" in page.locator("body").inner_text()
        page.get_by_role("link", name="OpenAPI document").click()
        page.wait_for_url(f"{url}/openapi.json")
        assert complaints == []
