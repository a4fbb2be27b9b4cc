"""The head of a request: its host, and the prefix that a trusted proxy forwards."""

from __future__ import annotations

import pytest
from flask import Request

from service.http.request_head import ForwardedPrefix, is_valid_host


@pytest.mark.parametrize(
    "host", ["here", "here.example:8000", "127.0.0.1", "[::1]:80", "", "here:", "xn--bcher-kva.example", "a_b"]
)
def test_a_host_is_a_name_or_an_address_and_a_port(host):
    assert is_valid_host(host)


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "a:b", "[here]", "a:80:80", "a\n", "é", "http://a", None])
def test_anything_else_is_no_host(host):
    assert not is_valid_host(host)


def test_only_http_1_0_needs_no_host():
    assert is_valid_host(None, "HTTP/1.0")


def script_name(prefix: str, trusted: str = "*", client: str = "192.0.2.1") -> str:
    found = {}

    def application(environ, _):
        found.update(environ)
        return []

    environ = {"SCRIPT_NAME": "", "REMOTE_ADDR": client, "HTTP_X_FORWARDED_PREFIX": prefix}
    ForwardedPrefix(application, trusted)(environ, None)
    name: str = found["SCRIPT_NAME"]
    return name


@pytest.mark.parametrize(
    ("trusted", "client", "believed"),
    [
        ("127.0.0.1,::1", "127.0.0.1", True),
        ("127.0.0.1, ::1", "::1", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("*", "192.0.2.1", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("10.0.0.0/8", "::ffff:11.1.2.3", False),
        ("127.0.0.1,::1", "192.0.2.1", False),
        ("10.0.0.0/8", "::1", False),
        ("", "127.0.0.1", False),
        ("127.0.0.1", "", False),
    ],
)
def test_a_prefix_is_believed_of_trusted_proxies_only(trusted, client, believed):
    assert script_name("/ml", trusted, client) == ("/ml" if believed else "")


@pytest.mark.parametrize("prefix", ["/ml", "/ml/", " /a/b-c_d.e~f/ ", "/z%C3%BCrich/a%20b", "/...", "/.a"])
def test_a_prefix_is_a_path(prefix):
    assert script_name(prefix) == prefix.strip().rstrip("/")


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "",
            "/",
            "ml",
            "//evil.example",
            "/a//b",
            "/a/../b",
            "/.",
            "/a, /b",
            "/a b",
            "/a?b",
            "/a#b",
            "/é",
            "/a\nb",
            "/'x",
        ),
        *("/a/%2e%2e/b", "/a/.%2E/b", "/%2e", "/a%2Fb", "/a%2f..%2fb", "/a%5cb", "/a%", "/a%4", "/a%zz", "/a%00b"),
    ],
)
def test_anything_but_a_path_is_no_prefix(prefix):
    assert script_name(prefix) == ""


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Range"])
@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2020 99999999999:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
    ],
)
def test_a_date_out_of_range_is_ignored(client, name, date):
    """It was a 500 with a traceback in the log, without an API key."""
    with client.get("/static/docs.js", headers={name: date, "Range": "bytes=0-5"}) as found:
        assert found.status_code in (200, 206)


def test_a_valid_date_is_a_condition(client):
    with client.get("/static/docs.js") as first:
        changed = first.headers["Last-Modified"]
    with client.get("/static/docs.js", headers={"If-Modified-Since": changed}) as again:
        assert again.status_code == 304


def test_a_long_accept_header_is_not_parsed(client, monkeypatch):
    parsed = []
    monkeypatch.setattr(Request, "accept_mimetypes", property(lambda _: parsed.append(1)))
    assert client.get("/", headers={"Accept": "text/html," * 1000}).get_json() == {"status": "alive"}
    assert parsed == []
