"""PNG and JPEG files before they are decoded: their size in pixels, and the parts that a decoder needs.

The parts are found here, and bounded, because a decoder spends time and memory before anyone can ask it for the size:
a PNG may hold thousands of compressed texts of a megabyte each, a JPEG millions of comments, thousands of scans of the
same pixels, or a profile whose 64 kB expand to gigabytes. So only the parts that decide pixels reach the decoder.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_PIXELS = 1 << 26  # of a file: a photo of 67 megapixels
MAX_SIDE = 1 << 14  # resizing a narrow image takes memory for its longer side times the other side of the result
MAX_FILE_BYTES = 1 << 26
_MAX_SCANS = 64  # of a progressive JPEG, which has about 10: each one passes over all pixels
_MIN_PART_BYTES = 512  # of a file for each of its parts, beyond the first hundred
_MAX_TAGS = 256  # of Exif data that are searched for the orientation, which comes early
_PIXELS_PER_FILE, _PIXELS_PER_PART = 2**14, 128  # as many can be decoded in the time that one takes by itself
_PIXELS_PER_ROW = 4  # of an image: a row is read, converted and resized for itself, however narrow it is
_PIXEL_BYTES = 3  # a pixel of more, such as one with alpha or of 16 bits, counts as several
PNG, JPEG = "PNG", "JPEG"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # of the names of files

_PNG_SIGNATURE, _JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_PARTS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_SUPPORTED_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_TABLES = {0xC4, 0xDB, 0xDD}  # Huffman codes, quantization, restart interval
_JFIF, _EXIF, _ADOBE = 0xE0, 0xE1, 0xEE
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")  # 00 is a stuffed byte, d0 to d7 are restarts, ff fills
_BLOCK = 8  # pixels on a side of a block of a JPEG
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each type of colour
_ORIENTATION_TAG, _SHORT = 0x0112, 3


class ImageFileError(ValueError):
    """A file cannot be decoded, or must not be: `problem` says what was expected and found, `fix` what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        self.problem, self.fix = problem, fix
        super().__init__(f"{problem}; {fix}")


class ImageFile(NamedTuple):
    """A file that may be decoded: `content` has its parts that decide pixels, and no others.

    `orientation` is Exif's, from 1 to 8: how the stored rows are turned.
    """

    format: str
    width: int
    height: int
    orientation: int
    content: bytes
    samples: int  # that are decoded, with the padding of a JPEG's blocks: bytes of a PNG, at least 3 for each pixel
    parts: int
    scans: int = 1  # of a JPEG

    @property
    def decoding_pixels(self) -> int:
        """As how many pixels it counts to decode the file: ten scans take as long as all other work on a pixel."""
        pixels = self.samples * (9 + self.scans) // (10 * _PIXEL_BYTES)
        return _PIXELS_PER_FILE + _PIXELS_PER_PART * self.parts + _PIXELS_PER_ROW * self.height + pixels


def read_image_file(data: bytes) -> ImageFile:
    """Check the structure of a PNG or JPEG file. ImageFileError if it is neither, damaged, animated or too large."""
    if len(data) > MAX_FILE_BYTES:
        problem = f"expected an image file of at most {MAX_FILE_BYTES} bytes, found {len(data)}"
        raise ImageFileError(problem, "save it smaller")
    if data.startswith(_PNG_SIGNATURE):
        return _read_png(data)
    if data.startswith(_JPEG_START):
        return _read_jpeg(data)
    found = f"other bytes, {data[:8].hex(' ')}" if data else "nothing"
    raise ImageFileError(f"expected a PNG or JPEG file, found {found}", "save the image as PNG or JPEG")


def rejected_pixels(size: int) -> int:
    """Return as how many pixels a file of `size` bytes counts that was read in vain, a part of four bytes at least."""
    return _PIXELS_PER_PART * (1 + min(size // 4, _max_parts(size)))


def _read_png(data: bytes) -> ImageFile:
    """Read a PNG: chunks of length, type, data and CRC."""
    parts, at, orientation = [_PNG_SIGNATURE], len(_PNG_SIGNATURE), 1
    size: tuple[int, int] | None = None
    name, number, pixel_bytes = b"", 0, _PIXEL_BYTES
    for number in _count_parts(data, "chunks"):
        if at + 12 > len(data):
            raise _truncated(f"the end of the file after chunk {number}")
        length = int.from_bytes(data[at : at + 4], "big")
        name, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            raise _truncated(f"{len(data) - at - 12} of {length} bytes of the chunk {name.decode('latin-1')!r}")
        if (size is None) != (name == b"IHDR") or (name == b"IHDR" and length != 13):
            raise ImageFileError("expected a PNG that begins with one header, found other chunks", "save it again")
        if name == b"IHDR":
            size = struct.unpack(">II", data[at + 8 : at + 16])
            _check_size(*size)
            depth, colour = data[at + 16 : at + 18]
            # Pillow keeps four bytes for a pixel with alpha, and 16 bits pass through an array
            several = _PIXEL_BYTES + 1 if depth == 16 or colour in (4, 6) else 0
            pixel_bytes = max(pixel_bytes, several, _PNG_CHANNELS.get(colour, 0) * depth // 8)
        elif name == b"tRNS":
            pixel_bytes = max(pixel_bytes, _PIXEL_BYTES + 1)
        elif name == b"acTL":
            raise ImageFileError("expected one image, found an animation", "save one frame of it as a file")
        elif name == b"eXIf":
            orientation = _orientation(data[at + 8 : end - 4])
        if name in _PNG_PARTS:
            parts.append(data[at:end])
        at = end
        if name == b"IEND":
            break
    width, height = size or (0, 0)
    return ImageFile(PNG, width, height, orientation, b"".join(parts), width * height * pixel_bytes, number + 1)


def _read_jpeg(data: bytes) -> ImageFile:
    """Read a JPEG: segments of a marker, length and data; after the marker of a scan come its coded pixels."""
    parts, at, orientation, scans, samples, number = [data[:2]], 2, 1, 0, 0, 0
    size: tuple[int, int] | None = None
    for number in _count_parts(data, "segments"):
        found = _MARKER.search(data, at)
        if found is None:
            raise _truncated(f"the end of the file after segment {number}")
        coded = data[at : found.start()].rstrip(b"\xff")
        if coded and not scans:
            raise ImageFileError("expected a marker of JPEG, found other bytes", "save it again")
        marker, start = found[1][0], found.end()
        parts.append(coded)  # pixels
        if marker == _END:
            break
        end = start + int.from_bytes(data[start : start + 2], "big")
        if end < start + 2 or end > len(data):
            raise _truncated(f"{len(data) - start} bytes of a segment of {end - start}")
        if marker in _FRAMES:
            if size is not None:
                raise ImageFileError("expected one image, found several frames", "save one of them as a file")
            width, height, samples = _read_frame(marker, data[start + 2 : end])
            size = width, height
        elif marker == _EXIF and data[start + 2 : start + 8] == b"Exif\0\0":
            orientation = _orientation(data[start + 8 : end])
        elif marker == _SCAN:
            scans += 1
            if scans > _MAX_SCANS:
                problem = f"expected a JPEG of at most {_MAX_SCANS} scans, found more"
                raise ImageFileError(problem, "save it as a baseline JPEG")
        if marker in _FRAMES | _TABLES | {_SCAN, _JFIF, _ADOBE}:
            parts.append(b"\xff" + data[start - 1 : end])
        at = end
    if size is None or not scans:
        raise ImageFileError("expected a JPEG with an image, found none", "save it again")
    content = b"".join([*parts, b"\xff\xd9"])
    return ImageFile(JPEG, *size, orientation, content, samples, number + 1, scans)


def _read_frame(marker: int, frame: bytes) -> tuple[int, int, int]:
    """Return width, height and decoded samples of a frame.

    It has its precision in bits, height, width and components, each with its number, sampling factors and table. Their
    blocks fill units of as many as the largest factors.
    """
    if marker not in _SUPPORTED_FRAMES or len(frame) < 6 or frame[0] != 8:
        kind = f"frame type {marker:#x} of {frame[0] if frame else 0} bits"
        raise ImageFileError(f"expected a baseline or progressive JPEG of 8 bits, found {kind}", "save it as such")
    height, width = struct.unpack(">HH", frame[1:5])
    _check_size(width, height)
    components, factors = frame[5], frame[7::3]
    if not 1 <= components <= 4 or len(frame) != 6 + 3 * components:
        raise ImageFileError(f"expected a JPEG of 1 to 4 components, found {components}", "save it again")
    padded_width = _round_up(width, _BLOCK * max(1, *(each >> 4 for each in factors)))
    padded_height = _round_up(height, _BLOCK * max(1, *(each & 15 for each in factors)))
    return width, height, padded_width * padded_height * max(_PIXEL_BYTES, components)


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _check_size(width: int, height: int) -> None:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        most = f"at most {MAX_PIXELS} pixels, 1 to {MAX_SIDE} on a side"
        raise ImageFileError(f"expected an image of {most}, found {width} x {height}", "save it smaller")


def _count_parts(data: bytes, unit: str) -> Iterator[int]:
    """Yield numbers. ImageFileError once a file of this size has no more parts, unless it is made to cost time."""
    most = _max_parts(len(data))
    yield from range(most)
    raise ImageFileError(
        f"expected a file of {len(data)} bytes to have at most {most} {unit}, found more", "save it again"
    )


def _max_parts(size: int) -> int:
    return 100 + size // _MIN_PART_BYTES


def _truncated(found: str) -> ImageFileError:
    return ImageFileError(f"expected a whole file, found {found}", "send or copy the file again")


def _orientation(exif: bytes) -> int:
    """Return the orientation that Exif data, a TIFF header with a directory of tags, has; 1 if it has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (at,) = struct.unpack_from(f"{order}I", exif, 4)
    if at + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, at)
    for start in range(at + 2, min(at + 2 + 12 * min(count, _MAX_TAGS), len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, start)
        if (tag, kind) == (_ORIENTATION_TAG, _SHORT):
            return value if 1 <= value <= 8 else 1
    return 1
