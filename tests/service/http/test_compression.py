"""Pages, their files and figures are compressed with gzip; predictions are not."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from flask.testing import FlaskClient

PAGE = {"Accept": "text/html", "Accept-Encoding": "gzip"}
PATHS = ["/", "/static/page.css", "/static/page.js", "/static/runtime.js", "/models/penguins", "/openapi.json"]


def get(client: FlaskClient, path: str, **headers: str) -> Any:
    """Return the response of a path, whose file is closed."""
    with client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}) as response:
        response.get_data()
        return response


@pytest.mark.parametrize("path", PATHS)
def test_pages_and_their_files_are_compressed_for_clients_that_accept_gzip(client: FlaskClient, path: str) -> None:
    plain, found = get(client, path, Accept="text/html"), get(client, path, **PAGE)
    assert "Content-Encoding" not in plain.headers
    assert found.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in found.headers["Vary"]
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert gzip.decompress(found.data) == plain.data
    assert int(found.headers["Content-Length"]) == len(found.data) < len(plain.data) / 2


def test_a_file_that_the_client_has_is_not_sent_again(client: FlaskClient) -> None:
    etag = get(client, "/static/page.css", **PAGE).headers["ETag"]
    assert etag.startswith("W/")
    again = get(client, "/static/page.css", **PAGE, If_None_Match=etag)
    assert (again.status_code, again.data) == (304, b"")


def test_a_file_is_compressed_once(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = get(client, "/static/page.css", **PAGE)
    monkeypatch.delattr("service.http.compression.gzip")
    assert get(client, "/static/page.css", **PAGE).data == first.data


@pytest.mark.parametrize("coding", ["", "identity", "br", "gzip;q=0"])
def test_other_clients_get_the_plain_body(client: FlaskClient, coding: str) -> None:
    found = get(client, "/static/page.css", Accept_Encoding=coding)
    assert "Content-Encoding" not in found.headers
    assert found.data.startswith(b"/* The frame")


def test_predictions_errors_and_small_bodies_are_not_compressed(client: FlaskClient) -> None:
    body = {"instances": [[3, 80]] * 200}
    found = client.post("/models/price/predict", json=body, headers={"Accept-Encoding": "gzip"})
    assert found.status_code == 200
    assert "Content-Encoding" not in found.headers
    for path in ("/models/none", "/static/icon.svg", "/healthz"):
        assert "Content-Encoding" not in get(client, path, **PAGE).headers


def test_a_head_request_has_no_body(client: FlaskClient) -> None:
    with client.head("/static/page.css", headers=PAGE) as found:
        assert found.data == b""
