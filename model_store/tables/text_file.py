"""Text files: decompressed by their first bytes and decoded by their byte order mark.

gzip, bz2 and xz are recognised whatever the name of the file is. A byte order mark decides the encoding (UTF-8 or
UTF-16); without one the text is UTF-8, or what the options say.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, TextIO

from model_store.errors import Fault, InputError

Open = Callable[[], BinaryIO]  # opens a file at its start, for reading bytes

HEAD_BYTES = 4 << 20  # of the decompressed bytes that decide how a file is read
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_COMPRESSIONS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a ZIP archive", "name a workbook .xlsx; unpack another archive"),
    (b"PAR1", "a Parquet file", "name it .parquet"),
    (b"ARROW1", "an Arrow file", "name it .arrow"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as .xlsx or CSV"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it, or compress it by gzip"),
)


def is_encoding(name: object) -> bool:
    """Return True if Python has a text encoding of this name."""
    try:
        return isinstance(name, str) and bool(b" ".decode(name, "replace"))
    except (LookupError, ValueError):
        return False


@contextmanager
def open_decompressed(open_file: Open) -> Iterator[IO[bytes]]:
    """Open a file through the decompressor that its first bytes name."""
    with open_file() as file:
        buffered = io.BufferedReader(file, 1 << 16) if isinstance(file, io.RawIOBase) else file
        start = buffered.peek(8)[:8] if hasattr(buffered, "peek") else b""
        decompress = next((made for magic, made in _COMPRESSIONS if start.startswith(magic)), None)
        if decompress is None:
            yield buffered
        else:
            with decompress(buffered) as decompressed:
                yield decompressed


def read_head(open_file: Open) -> tuple[bytes, bool]:
    """Return the first bytes of a file, and whether they are the whole file."""
    with translate_read_errors(), open_decompressed(open_file) as file:
        head = file.read(HEAD_BYTES)
        complete = len(head) < HEAD_BYTES or not file.read(1)
    for magic, found, fix in _OTHER_FORMATS:
        if head.startswith(magic):
            raise InputError([Fault("", f"expected text, found {found}", fix)])
    return head, complete


def choose_encoding(head: bytes, encoding: str | None) -> str:
    """Return the encoding of a file: that of its byte order mark, else `encoding`, else UTF-8."""
    marked = next((name for bom, name in _BOMS if head.startswith(bom)), None)
    if marked is not None and (encoding is None or codecs.lookup(encoding).name.startswith(("utf-8", "utf-16"))):
        return marked
    return encoding or "utf-8"


@contextmanager
def open_text(open_file: Open, encoding: str) -> Iterator[TextIO]:
    """Open a file as text; line ends are kept as they are."""
    with open_decompressed(open_file) as file:
        text = io.TextIOWrapper(file, encoding, newline="")
        try:
            yield text
        finally:
            text.detach()


def decode_head(head: bytes, encoding: str, *, complete: bool) -> str:
    """Return the text of the first bytes, as far as they can be decoded: the reader reports the others."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return decoder.decode(head, complete)


class EncodingError(InputError):
    """A text that is not in the encoding that it should be in."""


@contextmanager
def translate_read_errors() -> Iterator[None]:
    """Raise InputError in place of the errors of a damaged compressed file."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError([Fault("", f"cannot be read: {error}", "write the file again")]) from error


def encoding_error(error: UnicodeDecodeError, lines_read: int, encoding: str) -> EncodingError:
    """Return the error of bytes that are not in the encoding. `lines_read` were decoded before."""
    before = error.object[: error.start]
    line = lines_read + 1 + max(before.count(b"\n"), before.count(b"\r"))
    shown = encoding.removesuffix("-sig").upper()
    problem = f"expected text in {shown}, found the byte 0x{error.object[error.start]:02x}"
    fix = "save the file as UTF-8, for example: iconv -f latin1 -t utf-8; or write encoding = 'cp1252' in [data]"
    return EncodingError([Fault(f"line {line}", problem, fix)])
