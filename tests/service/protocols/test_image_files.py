"""PNG and JPEG files in every protocol: the same bits as the pixels that training reads from the same file."""

from __future__ import annotations

import base64
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from model_store.artifact.answers import Answers
from model_store.artifact.model import Model
from model_store.registry.store import open_store
from model_store.schema.columns import array, image_decoding
from model_store.schema.columns.image_decoding import decode_image
from model_store.schema.columns.image_file import read_image_file
from model_store.schema.signature import ArrayColumn, ClassificationOutput, Signature
from service.app import create_app
from service.config import Settings
from tests.image_files import huge_png, image_file, noise, with_scans
from tests.service.conftest import assert_error, network, text_error
from tests.service.server.test_fast_path import fast_path_of, take

SHAPE, MAX_BODY = (8, 8, 3), 2**16
FILES = [
    image_file(noise(40, 60, 3)),
    image_file(noise(30, 20, 3), "JPEG"),
    image_file(noise(9, 9)),
    image_file(noise(8, 8, 4)),
]
PREDICT, V1, V2 = "/models/photo/predict", "/v1/models/photo:predict", "/v2/models/photo/infer"
JSON_LENGTH = "Inference-Header-Content-Length"


def photo(shape: tuple[int, ...] = SHAPE) -> Model:
    known = {"min": 0.0, "mean": 100.0, "max": 255.0, "std": 50.0}
    column = ArrayColumn("image", shape, 0.0, 255.0, 0.0, 255.0, known, image_crop="center")
    signature = Signature((column,), ClassificationOutput("animal", ("cat", "dog")))
    return Model(network(signature.width, 2, 0, softmax=True), signature, "Cats and dogs")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    folder = tmp_path_factory.mktemp("photo")
    open_store(folder / "models").publish("photo", photo())
    settings = {"store": str(folder / "models"), "poll_seconds": 0, "cache_dir": str(folder / "cache")}
    return create_app(Settings(**settings, max_body_bytes=MAX_BODY)).test_client()


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def expected(client: FlaskClient, files: list[bytes] = FILES) -> list[Any]:
    """Return the predictions of the pixels, sent as numbers."""
    pixels = [decode_image(read_image_file(data), SHAPE, "center").tolist() for data in files]
    found: list[Any] = client.post(PREDICT, json={"instances": pixels}).json["predictions"]
    return found


def binary(files: list[bytes]) -> dict[str, Any]:
    tail = b"".join(struct.pack("<I", len(data)) + data for data in files)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(files), 1]}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(tail)}}]}).encode()
    return {"data": head + tail, "headers": {JSON_LENGTH: str(len(head))}}


def test_every_protocol_predicts_the_bits_of_the_pixels(client: FlaskClient) -> None:
    wanted = expected(client)
    for rows in ([b64(data) for data in FILES], [{"image": b64(data)} for data in FILES]):
        assert client.post(PREDICT, json={"instances": rows}).json["predictions"] == wanted
        assert client.post("/invocations", json={"instances": rows}).json["predictions"] == wanted
        found = client.post(V1, json={"instances": rows}).json["predictions"]
        assert [list(one["probabilities"]) for one in found] == [list(one["probabilities"].values()) for one in wanted]
    columns = client.post(V1, json={"inputs": {"image": [b64(data) for data in FILES]}}).json["outputs"]
    assert columns["label"] == [one["label"] for one in wanted]
    texts = {"name": "image", "datatype": "BYTES", "shape": [4], "data": [b64(data)["b64"] for data in FILES]}
    flat = [value for one in wanted for value in one["probabilities"].values()]
    for sent in ({"json": {"inputs": [texts]}}, binary(FILES)):
        outputs = {one["name"]: one["data"] for one in client.post(V2, **sent).json["outputs"]}
        assert outputs == {"label": columns["label"], "probabilities": flat}


@pytest.mark.parametrize(("i", "kind"), [(0, "image/png"), (1, "image/jpeg")])
def test_a_body_may_be_an_image_file(client: FlaskClient, i: int, kind: str) -> None:
    found = client.post(f"{PREDICT}?receipt=true", data=FILES[i], content_type=kind).json
    assert found["predictions"] == expected(client, FILES[i : i + 1])
    assert found["receipt"]


def test_the_fast_path_decodes_images(client: FlaskClient) -> None:
    body = json.dumps({"instances": [b64(FILES[0])]}).encode()
    parsed = take(fast_path_of(client), body, path=PREDICT)
    assert parsed is not None


def test_files_end_in_zero_bytes(client: FlaskClient) -> None:
    """An array of NumPy's bytes would lose them."""
    data = FILES[0] + bytes(3)
    outputs = client.post(V2, **binary([data])).json["outputs"]
    assert outputs[0]["data"] == [expected(client, FILES[:1])[0]["label"]]


def test_invalid_files_are_reported_with_their_rows(client: FlaskClient) -> None:
    rows = [b64(FILES[0]), b64(b"GIF89a"), b64(FILES[0][:-20]), {"b64": "?"}, "cat.png", b64(huge_png())]
    error = assert_error(client.post(PREDICT, json={"instances": rows}), 422, "invalid_request")
    assert [fault["location"] for fault in error["faults"]] == [f"instances.{i}" for i in range(1, 6)]
    assert "found 30000 x 30000" in error["faults"][4]["problem"]
    assert "instances.1: expected a PNG or JPEG file" in text_error(client.post(V1, json={"instances": rows}))
    assert "image.1: expected a PNG or JPEG file" in text_error(client.post(V2, **binary([FILES[0], b"GIF89a"])))
    error = assert_error(client.post(PREDICT, data=b"GIF89a", content_type="image/png"), 422, "invalid_request")
    assert error["faults"][0]["location"] == "rows.0"


def test_the_pixels_of_a_row_to_compare_with_are_limited(client: FlaskClient) -> None:
    pixels = decode_image(read_image_file(FILES[0]), SHAPE, "center").tolist()
    by_file, by_pixels = (
        client.post(PREDICT, json={"instances": [b64(FILES[1])], "explain": {"baseline": baseline}}).json
        for baseline in (b64(FILES[0]), pixels)
    )
    assert by_file == by_pixels
    assert np.shape(by_file["explanations"][0]["contributions"]["image"]) == SHAPE
    large = b64(image_file(np.zeros((400, 400), np.uint8)))
    body = {"instances": [b64(FILES[1])], "explain": {"baseline": large}}
    error = assert_error(client.post(PREDICT, json=body), 413, "too_many_rows")
    assert error["faults"][0]["location"] == "explain.baseline"


def test_the_pixels_of_a_request_are_counted_before_one_is_decoded(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file has a few hundred bytes, and 90,000 pixels; a request may have 131,072."""
    large = image_file(np.zeros((300, 300), np.uint8))
    assert len(large) < 1000
    assert client.post(PREDICT, json={"instances": [b64(large)]}).status_code == 200
    sizes = list[int]()
    monkeypatch.setattr(array, "decode_image", lambda file, *to: sizes.append(file.width) or decode_image(file, *to))
    error = assert_error(client.post(PREDICT, json={"instances": [b64(large)] * 2}), 413, "too_many_rows")
    assert "image files of at most 131072 pixels in a request, found more; send 1 row at a time" in error["message"]
    larger = image_file(np.zeros((400, 400), np.uint8))
    error = assert_error(client.post(PREDICT, data=larger, content_type="image/png"), 413, "too_many_rows")
    assert "send it smaller" in error["message"]
    progressive = with_scans(image_file(np.zeros((300, 300), np.uint8), "JPEG", progressive=True), 40)
    for sent in (
        {"path": V1, "json": {"instances": [{"image": b64(large)}] * 2}},
        {"path": V1, "json": {"inputs": {"image": [b64(large)] * 2}}},
        {"path": V2, **binary([large] * 2)},
        {"path": V2, **binary([progressive])},
    ):
        assert "at most 131072 pixels" in text_error(client.post(**sent), 413)
    many = [b64(image_file(noise(1, 1)))] * 40
    assert_error(client.post(PREDICT, json={"instances": many}), 413, "too_many_rows")  # a file costs by itself
    assert set(sizes) == {1}  # that of the example in an error


def test_an_image_file_is_explained_by_a_map_of_its_shape(tmp_path: Path) -> None:
    model = photo()
    mean = Answers(np.full(model.signature.width, 0.4, model.network.dtype))
    open_store(tmp_path / "models").publish("photo", replace(model, answers=mean))
    app = create_app(Settings(store=str(tmp_path / "models"), poll_seconds=0, cache_dir=str(tmp_path / "cache")))
    client = app.test_client()
    found = client.post(f"{PREDICT}?explain_label=cat", data=FILES[0], content_type="image/png").json
    assert found == client.post(PREDICT, json={"instances": [b64(FILES[0])], "explain": {"label": "cat"}}).json
    (explanation,) = found["explanations"]
    contributions = np.array(explanation["contributions"]["image"])
    assert contributions.shape == SHAPE
    assert contributions.sum() == pytest.approx(explanation["answer"] - explanation["baseline"], rel=1e-3)


def test_a_file_is_read_once_for_the_check_and_the_pixels(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = list[int]()
    monkeypatch.setattr(
        image_decoding, "read_image_file", lambda data: lengths.append(len(data)) or read_image_file(data)
    )
    for sent in (
        {"path": PREDICT, "json": {"instances": [b64(FILES[0])]}},
        {"path": V1, "json": {"instances": [{"image": b64(FILES[0])}]}},
        {"path": V2, **binary(FILES[:1])},
        {"path": PREDICT, "data": FILES[0], "content_type": "image/png"},
    ):
        lengths.clear()
        assert client.post(**sent).status_code == 200
        assert lengths == [len(FILES[0])]


def test_files_that_are_rejected_count(client: FlaskClient) -> None:
    rows = [b64(b"\xff\xd8" + b"\xff\xfe\0\2" * 50)] * 5
    assert_error(client.post(PREDICT, json={"instances": rows}), 422, "invalid_request")
    assert_error(client.post(PREDICT, json={"instances": rows * 4}), 413, "too_many_rows")


def test_an_image_is_not_decoded_for_the_example_of_an_error(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have more pixels than a request may."""
    larger, sizes = image_file(np.zeros((400, 400), np.uint8)), list[int]()
    monkeypatch.setattr(array, "decode_image", lambda file, *to: sizes.append(file.width) or decode_image(file, *to))
    error = assert_error(client.post(PREDICT, json={"instances": [{"image": b64(larger)}]}), 413, "too_many_rows")
    assert sizes == [1]
    assert client.post(PREDICT, json=error["example"]["body"]).status_code == 200
    assert error["example"]["body"]["instances"][0].keys() == {"b64"}


def test_without_pillow_pixels_are_predicted_and_files_are_an_error(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    error = assert_error(client.post(PREDICT, json={"instances": [b64(FILES[0])]}), 422, "invalid_request")
    assert "expected Pillow, which decodes images, found none (install the extra images" in error["message"]
    assert client.post(PREDICT, json={"instances": [[0] * 192]}).status_code == 200


def test_a_model_without_images_refuses_their_bodies(tmp_path: Path) -> None:
    from tests.service.conftest import image, penguins

    store = open_store(tmp_path / "models")
    for name, model in {"penguins": penguins(), "image": image()}.items():
        store.publish(name, model)
    client = create_app(Settings(store=str(store.root), poll_seconds=0, cache_dir=str(tmp_path))).test_client()
    for name in ("penguins", "image"):
        found = client.post(f"/models/{name}/predict", data=FILES[0], content_type="image/png")
        assert "found an image file" in assert_error(found, 422, "invalid_request")["message"]


def test_shapes_that_are_neither_files_nor_pixels_are_refused(client: FlaskClient) -> None:
    for datatype, data in (("FP32", [0.5]), ("BYTES", ["a"] * 192)):
        tensor = {"name": "image", "datatype": datatype, "shape": [1, len(data)], "data": data}
        assert "expected" in text_error(client.post(V2, json={"inputs": [tensor]}))


def test_the_document_and_the_page_show_the_form(client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_data(as_text=True)
    assert '"contentEncoding": "base64"' in document or '"contentEncoding":"base64"' in document
    assert "PNG or JPEG" in client.get("/docs/models/photo").get_data(as_text=True) + client.get(
        "/docs", headers={"Accept": "text/html"}
    ).get_data(as_text=True)
    columns = client.get("/models/photo").json["inputs"]
    assert columns[0]["image_crop"] == "center"
    assert ArrayColumn.from_public_details(columns[0]).takes_files
