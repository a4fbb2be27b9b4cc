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
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO

from model_store.errors import Fault, InputError

Open = Callable[[], BinaryIO]  # opens a file at its start, for reading bytes

FILE_NULL = r"\N"  # a missing value in the files of databases
MAX_LINE_CHARACTERS = 1 << 26  # of a file: 3 MB of gzip can hold a line of 3 GB
MAX_BLANK_LINES = 1_000_000  # one after the other: 1.5 kB of bz2 can hold 2 GB of them
HEAD_BYTES = 1 << 20  # of the decompressed bytes that decide how a file is read
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


class FileOpener:
    """Opens a file for each reading. The first bytes of a pipe are kept, so that two readings of them are possible.

    "-" is standard input.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._head: bytes | None = None

    def __call__(self) -> BinaryIO:
        if self._path != "-" and Path(self._path).is_file():
            self._file = file = Path(self._path).open("rb")  # noqa: SIM115 - the caller closes it
            return file
        if self._head is None:
            self._file = sys.stdin.buffer if self._path == "-" else Path(self._path).open("rb")  # noqa: SIM115
            self._head = self._file.read(2 * HEAD_BYTES)
        return io.BufferedReader(_Chained(self._head, self._file))

    def position(self) -> int:
        """Return the number of bytes of a regular file that were read."""
        return 0 if self._file is None or self._file.closed or self._head is not None else self._file.tell()


class _Chained(io.RawIOBase):
    """The bytes `head`, then those of a file."""

    def __init__(self, head: bytes, rest: IO[bytes] | None) -> None:
        self._head, self._rest = io.BytesIO(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._head.read(len(buffer)) or (b"" if self._rest is None else self._rest.read(len(buffer)))
        buffer[: len(found)] = found
        return len(found)


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


def is_compressed_text(open_file: Open) -> bool:
    """Return True if the first bytes of a file name a decompressor."""
    with open_file() as file:
        start = file.read(8)
    return any(start.startswith(magic) for magic, _ in _COMPRESSIONS)


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


def read_lines(text: TextIO) -> Iterator[str]:
    """Yield the lines of a text. InputError if one is too long to be a row, or if too many in succession are blank."""
    number = blank = 0
    while line := text.readline(MAX_LINE_CHARACTERS):
        number += 1
        if len(line) == MAX_LINE_CHARACTERS and not line.endswith(("\n", "\r")):
            problem = f"expected a line of at most {MAX_LINE_CHARACTERS} characters, found a longer one"
            raise InputError([Fault(f"line {number}", problem, "write each row on a line of its own")])
        blank = blank + 1 if line[0] in " \r\n" and not line.strip(" \r\n") else 0
        if blank > MAX_BLANK_LINES:
            problem = f"expected at most {MAX_BLANK_LINES} blank lines in succession, found more"
            raise InputError([Fault(f"line {number}", problem, "remove them")])
        yield line


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
    fix = "save the file as UTF-8, for example: iconv -f latin1 -t utf-8; or state its encoding: cp1252, for example"
    return EncodingError([Fault(f"line {line}", problem, fix)])
