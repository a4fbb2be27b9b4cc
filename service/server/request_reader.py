"""Requests as they arrive: bytes go in, and a request comes out once all of it is there.

gunicorn's own parser reads the head, with all that it knows about smuggled and malformed ones; how long the body is,
is then the head's word and nothing else. A body that ends early, or whose chunks are not well-formed, comes out too:
the application is handed what there is, finds it short or cannot read it, and answers so in its own words.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gunicorn.http.body import ChunkedReader, LengthReader  # type: ignore[import-untyped]
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.unreader import IterUnreader  # type: ignore[import-untyped]

MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 1024  # of a chunk's size and extensions
MAX_TRAILER_BYTES = 16 * 1024
CHUNKS_PER_READ = 32  # that are read at once: one takes 2 µs, and 512 kB may have 87,000
MAX_CACHED_HEADS, MAX_CACHED_HEAD_BYTES = 512, 2048

_CHUNK_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class HeadTooLargeError(Exception):
    """The head of a request has grown beyond all reason."""


class MalformedBodyError(OSError):
    """The body is not well-formed, or has ended before its end."""


@dataclass(slots=True)
class BufferedRequest:
    """A complete request.

    `broken` says why its body is incomplete or malformed. `framing_lost`: where the next request on this connection
    would begin is unknown. `abandoned`: the client already has an error response.
    """

    head: Any
    content: bytes | bytearray
    framing_lost: bool = False
    broken: str = ""
    abandoned: bool = False

    @property
    def body(self) -> io.RawIOBase | io.BytesIO:
        """The body, to be read."""
        if self.broken:
            return _UnreadableBody(self.broken)
        self.content = bytes(self.content)  # which BytesIO hands on as they are, where it would copy a bytearray
        return io.BytesIO(self.content)

    @property
    def closes_connection(self) -> bool:
        """Whether nothing may follow on the connection."""
        return bool(self.framing_lost or self.head.should_close())


class HeadCache:
    """Heads of requests, parsed by gunicorn. A client's are mostly alike, and gunicorn takes 20 to 40 µs for one.

    A head that is given out again was only read: what a request changes of its own (chunks that are read through it,
    leave that is asked to send a body) keeps it from being kept.
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._cache: dict[tuple[str, bytes], Any] = {}

    def parse(self, text: bytes, peer: Any, count: int) -> Any:
        """gunicorn's request, with the bytes that it `holds`, and those `announced` of its body, None of one in chunks.

        gunicorn's errors where the head is not to be taken.
        """
        key = peer[0] if isinstance(peer, tuple) else "", text
        head = self._cache.get(key)
        if head is None:
            head = Request(self._cfg, IterUnreader([text]), peer, count)
            head.content_length = _content_length(head.body.reader)
            head.memory_bytes = 2 * len(text)  # as it came, and as the fields that were made of it
            if (
                head.content_length is not None
                and not head._expected_100_continue
                and len(text) <= MAX_CACHED_HEAD_BYTES
            ):
                if len(self._cache) >= MAX_CACHED_HEADS:
                    self._cache.clear()
                self._cache[key] = head
        return head


def _content_length(reader: Any) -> int | None:
    if isinstance(reader, ChunkedReader):
        return None
    if isinstance(reader, LengthReader):
        return int(reader.length)
    raise TypeError(f"expected a body of known length, found {reader}")  # pragma: no cover - gunicorn knows no third


class RequestReader:
    """What a connection has sent and no request has claimed yet."""

    def __init__(self, head_cache: HeadCache, peer: Any, max_body_bytes: int) -> None:
        self.buffer: bytes | bytearray = b""  # bytes while they are of one piece: most requests are
        self.at_end = False  # the client will send no more
        self.head: Any = None  # of a request whose body is on its way
        self._head_cache, self._peer, self._max_body_bytes = head_cache, peer, max_body_bytes
        self._searched = 0
        self._chunks: _ChunkDecoder | None = None
        self._request_number = 0

    def feed(self, data: bytes) -> None:
        if not data:
            self.at_end = True
        elif self.buffer:
            self._growable_buffer().extend(data)
        else:
            self.buffer = data

    def discard(self) -> None:
        """Lets go of what has come: the connection takes no further request."""
        self.buffer = b""
        self.head, self._chunks = None, None

    @property
    def buffered_bytes(self) -> int:
        """Bytes of memory that wait for more."""
        head = self.head.memory_bytes if self.head is not None else 0
        return head + len(self.buffer) + (len(self._chunks.body) if self._chunks else 0)

    def take_continue_expectation(self) -> bool:
        """Whether the client waits for leave to send its body. True once a request."""
        expected = self.head is not None and self.head._expected_100_continue
        if expected:
            self.head._expected_100_continue = False
        return bool(expected)

    @property
    def has_more(self) -> bool:
        """Whether `next` has read enough for once, and would read on in what is here."""
        return self._chunks is not None and self._chunks.has_more

    def next_request(self) -> BufferedRequest | None:
        """The next request, or None while it is not whole, or `has_more` of it is to be read.

        gunicorn's errors (`gunicorn.http.errors`) where the head is not to be taken, HeadTooLargeError where it does
        not end. After an error the connection is of no further use.
        """
        if self.head is None and not self._parse_head():
            return None
        body = self._parse_body()
        if body is not None:
            self.head, self._chunks = None, None
        return body

    def _parse_head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self.buffer)
            if len(self.buffer) > MAX_HEAD_BYTES:
                raise HeadTooLargeError(f"expected a head of at most {MAX_HEAD_BYTES} bytes")
            return False
        self._searched = 0
        self._request_number += 1
        self.head = self._head_cache.parse(bytes(self._pop(end + 4)), self._peer, self._request_number)
        if self.head.content_length is None:
            self._chunks = _ChunkDecoder()
        return True

    def _parse_body(self) -> BufferedRequest | None:
        if self._chunks is not None:
            try:
                whole = self._chunks.decode(self._growable_buffer(), self._max_body_bytes)
            except MalformedBodyError as e:
                return BufferedRequest(self.head, b"", framing_lost=True, broken=str(e))
            if not whole and self.at_end and not self.has_more:
                return BufferedRequest(self.head, b"", framing_lost=True, broken="it ended before its last chunk")
            too_large = len(self._chunks.body) > self._max_body_bytes
            return BufferedRequest(self.head, self._chunks.body, framing_lost=too_large) if whole or too_large else None
        length = self.head.content_length
        if length > self._max_body_bytes:  # the application refuses it by its length alone
            return BufferedRequest(self.head, b"", framing_lost=True)
        came = len(self.buffer)
        if came < length and not self.at_end:
            return None
        if came > length:
            self._growable_buffer()  # many requests in one piece: of bytes, each would copy all that follow it
        return BufferedRequest(self.head, self._pop(length), framing_lost=came < length)

    def _pop(self, count: int) -> bytes | bytearray:
        """So many bytes from the beginning of the buffer, or all."""
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
        """The buffer, as one that can grow."""
        if isinstance(self.buffer, bytes):
            self.buffer = bytearray(self.buffer)
        return self.buffer


class _ChunkDecoder:
    """A chunked body (RFC 9112, section 7.1), decoded as it comes. Trailers are read and dropped."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.has_more = False  # may be at hand than was taken
        self._left = 0  # bytes of the present chunk still to come
        self._trailers = 0
        self._state: _DecoderState | None = self._size

    def decode(self, buffer: bytearray, most: int) -> bool:
        """Move up to `CHUNKS_PER_READ` chunks from `buffer` to `body`; stop when `body` exceeds `most` bytes.

        True when the last chunk was read.
        """
        self.has_more = False
        for _ in range(3 * CHUNKS_PER_READ):
            if self._state is None or len(self.body) > most:
                return self._state is None
            if not self._state(buffer):
                return False
        self.has_more = True
        return False

    # Each state takes its part of the buffer and says what comes next; False when there is not enough of it yet.

    def _size(self, buffer: bytearray) -> bool:
        line = _pop_line(buffer)
        if line is None:
            return False
        found = _CHUNK_SIZE_LINE.fullmatch(line)
        if found is None:
            raise MalformedBodyError(f"expected the size of a chunk, found {line[:40]!r}")
        self._left = int(found[1], 16)
        self._state = self._data if self._left else self._trailer
        return True

    def _data(self, buffer: bytearray) -> bool:
        taken = min(self._left, len(buffer))
        self.body += buffer[:taken]
        del buffer[:taken]
        self._left -= taken
        if self._left:
            return False
        self._state = self._end
        return True

    def _end(self, buffer: bytearray) -> bool:
        if len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise MalformedBodyError(f"expected the end of a chunk, found {bytes(buffer[:20])!r}")
        del buffer[:2]
        self._state = self._size
        return True

    def _trailer(self, buffer: bytearray) -> bool:
        line = _pop_line(buffer)
        if line is None:
            return False
        self._trailers += len(line)
        if line and (b":" not in line or self._trailers > MAX_TRAILER_BYTES):
            raise MalformedBodyError(f"expected a trailer or the end of the body, found {line[:40]!r}")
        self._state = self._trailer if line else None
        return True


_DecoderState = Callable[[bytearray], bool]


def _pop_line(buffer: bytearray) -> bytes | None:
    """The first line, taken from the buffer; None while it is not whole."""
    end = buffer.find(b"\r\n", 0, MAX_CHUNK_LINE_BYTES)
    start = bytes(buffer[: MAX_CHUNK_LINE_BYTES if end < 0 else end])
    if b"\n" in start or b"\r" in start.removesuffix(b"\r") or (end < 0 and len(start) == MAX_CHUNK_LINE_BYTES):
        raise MalformedBodyError(f"expected a line that ends in CR LF, found {start[:40]!r}")
    if end < 0:
        return None
    del buffer[: end + 2]
    return start


class _UnreadableBody(io.RawIOBase):
    """A body that cannot be read."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def read(self, size: int = -1, /) -> bytes:
        raise MalformedBodyError(self._reason)

    def readable(self) -> bool:
        return True
