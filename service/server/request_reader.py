"""The request reader: bytes go in, complete requests come out.

gunicorn's parser reads the head, with its checks for smuggled and malformed requests; the head alone determines the
length of the body. A body that ends early, or whose chunks are malformed, comes out as well: the application finds it
incomplete or unreadable, and returns its own error.
"""

from __future__ import annotations

import io
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.server.gunicorn_compat import ParsedHead

MAX_HEAD_BYTES = 64 * 1024
MAX_REQUEST_LINE_BYTES = 8 * 1024  # gunicorn's limit is lower
MAX_CHUNK_LINE_BYTES = 1024  # of a chunk's size and extensions
MAX_TRAILER_BYTES = 16 * 1024
CHUNKS_PER_READ = 32  # one takes 2 µs, and 512 kB may contain 87,000
MAX_CACHED_HEADS, MAX_CACHED_HEAD_BYTES = 512, 2048

# Fields that differ from request to request, or that no cache should keep.
UNCACHED_HEADERS = frozenset({"AUTHORIZATION", "TRACEPARENT", "TRACESTATE", "X-REQUEST-ID"})
# A plain one: visible ASCII without the white space around it, and no folded line after it.
_UNCACHED_LINE = re.compile(
    rb"\r\n(authorization|trace(?:parent|state)|x-request-id):[ \t]*([!-~](?:[ -~]*[!-~])?)[ \t]*(?=\r\n[^ \t])",
    re.IGNORECASE,
)
_TLS_HANDSHAKE = b"\x16\x03"  # the record type and major version of a ClientHello
_METHOD_BYTES = frozenset(b"!#$%&'*+-.^_`|~" + string.ascii_letters.encode() + string.digits.encode())  # RFC 9110
_VERSION_AT_END = re.compile(rb" HTTP/\d\.\d$")
_CHUNK_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class HeadTooLargeError(Exception):
    """The head of a request exceeds `MAX_HEAD_BYTES`."""


class NotHttpError(Exception):
    """What a client has sent so far is not the beginning of a request, such as a TLS handshake."""


class MalformedBodyError(OSError):
    """The body is malformed or incomplete."""


class RequestHead:
    """The head of a request: `parsed`, which other requests may share, and its own fields in `uncached_headers`.

    `uncached_headers` has those of `UNCACHED_HEADERS` that were sent, by their names in upper case.
    """

    __slots__ = ("parsed", "path", "size", "uncached_headers")

    def __init__(self, parsed: ParsedHead, uncached_headers: Mapping[str, str], size: int) -> None:
        self.parsed, self.uncached_headers, self.size = parsed, uncached_headers, size
        self.path = parsed.path

    @property
    def method(self) -> str:
        return self.parsed.method

    @property
    def uri(self) -> str:
        return self.parsed.uri


@dataclass(slots=True)
class BufferedRequest:
    """A complete request.

    `broken` says why its body is incomplete or malformed. `framing_lost`: where the next request on this connection
    would begin is unknown. `abandoned`: the client already has an error response.
    """

    head: RequestHead
    content: bytes | bytearray
    framing_lost: bool = False
    broken: str = ""
    abandoned: bool = False

    @property
    def body(self) -> io.RawIOBase | io.BytesIO:
        """The body as a stream."""
        if self.broken:
            return _UnreadableBody(self.broken)
        self.content = bytes(self.content)  # BytesIO shares bytes, and would copy a bytearray
        return io.BytesIO(self.content)

    @property
    def closes_connection(self) -> bool:
        """True if no request may follow on the connection."""
        return self.framing_lost or not self.head.parsed.keep_alive


class HeadCache:
    """Parsed heads, by their text without `UNCACHED_HEADERS`. A client's heads are mostly equal but for those.

    gunicorn takes 20 to 40 µs to parse a head, about a third of what the fast path takes for a request.
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._cache: dict[tuple[str, bytes], RequestHead] = {}

    def parse(self, text: bytes, peer: Any, number: int) -> RequestHead:
        """Parse a head that ends in an empty line; `ParseError` if it is invalid.

        `peer` is part of the key: gunicorn believes X-Forwarded-Proto of some addresses only.
        """
        client_ip = peer[0] if isinstance(peer, tuple) else ""
        head = self._cache.get((client_ip, text))
        if head is not None:
            return head
        if len(text) > MAX_CACHED_HEAD_BYTES or text.startswith(b"\r"):
            return self._parse_uncached(text, peer, number)
        lines = _UNCACHED_LINE.findall(text)
        shared = _UNCACHED_LINE.sub(b"", text) if lines else text
        head = self._cache.get((client_ip, shared))
        if head is None:
            parsed = ParsedHead.parse(self._cfg, shared, peer, number)
            if not UNCACHED_HEADERS.isdisjoint(name for name, _ in parsed.headers):  # one that is not plain
                return self._parse_uncached(text, peer, number)
            if len(self._cache) >= MAX_CACHED_HEADS:
                self._cache.clear()
            self._cache[client_ip, shared] = head = RequestHead(parsed, {}, len(shared))
        if not lines:
            return head
        uncached_headers = {name.decode().upper(): value.decode() for name, value in lines}
        if len(uncached_headers) < len(lines):  # a field was sent twice: gunicorn joins the values
            return self._parse_uncached(text, peer, number)
        return RequestHead(head.parsed, uncached_headers, len(text))

    def _parse_uncached(self, text: bytes, peer: Any, number: int) -> RequestHead:
        parsed = ParsedHead.parse(self._cfg, text, peer, number)
        uncached_headers = {name: value for name, value in parsed.headers if name in UNCACHED_HEADERS}
        return RequestHead(parsed, uncached_headers, len(text))


class RequestReader:
    """The input of a connection that belongs to no complete request yet."""

    def __init__(self, head_cache: HeadCache, peer: Any, max_body_bytes: int) -> None:
        self.buffer: bytes | bytearray = b""  # bytes while they are of one piece: most requests are
        self.at_end = False  # the client will send no more
        self.head: RequestHead | None = None  # of a request whose body is incomplete
        self._head_cache, self._peer, self._max_body_bytes = head_cache, peer, max_body_bytes
        self._searched = 0
        self._chunks: _ChunkDecoder | None = None
        self._request_number = 0
        self._continue_expected = False

    def feed(self, data: bytes) -> None:
        """Add received bytes; no bytes mean that the client has ended its side."""
        if not data:
            self.at_end = True
        elif self.buffer:
            self._growable_buffer().extend(data)
        else:
            self.buffer = data

    def discard(self) -> None:
        """Free the input: the connection takes no further request."""
        self.buffer = b""
        self.head, self._chunks = None, None

    @property
    def buffered_bytes(self) -> int:
        """The memory that incomplete input takes."""
        head = 2 * self.head.size if self.head is not None else 0  # as text, and as the fields made of it
        return head + len(self.buffer) + (len(self._chunks.body) if self._chunks else 0)

    def take_continue_expectation(self) -> bool:
        """True, once a request, if the client waits for 100 Continue before it sends the body."""
        expected = self._continue_expected and self.head is not None
        if expected:
            self._continue_expected = False
        return expected

    @property
    def has_more(self) -> bool:
        """True if `next_request` stopped after `CHUNKS_PER_READ` and has more to decode."""
        return self._chunks is not None and self._chunks.has_more

    def next_request(self) -> BufferedRequest | None:
        """Return the next request, or None while it is incomplete or `has_more`.

        `ParseError`, `HeadTooLargeError` or `NotHttpError` for an invalid head, after which the connection cannot be
        read further.
        """
        head = self.head or self._parse_head()
        if head is None:
            return None
        request = self._parse_body(head)
        if request is not None:
            self.head, self._chunks = None, None
        return request

    def _parse_head(self) -> RequestHead | None:
        end = self.buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self.buffer)
            _check_request_start(bytes(self.buffer[:MAX_REQUEST_LINE_BYTES]))
            if len(self.buffer) > MAX_HEAD_BYTES:
                raise HeadTooLargeError(f"expected a head of at most {MAX_HEAD_BYTES} bytes")
            return None
        self._searched = 0
        self._request_number += 1
        self.head = self._head_cache.parse(bytes(self._pop(end + 4)), self._peer, self._request_number)
        self._continue_expected = self.head.parsed.expects_continue
        if self.head.parsed.content_length is None:
            self._chunks = _ChunkDecoder()
        return self.head

    def _parse_body(self, head: RequestHead) -> BufferedRequest | None:
        if self._chunks is not None:
            return self._parse_chunks(head, self._chunks)
        length = head.parsed.content_length or 0
        if length > self._max_body_bytes:  # the application rejects it by its length alone
            return BufferedRequest(head, b"", framing_lost=True)
        received = len(self.buffer)
        if received < length and not self.at_end:
            return None
        if received > length:
            self._growable_buffer()  # many requests in one piece: as bytes, each would copy all that follow
        return BufferedRequest(head, self._pop(length), framing_lost=received < length)

    def _parse_chunks(self, head: RequestHead, chunks: _ChunkDecoder) -> BufferedRequest | None:
        try:
            complete = chunks.decode(self._growable_buffer(), self._max_body_bytes)
        except MalformedBodyError as e:
            return BufferedRequest(head, b"", framing_lost=True, broken=str(e))
        if not complete and self.at_end and not self.has_more:
            return BufferedRequest(head, b"", framing_lost=True, broken="it ended before its last chunk")
        too_large = len(chunks.body) > self._max_body_bytes
        return BufferedRequest(head, chunks.body, framing_lost=too_large) if complete or too_large else None

    def _pop(self, count: int) -> bytes | bytearray:
        """Take up to `count` bytes from the start of the buffer."""
        buffer = self.buffer
        if count >= len(buffer):
            self.buffer = b""
            return buffer
        if isinstance(buffer, bytes):
            self.buffer = buffer[count:]
            return buffer[:count]
        taken = bytes(buffer[:count])
        del buffer[:count]
        return taken

    def _growable_buffer(self) -> bytearray:
        """Return the buffer as one that can grow."""
        if isinstance(self.buffer, bytes):
            self.buffer = bytearray(self.buffer)
        return self.buffer


def _check_request_start(start: bytes) -> None:
    """Raise NotHttpError if no request begins with these bytes: its client would wait for the read deadline."""
    line, end, _ = start.lstrip(b"\r\n").partition(b"\r\n")
    if line.startswith(_TLS_HANDSHAKE):
        raise NotHttpError(
            "expected plain HTTP, found a TLS handshake; use http://, or put a proxy that ends TLS before the service"
        )
    expected = "expected a request such as GET / HTTP/1.1, found a"  # what was found may hold a key
    if line and line[0] not in _METHOD_BYTES:
        raise NotHttpError(f"{expected} first byte of {line[0]:#04x}")
    feed = start.find(b"\n")
    if feed == 0 or (feed > 0 and start[feed - 1 : feed] != b"\r"):
        raise NotHttpError("expected lines that end in CR LF, found one that ends in LF alone")
    if line and end and not _VERSION_AT_END.search(line):
        raise NotHttpError(f"{expected} line of {len(line)} bytes without a version at its end")


# Fields of framing, routing and authentication may not be trailers (RFC 9110, 6.5.1).
_FORBIDDEN_TRAILERS = frozenset(
    b"authorization connection content-encoding content-length content-range content-type cookie expect host".split()
    + b"origin te trailer transfer-encoding upgrade x-forwarded-prefix x-forwarded-proto".split()
)


class _ChunkDecoder:
    """Decodes a chunked body (RFC 9112, section 7.1) as it arrives; reads trailers and drops them."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.has_more = False
        self._left = 0  # bytes missing of the current chunk
        self._trailers = 0
        self._state: _DecoderState | None = self._read_chunk_size

    def decode(self, buffer: bytearray, max_bytes: int) -> bool:
        """Move up to `CHUNKS_PER_READ` chunks from `buffer` to `body`; stop when `body` exceeds `max_bytes`.

        True when the last chunk was read.
        """
        self.has_more = False
        for _ in range(3 * CHUNKS_PER_READ):
            if self._state is None or len(self.body) > max_bytes:
                return self._state is None
            if not self._state(buffer):
                return False
        self.has_more = True
        return False

    # Each state consumes its part of the buffer and sets the next state; False if that part is incomplete.

    def _read_chunk_size(self, buffer: bytearray) -> bool:
        line = _pop_line(buffer)
        if line is None:
            return False
        found = _CHUNK_SIZE_LINE.fullmatch(line)
        if found is None:
            raise MalformedBodyError(f"expected the size of a chunk, found another line of {len(line)} bytes")
        self._left = int(found[1], 16)
        self._state = self._read_chunk_data if self._left else self._read_trailer
        return True

    def _read_chunk_data(self, buffer: bytearray) -> bool:
        taken = min(self._left, len(buffer))
        self.body += buffer[:taken]
        del buffer[:taken]
        self._left -= taken
        if self._left:
            return False
        self._state = self._read_chunk_end
        return True

    def _read_chunk_end(self, buffer: bytearray) -> bool:
        if len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise MalformedBodyError("expected the end of a chunk, found more data")
        del buffer[:2]
        self._state = self._read_chunk_size
        return True

    def _read_trailer(self, buffer: bytearray) -> bool:
        line = _pop_line(buffer)
        if line is None:
            return False
        self._trailers += len(line)
        if line.partition(b":")[0].strip().lower() in _FORBIDDEN_TRAILERS:
            raise MalformedBodyError("expected trailers that change nothing of the request, found another one")
        if line and (b":" not in line or self._trailers > MAX_TRAILER_BYTES):
            raise MalformedBodyError(f"expected a trailer or the end of the body, found {len(line)} other bytes")
        self._state = self._read_trailer if line else None
        return True


_DecoderState = Callable[[bytearray], bool]


def _pop_line(buffer: bytearray) -> bytes | None:
    """Take the first line from the buffer; None while it is incomplete."""
    end = buffer.find(b"\r\n", 0, MAX_CHUNK_LINE_BYTES)
    start = bytes(buffer[: MAX_CHUNK_LINE_BYTES if end < 0 else end])
    if b"\n" in start or b"\r" in start.removesuffix(b"\r") or (end < 0 and len(start) == MAX_CHUNK_LINE_BYTES):
        raise MalformedBodyError("expected a line of a chunked body that ends in CR LF")
    if end < 0:
        return None
    del buffer[: end + 2]
    return start


class _UnreadableBody(io.RawIOBase):
    """A stream that raises instead of reading."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def read(self, size: int = -1, /) -> bytes:
        raise MalformedBodyError(self._reason)

    def readable(self) -> bool:
        return True
