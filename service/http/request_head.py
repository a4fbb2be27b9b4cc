"""The head of a request: its host, the path under which a proxy publishes the service, and headers that are lists."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from flask import Request
from werkzeug.http import parse_date

from service.http.exceptions import error_at

# RFC 3986: a registered name, IPv4 address, or IPv6 address in brackets, and a port. The name may be empty.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?", re.ASCII)
_MAX_HOST_CHARACTERS = 300  # DNS allows 253, and a port follows
_SAFE_IN_PATH = "!$&'()*+,/:;=@%"  # RFC 3986, and what is escaped already
_PORT = re.compile(r":\d*$")
_MAX_ACCEPT_CHARACTERS = 1000  # those of browsers have less than 200
_DATES = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE")

# A path without the segments . and .., whose escapes hide no dot, slash or control character.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))(?:[\w.~-]|%(?![01]|2[ef]|5c|7f)[0-9a-f]{2})+)+", re.ASCII | re.IGNORECASE)


def is_valid_host(host: str | None, protocol: str = "HTTP/1.1") -> bool:
    """True for a valid Host header (RFC 9112, section 3.2). Only HTTP/1.0 may leave it out."""
    if host is None:
        return protocol == "HTTP/1.0"
    return len(host) <= _MAX_HOST_CHARACTERS and _HOST.fullmatch(host) is not None


class HostPolicy:
    """Which Host headers are accepted, SERVE_TRUSTED_HOSTS.

    A page whose name resolves to this service's address (DNS rebinding) is of the same origin for the browser. Only its
    Host header tells it from the service's own.
    """

    def __init__(self, trusted_hosts: str = "") -> None:
        """`trusted_hosts`: separated by commas, without a port for any port; without any all hosts are trusted."""
        self._trusted = frozenset(filter(None, (host.strip().lower() for host in trusted_hosts.split(","))))

    def is_trusted(self, host: str | None) -> bool:
        if not self._trusted:
            return is_valid_host(host, "HTTP/1.0")
        name = (host or "").lower()
        return name in self._trusted or _PORT.sub("", name) in self._trusted

    def check(self, host: str | None) -> None:
        """Raise ApiError 400 unless the host is trusted."""
        if not self.is_trusted(host):
            problem, fix = "expected a trusted host, found another one", "use a host of SERVE_TRUSTED_HOSTS in the URL"
            raise error_at(400, "bad_request", "Host", problem, fix)


def check_host(host: str | None, protocol: str) -> None:
    """Raise ApiError 400 unless the Host header is valid."""
    if not is_valid_host(host, protocol):
        problem = f"expected a host, with or without a port; found {'none' if host is None else 'something else'}"
        raise error_at(400, "bad_request", "Host", problem, "send the header Host once, as in the URL")


def root_url(request: Request) -> str:
    """Return the URL of the service as the client has it, without a slash at its end.

    Werkzeug's `root_url` has the host in Unicode, and raises ValueError for `xn--strae-oqa.de` and other hosts of which
    IDNA makes none.
    """
    return f"{request.scheme}://{request.host}{quote(request.script_root, safe=_SAFE_IN_PATH)}"


def with_mapped_addresses(proxies: str) -> str:
    """Return IP addresses and networks, separated by commas, with each IPv4 one also mapped to IPv6.

    A server on `::` sees a client of 10.0.0.1 as ::ffff:10.0.0.1 (RFC 4291, section 2.5.5.2).
    """
    listed = [proxy.strip() for proxy in proxies.split(",") if proxy.strip()]
    networks = [ipaddress.ip_network(proxy, strict=False) for proxy in listed if proxy != "*"]
    mapped = [f"::ffff:{one.network_address}/{96 + one.prefixlen}" for one in networks if one.version == 4]
    return ",".join([*listed, *mapped])


class ForwardedPrefix:
    """WSGI middleware: believe the X-Forwarded-Prefix of trusted proxies.

    A proxy that publishes the service under /ml forwards /ml/docs as /docs, and says `X-Forwarded-Prefix: /ml`. The
    prefix becomes SCRIPT_NAME, which URLs in responses begin with.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]], trusted_proxies: str) -> None:
        """`trusted_proxies`: IP addresses and networks, separated by commas, or * for all."""
        proxies = [proxy for proxy in with_mapped_addresses(trusted_proxies).split(",") if proxy]
        self._application, self._trusts_all = application, "*" in proxies
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies if proxy != "*"]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        prefix = environ.get("HTTP_X_FORWARDED_PREFIX", "").strip().rstrip("/")
        if prefix and _PREFIX.fullmatch(prefix) and self._is_trusted(environ.get("REMOTE_ADDR", "")):
            environ["SCRIPT_NAME"] = prefix
        return self._application(environ, start_response)

    def _is_trusted(self, client_ip: str) -> bool:
        try:
            return self._trusts_all or any(ipaddress.ip_address(client_ip) in network for network in self._networks)
        except ValueError:  # a client without an IP address
            return False


def list_items(text: str) -> list[str]:
    """Return the items of a header that is a list, in lower case; empty ones are none (RFC 9110, section 5.6.1)."""
    return [item for item in (part.strip().lower() for part in text.split(",")) if item]


def prefers_page(request: Request) -> bool:
    """True if the client of a request prefers an HTML page to JSON, as browsers do.

    A longer Accept header is not parsed: 56 kB of it took 40 ms, also without an API key.
    """
    if len(request.headers.get("Accept", "")) > _MAX_ACCEPT_CHARACTERS:
        return False
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def drop_invalid_dates(environ: dict[str, Any]) -> None:
    """Remove the conditions of a request whose dates are out of range: RFC 9110 ignores them, Werkzeug raises."""
    for name in _DATES:
        try:
            parse_date(environ.get(name))
        except OverflowError:
            del environ[name]
