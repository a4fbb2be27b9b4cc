"""A caller's tracestate is kept beside traceparent, and dropped if it is invalid."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from service.telemetry.trace_context import MAX_MEMBERS, parse_tracestate

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LONG = ",".join(f"k{i}={'v' * 200}" for i in range(MAX_MEMBERS))
VALID = {
    "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    " a=1 ,\t, b=2,": "a=1,b=2",  # empty members and whitespace around members
    "a=1  b": "a=1  b",
    "a=!~+-<>": "a=!~+-<>",
    "1tenant@vendor=x,a-b_c*d/e=y": "1tenant@vendor=x,a-b_c*d/e=y",
    f"a={'v' * 256}": f"a={'v' * 256}",
    f"{'a' * 256}=v": f"{'a' * 256}=v",
    f"{'a' * 241}@{'b' * 14}=v": f"{'a' * 241}@{'b' * 14}=v",
    LONG: LONG,
}
INVALID = [
    "",
    ",",
    "a",
    "a=",
    "=1",
    "a =1",
    "A=1",
    "1a=1",
    "a=1,a=2",
    "a=1,b",
    "fw529a3039@dt=FfAAAA==",  # a value has no =
    "a=1;b=\u00e9",
    "a=\x7f",
    "a=1\n",
    "a@=1",
    "a@1b=1",
    "a@b@c=1",
    f"a={'v' * 257}",
    f"{'a' * 257}=v",
    f"{'a' * 242}@b=v",
    f"a@{'b' * 15}=v",
    f"{LONG},more=1",
]


@pytest.mark.parametrize(("given", "kept"), VALID.items())
def test_a_valid_tracestate_is_kept(given: str, kept: str) -> None:
    assert parse_tracestate(given) == kept


@pytest.mark.parametrize("given", INVALID)
def test_an_invalid_tracestate_is_dropped_whole(given: str) -> None:
    assert parse_tracestate(given) == ""


def headers(*lines: tuple[str, str]) -> list[tuple[str, str]]:
    return [("Content-Type", "application/json"), *lines]


@pytest.mark.parametrize("path", ["/models/price/predict", "/models/unknown/predict", "/healthz"])
def test_every_response_has_the_callers_tracestate(client: FlaskClient, path: str) -> None:
    def found(*lines: tuple[str, str]) -> Any:
        body = None if path == "/healthz" else b'{"instances": [[3, 80]]}'
        method = "GET" if body is None else "POST"
        return client.open(path, method=method, data=body, headers=headers(*lines)).headers

    assert found(("traceparent", PARENT), ("tracestate", "a=1, b=2"))["tracestate"] == "a=1,b=2"
    assert found(("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2"))["tracestate"] == "a=1,b=2"
    invalid = found(("traceparent", PARENT), ("tracestate", "a"))
    assert "tracestate" not in invalid
    assert invalid["traceparent"].startswith(PARENT[:36])  # the trace goes on without it
    assert "tracestate" not in found(("traceparent", PARENT[:-1]), ("tracestate", "a=1"))  # a new trace
    assert "tracestate" not in found(("tracestate", "a=1"))
