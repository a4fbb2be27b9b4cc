"""PNG and JPEG files as pixels of a model's size, and files that are made to cost time or memory."""

from __future__ import annotations

import base64
import struct
import sys
import tracemalloc
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from model_store.schema.columns import FaultCollector, RowLocations
from model_store.schema.columns.array import ArrayColumn
from model_store.schema.columns.image_decoding import CROPS, decode_image, read_encoded
from model_store.schema.columns.image_file import _MARKER, ImageFileError, read_image_file
from model_store.schema.signature import RegressionOutput, Signature
from tests.image_files import (
    PNG_SIGNATURE,
    chunk,
    huge_png,
    image_file,
    narrow_jpeg,
    noise,
    png,
    segment,
    with_scans,
)

PICTURE = noise(40, 60, 3)


def decoded(data: bytes, shape: tuple[int, ...] = (40, 60, 3), crop: str = "none") -> np.ndarray:
    return decode_image(read_image_file(data), shape, crop)


@pytest.mark.parametrize("crop", CROPS)
def test_an_image_of_the_models_size_keeps_its_pixels(crop: str) -> None:
    np.testing.assert_array_equal(decoded(image_file(PICTURE), crop=crop), PICTURE)
    np.testing.assert_array_equal(decoded(image_file(PICTURE[..., 0]), (40, 60), crop), PICTURE[..., 0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_of_every_mode_is_read_as_pillow_converts_it(mode: str) -> None:
    expected = np.asarray(Image.fromarray(PICTURE).convert(mode).convert("RGB"))
    np.testing.assert_array_equal(decoded(image_file(PICTURE, mode=mode)), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_every_mode_is_read_as_pillow_reads_the_whole_file(mode: str, progressive: bool) -> None:
    data = image_file(PICTURE, "JPEG", mode, progressive=progressive, comment=b"x" * 100, dpi=(72, 72))
    with Image.open(BytesIO(data)) as image:
        np.testing.assert_array_equal(decoded(data), np.asarray(image.convert("RGB")))


def test_the_higher_bits_of_sixteen_are_taken() -> None:
    grey = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(decoded(image_file(grey), (256, 256)), grey >> 8)


def test_transparent_pixels_are_white() -> None:
    transparent = np.dstack([PICTURE, np.zeros(PICTURE.shape[:2], np.uint8)])
    assert (decoded(image_file(transparent)) == 255).all()
    palette = image_file(PICTURE[..., 0], mode="P", transparency=int(PICTURE[0, 0, 0]))
    assert decoded(palette, (40, 60))[0, 0] == 255
    grey = png(2, 1, chunk(b"tRNS", struct.pack(">H", 7)), pixels=bytes([0, 7, 8]))
    assert decoded(grey, (1, 2)).tolist() == [[255, 8]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image_file(PICTURE, kind, exif=exif)
    with Image.open(BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decoded(data, expected.shape), expected)


def test_crops_keep_the_center_everything_or_the_ratio() -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    assert (decoded(image_file(wide), (10, 10), "center") == 255).all()
    assert decoded(image_file(wide), (30, 30), "none")[15].tolist() == [0] * 10 + [255] * 10 + [0] * 10
    padded = decoded(image_file(np.full((10, 30), 255, np.uint8)), (30, 30), "pad")
    assert padded[:, 0].tolist() == [0] * 10 + [255] * 10 + [0] * 10


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(CROPS),
)
def test_a_constant_image_stays_constant_in_every_size(
    size: tuple[int, int], shape: tuple[int, int], crop: str
) -> None:
    found = decoded(image_file(np.full(size, 77, np.uint8)), shape, crop)
    assert found.shape == shape
    assert set(found.ravel().tolist()) <= ({0, 77} if crop == "pad" else {77})


# Files that must not be decoded ---------------------------------------------------------------------------------------


def refused(data: bytes) -> str:
    with pytest.raises(ImageFileError) as caught:
        decoded(data)
    assert caught.value.fix
    return caught.value.problem


def test_the_pixels_are_bounded_before_a_decoder_sees_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    assert len(huge_png()) < 200
    assert "at most 67108864 pixels, 1 to 16384 on a side, found 30000 x 30000" in refused(huge_png())
    assert "found 1 x 16385" in refused(png(1, 16_385))
    assert "found 0 x 5" in refused(png(0, 5))
    tall = bytearray(image_file(PICTURE, "JPEG"))
    at = tall.index(b"\xff\xc0")
    tall[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    assert "found 65535 x 65535" in refused(bytes(tall))


def test_pixels_beyond_those_of_the_header_are_not_inflated() -> None:
    bomb = png(8, 8, pixels=bytes(200_000_000))
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        decoded(bomb, (8, 8))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_compressed_texts_and_profiles_do_not_reach_the_decoder() -> None:
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10_000_000)))
    file = read_image_file(png(8, 8, profile, *[text] * 60))
    assert len(file.content) < 200
    exif = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + bytes(60_000))
    data = image_file(PICTURE, "JPEG")
    assert read_image_file(data[:2] + exif + segment(0xE2, b"x" * 60_000) + data[2:]).content == data


def test_the_parts_of_a_file_are_counted() -> None:
    assert "chunks, found more" in refused(png(8, 8, *[chunk(b"tEXt")] * 2000))
    data = image_file(PICTURE, "JPEG")
    assert "segments, found more" in refused(data[:2] + segment(0xFE, b"") * 2000 + data[2:])


def test_the_scans_of_a_jpeg_are_bounded_and_counted() -> None:
    data = image_file(PICTURE, "JPEG", progressive=True)
    file = read_image_file(data)
    assert file.samples == 3 * 48 * 64  # blocks of 16 by 16
    more = read_image_file(with_scans(data, 40))
    assert more.scans == file.scans + 40
    assert more.decoding_pixels - file.decoding_pixels == 4 * 48 * 64 + 40 * 128
    assert "at most 64 scans" in refused(with_scans(data, 60))


def test_markers_in_a_run_of_fill_bytes_are_found_in_linear_time() -> None:
    """A repeated FF in the expression would try every length of the run from every place in it."""
    assert _MARKER.pattern.count(b"+") == _MARKER.pattern.count(b"*") == 0
    assert "found the end of the file after segment 0" in refused(b"\xff\xd8" + b"\xff" * 2**20 + b"\0")
    data = image_file(PICTURE, "JPEG")
    fill = b"\xff" * 1000
    assert read_image_file(data[:2] + fill + data[2:-2] + fill + data[-2:]).content == data


def test_padding_components_and_scans_of_a_narrow_jpeg_are_counted() -> None:
    data = narrow_jpeg(1, 16_384, [0x41, 0x41, 0x11, 0x11], 9)
    file = read_image_file(data)
    assert len(data) < 250
    assert file.samples == 4 * 32 * 16_384
    assert file.decoding_pixels > 1_250_000
    assert "1 to 4 components, found 5" in refused(narrow_jpeg(1, 8, [0x11] * 5, 1))


def test_every_part_of_a_file_counts_also_if_it_is_rejected() -> None:
    plain, parts = png(1, 1), png(1, 1, *[chunk(b"IDAT")] * 90)
    assert read_image_file(parts).decoding_pixels - read_image_file(plain).decoding_pixels == 90 * 128
    rejected = b"\xff\xd8" + segment(0xFE, b"") * 1000
    checked = COLUMN.check_file(rejected)
    assert checked is not None
    assert checked.error is not None
    assert checked.pixels == 128 * (101 + len(rejected) // 512)


def test_scaling_images_takes_one_copy_of_their_values() -> None:
    """111 files of 224 x 224 pixels, 267 bytes of gzip in all, took 335 MB."""
    column = ArrayColumn("image", (224, 224, 3), 0.0, 255.0, 0.0, 255.0, "none")
    values = np.full((20, column.width), 7.0)
    faults = FaultCollector()
    tracemalloc.start()
    try:
        encoded = column.encode(values, RowLocations("rows", range(20)), faults)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * values.nbytes
    np.testing.assert_array_equal(encoded, (values - 0.0) / 255.0)


def test_files_of_large_images_take_little_more_than_their_features() -> None:
    """111 files of 224 x 224 pixels took 335 MB: a copy of all values in float64 is twice as large as the features."""
    column = ArrayColumn("image", (224, 224, 3), 127.5, 127.5, 0.0, 255.0, image_crop="none")
    signature = Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))
    rows = [png(1, 1) for _ in range(20)]
    signature.encode(rows[:1])
    tracemalloc.start()
    try:
        encoded = signature.encode(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.75 * encoded.nbytes
    assert encoded.shape == (20, column.width)
    assert (encoded == -1).all()


def test_the_rows_of_a_narrow_image_count() -> None:
    """430 images of 1 x 16,384 with alpha, 0.8 kB of gzip, took 0.8 s; a photo is not counted much higher."""
    narrow, square = read_image_file(png(1, 2**14)), read_image_file(png(2**7, 2**7))
    assert narrow.decoding_pixels - square.decoding_pixels == 4 * (2**14 - 2**7)


def test_pixels_of_sixteen_bits_or_with_alpha_count_more() -> None:
    counts = {
        mode: read_image_file(image_file(np.zeros((300, 300), np.uint8), mode=mode)).samples // 300**2
        for mode in ("L", "P", "RGB", "LA", "RGBA")
    }
    assert counts == {"L": 3, "P": 3, "RGB": 3, "LA": 4, "RGBA": 4}
    assert read_image_file(image_file(np.zeros((300, 300), np.uint16))).samples == 4 * 300**2
    assert read_image_file(image_file(np.zeros((9, 9), np.uint8), mode="P", transparency=0)).samples == 4 * 81


@pytest.mark.parametrize("mode", ["I;16", "LA", "P", "RGBA"])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_pixels_are_converted_in_pieces(monkeypatch: pytest.MonkeyPatch, mode: str, shape: tuple[int, ...]) -> None:
    """Each copy of a whole image takes up to four bytes a pixel, and arrays of wider integers took more."""
    pixels = np.zeros((1500, 1000), np.uint16 if mode == "I;16" else np.uint8)
    options = {"transparency": 0} if mode in ("I;16", "P") else {}
    data = image_file(pixels, mode=None if mode == "I;16" else mode, **options)
    decoded(data, shape)
    sizes, convert = list[int](), Image.Image.convert
    monkeypatch.setattr(
        Image.Image,
        "convert",
        lambda image, *to, **more: sizes.append(image.width * image.height) or convert(image, *to, **more),
    )
    tracemalloc.start()
    try:
        decoded(data, shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(sizes) <= 2**18
    assert peak < 6_000_000


def test_an_image_in_pieces_has_the_pixels_of_one_that_is_converted_at_once() -> None:
    pixels = noise(700, 500, 4)
    image = Image.fromarray(pixels)
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    np.testing.assert_array_equal(decoded(image_file(pixels), (700, 500, 3)), np.asarray(white))


def test_an_animation_is_refused() -> None:
    body = BytesIO()
    frames = [Image.fromarray(noise(8, 8, seed=seed)) for seed in range(3)]
    frames[0].save(body, "PNG", save_all=True, append_images=frames[1:])
    assert refused(body.getvalue()) == "expected one image, found an animation"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    assert refused(image_file(noise(16, 16), kind)).startswith("expected a PNG or JPEG file, found other bytes")


def test_a_file_that_is_none_is_refused() -> None:
    assert refused(b"") == "expected a PNG or JPEG file, found nothing"
    assert "header" in refused(PNG_SIGNATURE + chunk(b"IDAT") + chunk(b"IEND"))
    assert "found none" in refused(b"\xff\xd8\xff\xd9")
    assert "found other bytes" in refused(b"\xff\xd8" + segment(0xFE, b"") + b"abc\xff\xd9")
    arithmetic = image_file(PICTURE, "JPEG").replace(b"\xff\xc0", b"\xff\xc9")
    assert "expected a baseline or progressive JPEG" in refused(arithmetic)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["PNG", "JPEG"]), st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    data = image_file(PICTURE, kind)
    refused(data[: int(share * len(data))])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["PNG", "JPEG"]), st.data())
def test_damaged_bytes_end_in_pixels_or_an_error_of_the_file(kind: str, draw: st.DataObject) -> None:
    data = bytearray(image_file(noise(12, 12, 3), kind, exif=Image.Exif()))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(ImageFileError):
        assert decoded(bytes(data), (8, 8, 3), "center").shape == (8, 8, 3)


# Columns --------------------------------------------------------------------------------------------------------------

COLUMN = ArrayColumn("image", (8, 8, 3), 0.0, 255.0, 0.0, 255.0, image_crop="center")


def parse(*values: object) -> tuple[np.ndarray, list[str]]:
    faults = FaultCollector()
    found = COLUMN.parse(list(values), RowLocations("instances", range(len(values))), faults)
    return found, [str(fault) for fault in faults.faults]


def test_files_and_pixels_may_be_mixed() -> None:
    data, pixels = image_file(PICTURE), noise(8, 8, 3)
    found, faults = parse(data, {"b64": base64.b64encode(data).decode()}, pixels.tolist(), pixels.ravel().tolist())
    assert not faults
    np.testing.assert_array_equal(found[0], decoded(data, (8, 8, 3), "center").ravel())
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2:], [pixels.ravel()] * 2)


def test_base64_of_urls_and_without_padding_is_read() -> None:
    data = image_file(PICTURE)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert read_encoded({"b64": encode(data).decode().rstrip("=")}) == read_image_file(data)


def test_every_invalid_image_is_reported_and_none_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    good = image_file(PICTURE)
    _, faults = parse(good, b"GIF89a", {"b64": 1}, {"b64": "é"}, {"b64": "a!"}, "iVBOR", {"b64": "", "x": 1})
    assert [fault.partition(":")[0] for fault in faults] == [f"instances.{i}" for i in range(1, 7)]
    assert "expected a PNG or JPEG file" in faults[0]
    assert "expected the base64 of a file, found 1" in faults[1]
    assert all("expected base64, found an error" in fault for fault in faults[2:4])
    assert '{"b64": "..."} with a PNG or JPEG file in base64' in faults[4]


def test_without_pillow_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_file(PICTURE)
    monkeypatch.setitem(sys.modules, "PIL", None)
    _, faults = parse(data)
    assert faults == [
        "instances.0: expected Pillow, which decodes images, found none "
        "(install the extra images where the model runs: pip install 'pillow>=12')"
    ]


def test_a_column_without_a_crop_takes_no_files() -> None:
    faults = FaultCollector()
    ArrayColumn("image", (8, 8)).parse([image_file(PICTURE)], RowLocations("instances", range(1)), faults)
    assert "expected an array of 64 finite numbers" in str(faults.faults[0])
    assert ArrayColumn("image", (8, 8)).check_file(image_file(PICTURE)) is None
