"""Images files for tests, valid and hostile."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def image_file(pixels: Any, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    """Return the bytes of an image file with these pixels."""
    image = Image.fromarray(np.asarray(pixels))
    body = BytesIO()
    (image if mode is None else image.convert(mode)).save(body, kind, **options)
    return body.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, colour: int = 0, pixels: bytes | None = None) -> bytes:
    """Return a PNG of eight bits with this header; without `pixels` they are black."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    rows = bytes(height * (1 + width)) if pixels is None else pixels
    return PNG_SIGNATURE + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def huge_png() -> bytes:
    """900 megapixels by the header, in less than 200 bytes."""
    return png(30_000, 30_000, pixels=b"")


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_scans(jpeg: bytes, count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * count + jpeg[-2:]


def narrow_jpeg(width: int, height: int, factors: list[int], scans: int) -> bytes:
    """Return a progressive JPEG without coded pixels; `factors` has the sampling factors of each component."""
    components = b"".join(bytes([i, each, 0]) for i, each in enumerate(factors))
    frame = struct.pack(">BHHB", 8, height, width, len(factors)) + components
    scan = bytes([len(factors)]) + b"".join(bytes([i, 0]) for i in range(len(factors))) + bytes(3)
    return b"\xff\xd8" + segment(0xC2, frame) + segment(0xDA, scan) * scans + b"\xff\xd9"
