"""No value of a header is an error of the service, whatever the libraries that parse it raise."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from tests.service.conftest import MakeClient, assert_error

HOSTS = (
    "xn--strae-oqa.de",
    "xn--a",
    "xn--",
    "xn--99999999",
    "[:::::]",
    "xn--strae-oqa.de:80",
    "a..b",
    "[1]",
    ":80",
    "%00",
)
VALUES = (
    "a%00b''x",
    "''",
    '"\\"',
    "\xff\xfe",
    "1e400",
    "9" * 5000,
    "*/*;q=nan",
    "a;q=-1",
    "text/html;charset*=a%00b''x",
    "text/html;charset*=utf-8''%ff%fe",
    "text/csv; header*=a%00b''x",
    "text/csv; header*0*=a%00b''pres; header*1=ent",
    "text/csv; header*=undefined''x",
    f"text/csv; header*{'9' * 500}=x",
    f"text/csv; header*{'9' * 5000}=x",
    "text/csv; charset=nope",
    "multipart/form-data; boundary=\xff",
    "=?x%00?q?a?=",
    "Bearer \xff",
    'Digest a="',
    "Digest username*=a%00b''x",
    "bytes=0-99999999999999999999999",
    "Thu, 01 Jan 99999999999 00:00:00 GMT",
    "²",
)
HEADERS = (
    "Accept",
    "Accept-Encoding",
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Cookie",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Inference-Header-Content-Length",
    "Origin",
    "Range",
    "Sec-Fetch-Site",
    "traceparent",
    "tracestate",
    "X-Forwarded-Prefix",
    "X-Request-Id",
)
PATHS = ("/docs", "/nope", "/static/docs.js", "/models/price/predict", "/v2/models/price/infer", "/invocations")


def send(client: Any, path: str, method: str, header: str, value: str, data: bytes = b"") -> tuple[int, bytes]:
    """Return status and body. Werkzeug's client raises for some hosts itself."""
    environ = create_environ(path, method=method, data=data)
    name = header.upper().replace("-", "_")
    environ[name if name == "CONTENT_TYPE" else f"HTTP_{name}"] = value
    found, status, _ = run_wsgi_app(client.application, environ, buffered=True)
    return int(status.split()[0]), b"".join(found)


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_is_an_error_of_the_service(client: Any, host: str) -> None:
    """Its URL is in pages and in the examples of errors: `xn--strae-oqa.de` made all of them a 500."""
    for path in PATHS:
        for method in ("GET", "POST"):
            assert send(client, path, method, "Host", host)[0] < 500
    error = json.loads(send(client, "/models/price/predict", "POST", "Host", host, b"{}")[1])["error"]
    if host.startswith("xn--"):
        assert f"http://{host.removesuffix(':80')}/models/price/predict" in error["example"]["curl"]


@pytest.mark.parametrize("header", HEADERS)
def test_no_value_of_a_header_is_an_error_of_the_service(
    client: Any, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        for value in VALUES:
            for path in PATHS:
                for method in ("GET", "POST"):
                    assert send(client, path, method, header, value, b"1,2\n")[0] < 500, (value, path)
    assert not caplog.records


def test_malformed_parameters_of_a_csv_body_are_named(client: Any) -> None:
    for value in ("header*=a%00b''x", f"header*{'9' * 500}=x", "header=present" + " " * 1000):
        response = client.post("/models/price/predict", data="1,2\n", content_type=f"text/csv; {value}")
        fault = assert_error(response, 422, "invalid_request")["faults"][0]
        assert fault["location"] == "Content-Type"
        assert "found malformed ones" in fault["problem"] or "header=absent" in fault["problem"]


def test_the_prefix_of_a_proxy_is_in_urls(store: Any, make_client: MakeClient) -> None:
    client = make_client(store)
    response = client.post("/models/price/predict", json={}, headers={"X-Forwarded-Prefix": "/a%20b"})
    assert "http://localhost/a%20b/models/price/predict" in response.json["error"]["example"]["curl"]
