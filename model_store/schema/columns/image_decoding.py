"""Decode PNG and JPEG files as pixels of a model's size: training and the service do it by this code.

Pillow decodes; it is the extra `images`, imported when the first image is decoded.
"""

from __future__ import annotations

import binascii
import io
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from model_store.schema.columns.image_file import ImageFile, ImageFileError, read_image_file, rejected_pixels
from model_store.utils.extras import install_command
from model_store.utils.values import describe_value

Crop = Literal["center", "pad", "none"]
CROPS: tuple[str, ...] = get_args(Crop)
MAX_IMAGE_SIDE = 4096  # of what a model takes
B64_KEY = "b64"  # as TensorFlow Serving names it
_PIECE_PIXELS = 2**18  # of an image that is converted in pieces, as a copy of all would take memory
# How the stored rows of each orientation of Exif are turned: names of `PIL.Image.Transpose`.
_TRANSPOSITIONS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class MissingPillowError(ImageFileError):
    """This installation has no Pillow."""

    def __init__(self) -> None:
        fix = f"install the extra images where the model runs: {install_command('images')}"
        super().__init__("expected Pillow, which decodes images, found none", fix)


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Return True for (height, width), which is grey, and (height, width, 3), which is RGB."""
    return len(shape) in (2, 3) and shape[2:] in ((), (3,)) and max(shape) <= MAX_IMAGE_SIDE


def decode_image(file: ImageFile, shape: tuple[int, ...], crop: str) -> NDArray[np.uint8]:
    """Return the pixels of an image, 0 to 255, in `shape`: (height, width) in grey, or (height, width, 3) in RGB.

    The image is turned upright as its orientation says, transparent pixels are laid on white, and the higher eight of
    16 bits are taken. A JPEG of more than twice the model's size is decoded at 1/2, 1/4 or 1/8 of its own, as long as
    that is still twice as large. Then the image is resized by a triangle filter that is as wide as the pixels of the
    result. `crop`:

    - "center" keeps the largest part around the center that has the sides' ratio;
    - "pad" keeps everything, between black borders;
    - "none" keeps everything, stretched.

    ImageFileError if the pixels are damaged.
    """
    image = _upright(_open(file, 2 * max(shape[:2]), "L" if len(shape) == 2 else "RGB"), file.orientation)
    return np.asarray(_fit(image, shape[1], shape[0], crop), np.uint8)


def _open(file: ImageFile, side: int, mode: str) -> Any:
    """Return an image as "L" (grey) or "RGB". A JPEG may be smaller, as long as it has twice this side or more."""
    try:
        from PIL import Image  # noqa: PLC0415 - an extra
    except ImportError as e:
        raise MissingPillowError from e
    try:
        with Image.open(io.BytesIO(file.content), formats=(file.format,)) as opened:
            if opened.size != (file.width, file.height):
                raise ValueError(f"expected {file.width} x {file.height} pixels, found {opened.size}")
            opened.draft(opened.mode, (side, side))
            opened.load()
            return _to_mode(opened, mode)
    except MemoryError:
        raise
    except Exception as e:  # Pillow raises many types for damaged files
        problem = f"expected a {file.format} file, found a damaged one: {e}"
        raise ImageFileError(problem, "save or copy the file again") from e


def _upright(image: Any, orientation: int) -> Any:
    """Return an image turned as Exif's orientation says."""
    from PIL import Image  # noqa: PLC0415

    if orientation not in _TRANSPOSITIONS:
        return image
    return image.transpose(Image.Transpose[_TRANSPOSITIONS[orientation]])


def _to_mode(image: Any, mode: str) -> Any:
    """Return an image as "L" (grey) or "RGB", without transparency: itself, or a copy made in pieces of rows."""
    from PIL import Image  # noqa: PLC0415

    if image.mode == mode and "transparency" not in image.info:
        return image
    converted, rows = Image.new(mode, image.size), max(1, _PIECE_PIXELS // image.width)
    for top in range(0, image.height, rows):
        piece = image.crop((0, top, image.width, min(top + rows, image.height)))
        converted.paste(_piece_to_mode(piece, mode), (0, top))
    return converted


def _piece_to_mode(image: Any, mode: str) -> Any:
    from PIL import Image  # noqa: PLC0415

    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        values = np.asarray(image)
        grey = (values >> 8).astype(np.uint8)
        grey[values == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert(mode)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new(mode, image.size, "white")
        white.paste(image.convert(mode), mask=image.getchannel("A"))
        return white
    return image.convert(mode)


def _fit(image: Any, width: int, height: int, crop: str) -> Any:
    """Return an image resized to this size."""
    from PIL import Image  # noqa: PLC0415

    resample = Image.Resampling.BILINEAR
    scale = (max if crop == "center" else min)(width / image.width, height / image.height)
    if crop == "center":
        left, top = (max(0.0, side - cut / scale) / 2 for side, cut in zip(image.size, (width, height), strict=True))
        return image.resize((width, height), resample, box=(left, top, image.width - left, image.height - top))
    if crop == "none":
        return image.resize((width, height), resample)
    inner = max(1, min(width, round(image.width * scale))), max(1, min(height, round(image.height * scale)))
    padded = Image.new(image.mode, (width, height))
    padded.paste(image.resize(inner, resample), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return padded


class CheckedFile(dict[str, Any]):
    """A value that stands for an image file, and what `read_encoded` found, so that it is read once.

    `pixels` is as how many it counts to decode the file, or to find that it cannot be decoded.
    """

    def __init__(self, value: Any) -> None:
        text = value if isinstance(value, bytes) else value[B64_KEY]
        super().__init__({B64_KEY: text})
        self.file: ImageFile | None = None
        self.error: ImageFileError | None = None
        try:
            self.file = read_encoded(value)
            self.pixels = self.file.decoding_pixels
        except ImageFileError as e:
            self.error = e.with_traceback(None)
            self.pixels = rejected_pixels(len(text) if isinstance(text, bytes | str) else 0)


def is_encoded(value: Any) -> bool:
    """Return True if a value stands for an image file: its bytes, or an object with them in base64."""
    return isinstance(value, bytes) or (isinstance(value, dict) and value.keys() == {B64_KEY})


def read_encoded(value: Any) -> ImageFile:
    """Return the file that an `is_encoded` value stands for. ImageFileError if it cannot be decoded."""
    if isinstance(value, CheckedFile):
        if value.file is None:
            raise value.error or AssertionError("expected a file or an error")
        return value.file
    text = value if isinstance(value, bytes) else value[B64_KEY]
    if isinstance(text, bytes):
        return read_image_file(text)
    if not isinstance(text, str):
        raise ImageFileError(f"expected the base64 of a file, found {describe_value(text)}", "send it as a string")
    try:
        return read_image_file(_decode_base64(text))
    except ValueError as e:
        if isinstance(e, ImageFileError):
            raise
        raise ImageFileError(f"expected base64, found an error: {e}", "encode the bytes of the file") from e


def _decode_base64(text: str) -> bytes:
    """Return the bytes of base64, of either alphabet, with or without its padding, as clients send it."""
    padded = text.translate(_URL_SAFE) + "=" * (-len(text) % 4)
    return binascii.a2b_base64(padded.encode("ascii"), strict_mode=True)


_URL_SAFE = str.maketrans("-_", "+/")
