"""The named cases: requests that real servers have handled wrongly."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

PRICE = b'{"instances": [[3, 80], [2, 40.5]]}'
TENSORS = orjson.dumps({"inputs": [{"name": "pixels", "shape": [1, 2, 2], "datatype": "FP32", "data": [0, 1, 2, 3]}]})
PENGUIN = b'{"instances": [{"island": "Biscoe", "mass": 4200, "sex": null}]}'
GOOD = [
    ("/models/price/predict", PRICE),
    ("/predict", b'{"model": "penguins", ' + PENGUIN[1:]),
    ("/models/image/versions/1/predict", b'{"instances": [[[0, 1], [2, 3]]]}'),
    ("/v1/models/price:predict", PRICE),
    ("/v2/models/image/infer", TENSORS),
    ("/v2/models/image/versions/1/infer", TENSORS),
]
PATHS = [path for path, _ in GOOD] + ["/invocations", "/v2/repository/index", "/v2/repository/models/price/load"]
SMUGGLED = b"GET /models HTTP/1.1\r\nHost: here\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """Bytes to send before the connection ends. `cut`: the body is shorter than announced."""

    name: str
    request: bytes
    cut: bool = False
    max_responses: int | None = None
    pieces: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.pieces:
            self.pieces.append(self.request)


def head(path: str, *lines: bytes, method: bytes = b"POST") -> bytes:
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, path.encode()), b"Host: here", *lines, b"", b""])


def sized(path: str, body: bytes, *lines: bytes) -> bytes:
    return head(path, b"Content-Length: %d" % len(body), *lines) + body


def named() -> Iterator[Case]:
    for path in PATHS:
        for name, body in bodies():
            yield Case(f"{path}: {name}", sized(path, body))
        for name, body, coding in packed():
            yield Case(f"{path}: {name}", sized(path, body, b"Content-Encoding: " + coding))
    for path, body in GOOD:
        for short in (1, len(body) // 2, len(body)):
            yield Case(f"{path}: {short} bytes too few", sized(path, body)[:-short], cut=True)
        chunk = b"%x\r\n%b" % (len(body), body)
        yield Case(f"{path}: no last chunk", head(path, b"Transfer-Encoding: chunked") + chunk + b"\r\n", cut=True)
        yield Case(f"{path}: half a chunk", head(path, b"Transfer-Encoding: chunked") + chunk[:-5], cut=True)
        slow = sized(path, body)
        yield Case(f"{path}: a byte at a time", slow, pieces=[slow[i : i + 1] for i in range(len(slow))])
    for name, request in smuggling():
        yield Case(f"smuggling: {name}", request, max_responses=1)
    for name, request in heads():
        yield Case(f"head: {name}", request)


def bodies() -> Iterator[tuple[str, bytes]]:
    row = b'{"instances": [[3, %b]]}'
    for number in (b"NaN", b"-NaN", b"nan", b"Infinity", b"-Infinity", b"inf", b"1e999", b"-1e999", b"1e39", b"-1e39"):
        yield f"the number {number.decode()}", row % number
    for number in (
        b"01",
        b"+1",
        b".5",
        b"5.",
        b"0x10",
        b"1_000",
        b"1e",
        b"--1",
        b"1" + b"0" * 5000,
        b"0." + b"1" * 9999,
    ):
        yield f"the number {number[:8].decode()}", row % number
    for text in (
        b'"NaN"',
        b'"1"',
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\xff"',
        b"null",
        b"true",
        b"{}",
        b"[]",
        b"[[1]]",
    ):
        yield f"instead of a number {text!r}", row % text
    yield "nothing", b""
    yield "white space", b" \r\n\t"
    yield "a byte order mark", b"\xef\xbb\xbf" + PRICE
    yield "UTF-16", PRICE.decode().encode("utf-16")
    yield "zero bytes", b"\0" * 100
    yield "something behind the JSON", PRICE + b"]"
    yield "Python", b"{'instances': [(1, 2)]}"
    yield "a comment", b'{"instances": [[1, 2]] /* rows */}'
    for value in (b"null", b"true", b"0", b'"text"', b"[]", b"{}", b"[[1, 2]]", b'[{"instances": []}]'):
        yield f"instead of an object {value.decode()}", value
        for key in (b"instances", b"inputs", b"model", b"version", b"parameters", b"outputs"):
            yield f"{key.decode()} is {value.decode()}", b'{"%b": %b, "instances": [[1, 2]]}' % (key, value)
    for depth in (100, 1000, 100_000):
        yield f"{depth} brackets", b"[" * depth
        yield f"{depth} arrays in one another", b'{"instances": ' + b"[" * depth + b"]" * depth + b"}"
        yield f"{depth} objects in one another", b'{"a":' * depth + b"1" + b"}" * depth
    yield "one key twice", b'{"instances": [[1, 2]], "instances": [[3]]}'
    yield "100,000 unknown keys", b"{" + b",".join(b'"k%d":1' % i for i in range(100_000)) + b"}"
    yield "a key of a megabyte", b'{"%b": 1}' % (b"k" * 10**6)
    yield "a text of a megabyte", row % (b'"' + b"x" * 10**6 + b'"')
    yield "100,000 rows", b'{"instances": [' + b",".join([b"[1,2]"] * 100_000) + b"]}"
    yield "100,000 faults", b'{"instances": [' + b",".join([b'[1,"a"]'] * 9_999) + b"]}"
    yield "8 MB of numbers", b'{"instances": [[' + b"1.5," * (2 * 2**20 - 10) + b"1]]}"
    yield "8 MB of text", b'{"instances": ["' + b"x" * (8 * 2**20 - 40) + b'"]}'
    yield "a row of 100,000", b'{"instances": [[' + b",".join([b"1"] * 100_000) + b"]]}"
    yield "rows of every kind", b'{"instances": [[1, 2], {"rooms": 1}, 3, null, "x", [[1, 2]], {}, []]}'
    yield "ragged rows", b'{"instances": [[1, 2], [1], [1, 2, 3]]}'
    yield "a path for a model", b'{"model": "../../etc/passwd", "instances": [[1, 2]]}'
    yield "a URL for a model", b'{"model": "http://127.0.0.1/x", "instances": [[1, 2]]}'
    yield "a huge version", b'{"version": 99999999999999999999999999, "instances": [[1, 2]]}'
    yield "a negative version", b'{"version": -1, "instances": [[1, 2]]}'
    yield "a wrong shape", TENSORS.replace(b"[1,2,2]", b"[1000000000,1000000000]")
    yield "a negative shape", TENSORS.replace(b"[1,2,2]", b"[-1,2,2]")
    yield "an unknown datatype", TENSORS.replace(b"FP32", b"FP128")


def packed() -> Iterator[tuple[str, bytes, bytes]]:
    """Bodies that are announced as compressed."""
    bomb = zlib.compressobj(9, wbits=31)
    noughts = b"".join([bomb.compress(bytes(1 << 20)) for _ in range(200)]) + bomb.flush()
    yield "a bomb of 200 MB", noughts, b"gzip"
    yield "a bomb in a bomb", gzip.compress(noughts), b"gzip"
    yield "a bomb of numbers", gzip.compress(b'{"instances": [[' + b"1," * 3_500_000 + b"1]]}"), b"gzip"
    yield "a bomb of brackets", gzip.compress(b"[" * 10**7), b"gzip"
    yield "gzip cut short", gzip.compress(PRICE)[:-9], b"gzip"
    yield "gzip and more", gzip.compress(PRICE) + b"more", b"gzip"
    yield "not gzip at all", PRICE, b"gzip"
    yield "raw deflate", zlib.compress(PRICE, wbits=-15), b"deflate"
    yield "an unknown coding", PRICE, b"br"
    yield "codings in one another", gzip.compress(gzip.compress(PRICE)), b"gzip, gzip"


def smuggling() -> Iterator[tuple[str, bytes]]:
    """Requests that a proxy and a server might split differently. None may get two responses."""
    path, size, chunked = "/models/price/predict", b"Content-Length: %d", b"Transfer-Encoding: chunked"
    last = b"0\r\n\r\n" + SMUGGLED
    both = len(last)
    yield "length and chunks", head(path, size % both, chunked) + last
    yield "chunks and length", head(path, chunked, size % both) + last
    yield "two lengths", head(path, size % 0, size % len(SMUGGLED)) + SMUGGLED
    yield "two lengths in one", head(path, b"Content-Length: 0, %d" % len(SMUGGLED)) + SMUGGLED
    for length in (
        b"+5",
        b"-5",
        b"0x5",
        b"5_0",
        b"5 5",
        b"5,",
        b"",
        b"\x0b5",
        b"5\x00",
        b"1e1",
        b"\xd9\xa5",
        b"9" * 40,
    ):
        yield f"the length {length[:10]!r}", head(path, b"Content-Length: " + length) + SMUGGLED
    for coding in (b"xchunked", b"chunked, chunked", b"chunked, identity", b"gzip, chunked, x"):
        yield f"the coding {coding.decode()}", head(path, b"Transfer-Encoding: " + coding) + last
    for line in (b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked"):
        yield f"the line {line!r}", head(path, size % both, line) + last
    for line in (
        b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding: chunked\x00",
        b"X: a\rTransfer-Encoding: chunked",
    ):
        yield f"the line {line!r}", head(path, size % both, line) + last
    yield "a folded line", head(path, b"X: a\r\n Content-Length: 5") + SMUGGLED
    yield "a bare line feed", head(path, b"X: a\nTransfer-Encoding: chunked") + last
    yield "an underscore", head(path, b"Content_Length: 5", size % len(SMUGGLED)) + SMUGGLED
    yield "chunks of HTTP/1.0", head(path, chunked).replace(b"1.1", b"1.0", 1) + last
    for chunk in (b"5;a\r\nhello\r\n", b"5 \r\nhello\r\n", b"0x5\r\nhello\r\n", b"+5\r\nhello\r\n", b"5\nhello\r\n"):
        yield f"the chunk {chunk!r}", head(path, chunked) + chunk + b"0\r\nX: y\r\n"
    for chunk in (
        b"5\r\nhelloX\r\n",
        b"5\r\nhello",
        b"ffffffffffffffff\r\nhello\r\n",
        b"-1\r\n",
        b"5;\x00\r\nhello\r\n",
    ):
        yield f"the chunk {chunk!r}", head(path, chunked) + chunk + last


def heads() -> Iterator[tuple[str, bytes]]:
    get = "/models"
    yield "nothing", b""
    yield "half a line", b"GET /mod"
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
    yield "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "HTTP/0.9", b"GET /models\r\n\r\n"
    yield "HTTP/9.9", b"GET /models HTTP/9.9\r\n\r\n"
    yield "no host", b"GET /models HTTP/1.1\r\n\r\n"
    yield "two hosts", head(get, b"Host: there", method=b"GET")
    for method in (b"get", b"G\x00T", b"GET ", b"X" * 100, b"CONNECT", b"TRACE", b"OPTIONS", b"HEAD", b"PUT", b"(GET)"):
        yield f"the method {method[:10]!r}", head(get, method=method)
    for target in (
        "*",
        "//",
        "/../../etc/passwd",
        "/%00",
        "/%",
        "/%ff",
        "/models/%2e%2e/x",
        "http://there/models",
        "?",
        "#",
    ):
        yield f"the target {target}", head(target, method=b"GET")
    yield "a target of 100 kB", head("/" + "x" * 100_000, method=b"GET")
    yield "a target of zero bytes", b"GET /\x00\x00 HTTP/1.1\r\nHost: here\r\n\r\n"
    yield "a line of 100 kB", head(get, b"X: " + b"x" * 100_000, method=b"GET")
    yield "10,000 lines", head(get, *[b"X: y"] * 10_000, method=b"GET")
    yield "a line without a colon", head(get, b"nonsense", method=b"GET")
    yield "a nameless line", head(get, b": x", method=b"GET")
    yield "an expectation", head(get, b"Expect: miracles", b"Content-Length: 1") + b"x"
    yield "a huge body announced", head("/predict", b"Content-Length: 99999999999999")
    yield "an upgrade", head(get, b"Connection: Upgrade", b"Upgrade: websocket", method=b"GET")
    yield "an odd id", head(get, b"X-Request-Id: " + b"\xe9\x80" * 100, method=b"GET")
    yield "an odd trace", head(get, b"traceparent: 00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-zz", method=b"GET")
    yield "a script name", head(get, b"Script-Name: /x", b"SCRIPT_NAME: /y", method=b"GET")
    yield "an invalid key", head(get, b"Authorization: Bearer " + b"x" * 4000, method=b"GET")
