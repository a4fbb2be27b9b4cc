"""Pictures on the page of a model: a file becomes the pixels that training and the service read from it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_store.artifact.model import Golden, Model
from model_store.nn import Array, Linear, Sequential, Softmax
from model_store.registry.store import open_store
from model_store.schema.columns import ArrayColumn
from model_store.schema.columns.image_decoding import decode_image
from model_store.schema.columns.image_file import read_image_file
from model_store.schema.signature import ClassificationOutput, Signature
from tests.chromium import in_browser
from tests.service.pages.conftest import DESK, OpenPage, check_layout
from tests.service.server.server_process import Server, until

pytestmark = [*in_browser]

RANDOM = np.random.default_rng(0)
WIDE = np.clip(np.cumsum(RANDOM.normal(0, 6, (60, 100, 3)), axis=1) + 128, 0, 255).astype(np.uint8)
STATISTICS = {"min": 0.0, "max": 255.0, "mean": 120.0, "std": 60.0}
COLUMNS = {
    "rgb": ArrayColumn("image", (12, 16, 3), low=0.0, high=255.0, statistics=STATISTICS, image_crop="center"),
    "stretched": ArrayColumn("image", (12, 16, 3), low=0.0, high=255.0, statistics=STATISTICS, image_crop="none"),
    "grey": ArrayColumn("image", (20, 20), low=0.0, high=255.0, statistics=STATISTICS, image_crop="pad"),
    # As MNIST: ink of up to 16 on paper of 0, in a box of 6 pixels.
    "ink": ArrayColumn("image", (10, 10), statistics={"min": 0.0, "max": 16.0, "mean": 3.0, "std": 5.0}),
}


def file_of(pixels: Array, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def model_of(column: ArrayColumn) -> Model:
    network = Sequential([Linear(column.width, 2, rng=np.random.default_rng(1)), Softmax()])
    example = np.zeros(column.shape)
    example[2:8, 3:7] = 16
    model = Model(network, Signature((column,), ClassificationOutput("kind", ("a", "b"))))
    outputs = network(model.encode([example.tolist()]))
    return replace(model, golden=Golden([example.tolist()], outputs))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pictures")
    store = open_store(folder / "models")
    for name, column in COLUMNS.items():
        store.publish(name, model_of(column))
    server = Server(store, folder, SERVE_WORKERS="1")
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def open_file(page: Any, content: bytes, name: str = "picture.png") -> Array:
    """Open a file on the page, and return the row that it became."""
    before = page.locator("#row").input_value()
    page.get_by_label("Open file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
    until(lambda: page.locator("#row").input_value() != before)
    return np.array(json.loads(page.locator("#row").input_value()))


@pytest.mark.parametrize("name", ["rgb", "stretched", "grey"])
def test_a_file_becomes_the_pixels_that_the_service_reads_from_it(
    open_page: OpenPage, pictures: Server, name: str
) -> None:
    page = open_page(pictures, f"/models/{name}", DESK)
    column = COLUMNS[name]
    transparent = np.dstack([WIDE, np.full(WIDE.shape[:2], 255, np.uint8)])
    transparent[:20, :, 3] = 0
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "wide": file_of(WIDE),
        "high": file_of(np.ascontiguousarray(WIDE.transpose(1, 0, 2))),
        "small": file_of(WIDE[:5, :7]),
        "grey": file_of(WIDE[:, :, 0]),
        "transparent": file_of(transparent),
        "turned": file_of(WIDE[::-1], exif=turned.tobytes()),
    }
    for kind, content in files.items():
        found = open_file(page, content)
        expected = decode_image(read_image_file(content), column.shape, column.image_crop or "")
        np.testing.assert_array_equal(found, expected, kind)
    jpeg = file_of(WIDE, "JPEG", quality=95)
    expected = decode_image(read_image_file(jpeg), column.shape, column.image_crop or "")
    assert np.abs(open_file(page, jpeg) - expected.astype(float)).mean() < 4  # another decoder
    page.locator(".status", has_text="version").wait_for()
    check_layout(page)


def test_ink_on_paper_is_scaled_and_centred_as_the_example(open_page: OpenPage, pictures: Server) -> None:
    page = open_page(pictures, "/models/ink", DESK)
    paper = np.full((90, 120), 230, np.uint8)
    paper[10:70, 90:110] = 40  # a bar of 60 x 20 in a corner
    found = open_file(page, file_of(paper))
    ink = np.zeros((10, 10), bool)
    ink[2:8, 4:6] = True
    assert found.max() == 16
    assert found[ink].min() >= 13  # the ends of the bar are mixed with paper
    assert found[~ink].max() == 0
    page.get_by_label("Scale and centre").uncheck()
    page.get_by_text("The picture is resized to 10 × 10 pixels of grey.").wait_for()
    plain = np.array(json.loads(page.locator("#row").input_value()))
    assert plain[:, :7].max() == 0
    assert plain[:, 7:].max() == 16


def test_a_file_that_is_no_picture_is_an_error_and_the_next_one_is_opened(
    open_page: OpenPage, pictures: Server
) -> None:
    page = open_page(pictures, "/models/rgb", DESK)
    hostile = "<img src=x onerror=alert(1)>.png"
    page.get_by_label("Open file").set_input_files({"name": hostile, "mimeType": "image/png", "buffer": b"none"})
    alert = page.locator(".drawing [role=alert]")
    alert.wait_for()
    assert alert.inner_text() == f"{hostile}: expected a PNG or JPEG file that is not damaged"
    open_file(page, file_of(WIDE))
    assert alert.is_hidden()


def test_the_canvas_shows_the_image_of_the_row_until_something_is_drawn(open_page: OpenPage, pictures: Server) -> None:
    page = open_page(pictures, "/models/ink", DESK)
    page.locator(".status", has_text="version").wait_for()
    light = """() => {
        const canvas = document.querySelector("canvas.pad");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]
            .reduce((sum, value, i) => sum + (i % 4 ? 0 : value), 0) / (255 * canvas.width * canvas.height);
    }"""
    assert page.evaluate(light) == pytest.approx(0.24, abs=0.01)  # the example, as large as the canvas
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Nothing is drawn.").wait_for()
    assert page.evaluate(light) == 0
    assert page.locator("#answer").inner_text() == ""
    page.get_by_label("Compute in this browser").check()
    page.get_by_text("is in this page").wait_for()
    assert page.locator("#answer").inner_text() == ""
    page.get_by_role("button", name="Example").click()
    page.locator("#answer .bars").wait_for()
