"""The request reader: complete requests only, wherever the bytes are cut, and never one inside another."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.server import request_reader as module
from service.server.gunicorn_compat import ParsedHead
from service.server.request_reader import (
    CHUNKS_PER_READ,
    MAX_CACHED_HEAD_BYTES,
    MAX_CACHED_HEADS,
    MAX_HEAD_BYTES,
    UNCACHED_HEADERS,
    HeadCache,
    HeadTooLargeError,
    MalformedBodyError,
    NotHttpError,
    RequestHead,
    RequestReader,
)

MOST = 1000
BODIES = st.binary(max_size=60)


def incoming() -> RequestReader:
    cfg = Config()
    cfg.set("http_parser", "python")
    return RequestReader(HeadCache(cfg), ("127.0.0.1", 1), MOST)


def fed(*pieces: bytes) -> RequestReader:
    arriving = incoming()
    for piece in pieces:
        arriving.feed(piece)
    return arriving


def head(*lines: str, method: str = "POST", path: str = "/predict") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *lines, "", ""]).encode()


def sized(body: bytes, path: str = "/predict") -> bytes:
    return head(f"Content-Length: {len(body)}", path=path) + body


def chunked(body: bytes, *sizes: int, path: str = "/predict") -> bytes:
    pieces, start = [], 0
    for size in sizes:
        piece = body[start : start + size]
        start += size
        if piece:
            pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece))
    rest = body[start:]
    pieces += [b"%X;name=value\r\n%s\r\n" % (len(rest), rest)] if rest else []
    return head("Transfer-Encoding: chunked", path=path) + b"".join(pieces) + b"0\r\nX-Checksum: x\r\n\r\n"


@pytest.fixture
def few_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNKS_PER_READ", 2)


@pytest.mark.usefixtures("few_chunks")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(BODIES, st.none() | st.lists(st.integers(1, 20), max_size=5)), min_size=1), st.data())
def test_requests_come_out_complete_and_in_order_wherever_their_bytes_are_cut(
    requests: list[tuple[bytes, list[int] | None]], data: st.DataObject
) -> None:
    stream = b"".join(
        sized(body, f"/{i}") if sizes is None else chunked(body, *sizes, path=f"/{i}")
        for i, (body, sizes) in enumerate(requests)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    arriving, found = incoming(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start == end:
            continue
        arriving.feed(stream[start:end])
        while (arrived := arriving.next_request()) is not None or arriving.has_more:
            if arrived is None:
                continue
            assert not arrived.framing_lost
            found.append((arrived.head.path, arrived.body.read()))
    assert found == [(f"/{i}", body) for i, (body, _) in enumerate(requests)]
    assert arriving.buffered_bytes == 0


def test_a_truncated_body_comes_out_short_and_ends_the_connection() -> None:
    arriving = fed(sized(b"0123456789")[:-3])
    assert arriving.next_request() is None
    arriving.feed(b"")
    arrived = arriving.next_request()
    assert arrived is not None
    assert arrived.framing_lost
    assert arrived.body.read() == b"0123456"


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhel",
        b"",
        b"xyz\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloxx0\r\n\r\n",
        b"fffffffff\r\n",
        b"5;" + b"x" * 2000 + b"\r\nhello\r\n0\r\n\r\n",
        b"5;a=\r1\r\nhello\r\n0\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
    ],
)
def test_a_malformed_chunked_body_cannot_be_read_and_ends_the_connection(body: bytes) -> None:
    arriving = fed(head("Transfer-Encoding: chunked") + body, b"")
    while (arrived := arriving.next_request()) is None:
        assert arriving.has_more
    assert arrived.framing_lost
    with pytest.raises(MalformedBodyError):
        arrived.body.read(10)


@pytest.mark.parametrize(
    "text",
    [
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Content-Length: 5", "Content-Length: 5"),
        head("Content-Length: 5, 5"),
        head("Content-Length: +5"),
        head("Content-Length: -5"),
        head("Content-Length: 5_0"),
        head("Content-Length: 0x5"),
        head("Transfer-Encoding: xchunked"),
        head("Transfer-Encoding: chunked, chunked"),
        head("Transfer-Encoding: chunked, identity"),
        head("Transfer-Encoding: gzip"),
        head("Transfer-Encoding : chunked"),
        head("Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
        head("Folded: a", " Content-Length: 5"),
        head("Bare: a\nContent-Length: 5"),
        head("No colon here"),
        head(": nameless"),
        head("Content-Length\x00: 5"),
        head().replace(b"POST", b"PO ST"),
        head().replace(b"HTTP/1.1", b"HTTP/9.9"),
        head().replace(b"/predict", b"no-slash-and\x00nul"),
        head(*(f"X-{i}: y" for i in range(300))),
        b"\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_ambiguous_heads_are_rejected(text: bytes) -> None:
    with pytest.raises(ParseException):
        fed(text + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: here\r\n\r\n").next_request()


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (bytes.fromhex("16030100f1010000ed0303") + bytes(230), "a TLS handshake"),
        (b"\x16\x03", "a TLS handshake"),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "line of 19 bytes without a version"),
        (b"EHLO here\r\n", "line of 9 bytes"),
        (b"\x80\x2e\x01\x00\x02", "first byte of 0x80"),
        (b"\r\n\x00", "first byte of 0x00"),
        (b"GET /\r\n", "line of 5 bytes"),
    ],
)
def test_what_begins_no_request_is_rejected_at_once(sent: bytes, found: str) -> None:
    with pytest.raises(NotHttpError, match=found):
        fed(sent).next_request()


def test_no_beginning_of_a_request_is_rejected() -> None:
    whole = b"\r\n" + head("X: y")
    for end in range(len(whole)):
        assert fed(whole[:end]).next_request() is None


def test_a_head_without_end_is_rejected() -> None:
    with pytest.raises(HeadTooLargeError):
        fed(b"GET / HTTP/1.1\r\n", b"X: " + b"y" * MAX_HEAD_BYTES).next_request()


def test_a_body_announced_over_the_limit_is_passed_on_at_once_without_content() -> None:
    arrived = fed(head(f"Content-Length: {MOST + 1}")).next_request()
    assert arrived is not None
    assert arrived.framing_lost
    assert arrived.body.read() == b""


def test_a_chunked_body_over_the_limit_is_passed_on_once_it_is() -> None:
    arriving = fed(head("Transfer-Encoding: chunked"))
    for _ in range(MOST // 100):
        arriving.feed(b"64\r\n" + b"x" * 100 + b"\r\n")
        assert arriving.next_request() is None
    arriving.feed(b"64\r\n" + b"x" * 100 + b"\r\n")
    arrived = arriving.next_request()
    assert arrived is not None
    assert arrived.framing_lost
    assert len(arrived.body.read()) > MOST


def test_a_body_of_small_chunks_is_decoded_some_chunks_at_a_time() -> None:
    body = b"x" * (5 * CHUNKS_PER_READ)
    arriving, looks = fed(chunked(body, *[1] * len(body)) + head()), 1
    while (arrived := arriving.next_request()) is None:
        assert arriving.has_more
        looks += 1
    assert not arriving.has_more
    assert looks == 6
    assert arrived.body.read() == body
    assert arriving.next_request() is not None


def test_an_expectation_of_100_continue_is_reported_once() -> None:
    arriving = fed(head("Content-Length: 2", "Expect: 100-continue"))
    assert not arriving.take_continue_expectation()
    assert arriving.next_request() is None
    assert arriving.take_continue_expectation()
    assert not arriving.take_continue_expectation()
    arriving.feed(b"{}")
    arrived: Any = arriving.next_request()
    assert arrived.body.read() == b"{}"


def test_a_head_without_its_body_counts_as_buffered() -> None:
    text = head("Content-Length: 3", "X: " + "x" * 5000)
    arriving = fed(text, b"ab")
    assert arriving.next_request() is None
    assert arriving.buffered_bytes == 2 * len(text) + 2
    arriving.feed(b"c")
    assert arriving.next_request() is not None
    assert arriving.buffered_bytes == 0


def parse(cache: HeadCache, *lines: str, ip: str = "127.0.0.1") -> RequestHead:
    return cache.parse(head(*lines), (ip, 1), 1)


def test_an_equal_head_is_not_parsed_again() -> None:
    cache = HeadCache(Config())
    first = parse(cache, "Content-Length: 5")
    assert cache.parse(head("Content-Length: 5"), ("127.0.0.1", 2), 7).parsed is first.parsed
    assert parse(cache, "Content-Length: 6").parsed is not first.parsed


def test_heads_that_differ_in_varying_fields_share_a_parsed_head() -> None:
    cache = HeadCache(Config())
    first = parse(cache, "Content-Length: 5")
    for i in range(3):
        lines = [f"traceparent: 00-{i}", f"X-Request-Id: {i}", "tracestate:  a=b ", "AUTHORIZATION: Bearer fp_x y"]
        found = parse(cache, *lines[:2], "Content-Length: 5", *lines[2:])
        assert found.parsed is first.parsed
        assert found.uncached_headers == {
            "TRACEPARENT": f"00-{i}",
            "X-REQUEST-ID": str(i),
            "TRACESTATE": "a=b",
            "AUTHORIZATION": "Bearer fp_x y",
        }
    assert "fp_x" not in repr(list(cache._cache))
    assert "AUTHORIZATION" not in {name for kept in cache._cache.values() for name, _ in kept.parsed.headers}


@pytest.mark.parametrize(
    "lines",
    [
        ("Authorization: a", "Authorization: b"),
        ("Authorization: a", "authorization: \xff"),
        ("Authorization: \xff", "Content-Length: 1"),
        ("X-Request-Id:", "Content-Length: 1"),
        ("X-Request-Id: a", "Long: " + "x" * MAX_CACHED_HEAD_BYTES),
    ],
)
def test_a_head_whose_varying_fields_are_not_plain_is_parsed_whole_and_not_cached(lines: tuple[str, ...]) -> None:
    cache = HeadCache(Config())
    text = "\r\n".join(["POST /predict HTTP/1.1", "Host: here", *lines, "", ""]).encode("latin-1")
    first = cache.parse(text, ("127.0.0.1", 1), 1)
    assert cache.parse(text, ("127.0.0.1", 1), 1).parsed is not first.parsed
    sent = [(name.strip().upper(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    assert [field for field in first.parsed.headers if field[0] != "HOST"] == sent
    assert first.uncached_headers == {name: value for name, value in sent if name in UNCACHED_HEADERS}


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["Authorization", "traceparent", "TRACESTATE", "X-Request-Id", "Accept", "X-Other"]),
        st.sampled_from(["", "a", " b ", "a b", "\xe9", "a,b", "\t", "Bearer x"]),
    ),
    max_size=6,
)


@given(FIELDS, st.sampled_from(["", "\r\n", " \r\n"]))
def test_a_cached_head_has_the_fields_of_the_whole_one(fields: list[tuple[str, str]], start: str) -> None:
    """Whatever is sent: nothing is lost, added, or accepted that gunicorn's parser would reject."""
    lines = [f"{name}:{value}" for name, value in fields]
    text = (start + "\r\n".join(["POST /predict HTTP/1.1", "Host: here", *lines, "", ""])).encode("latin-1")
    cfg = Config()
    try:
        whole = ParsedHead.parse(cfg, text, ("127.0.0.1", 1), 1)
    except ParseException:
        with pytest.raises(ParseException):
            HeadCache(cfg).parse(text, ("127.0.0.1", 1), 1)
        return
    cache = HeadCache(cfg)
    for _ in range(2):
        found = cache.parse(text, ("127.0.0.1", 1), 1)
        joined = found.parsed.headers + [
            item for item in found.uncached_headers.items() if item not in found.parsed.headers
        ]
        assert sorted(joined) == sorted(whole.headers)


def test_a_forwarded_scheme_is_not_believed_of_another_client() -> None:
    """gunicorn decides by the client's IP whether X-Forwarded-Proto counts."""
    cfg = Config()
    cfg.set("forwarded_allow_ips", "127.0.0.1")
    cache = HeadCache(cfg)
    assert parse(cache, "X-Forwarded-Proto: https").parsed.message.scheme == "https"
    assert parse(cache, "X-Forwarded-Proto: https", ip="127.0.0.2").parsed.message.scheme == "http"


def test_cached_heads_of_chunks_and_of_clients_that_expect_100_continue_serve_each_request_afresh() -> None:
    cfg = Config()
    cfg.set("http_parser", "python")
    cache = HeadCache(cfg)
    for _ in range(2):
        reader = RequestReader(cache, ("127.0.0.1", 1), MOST)
        reader.feed(head("Expect: 100-continue", "Content-Length: 2"))
        assert reader.next_request() is None
        assert reader.take_continue_expectation()
        reader = RequestReader(cache, ("127.0.0.1", 1), MOST)
        reader.feed(chunked(b"12345", 2))
        request = reader.next_request()
        assert request is not None
        assert request.body.read() == b"12345"


def test_the_memory_for_cached_heads_is_bounded() -> None:
    cache = HeadCache(Config())
    for i in range(2 * MAX_CACHED_HEADS):
        parse(cache, f"X-Other: {i}")
    assert len(cache._cache) <= MAX_CACHED_HEADS
