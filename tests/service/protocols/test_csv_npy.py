""".npy request bodies."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest

from tests.service.conftest import assert_error

PREDICT, NPY = "/models/image/predict", "application/x-npy"


def npy(array: np.ndarray) -> bytes:
    body = BytesIO()
    np.save(body, array)
    return body.getvalue()


def test_an_array_is_predicted(client):
    pixels = np.arange(8).reshape(2, 2, 2)
    found = client.post(PREDICT, data=npy(pixels), content_type=NPY)
    assert found.json["predictions"] == client.post(PREDICT, json={"instances": pixels.tolist()}).json["predictions"]


def test_an_archive_of_arrays_is_rejected_unread(client, monkeypatch: pytest.MonkeyPatch):
    """An archive of 180,000 entries took 1.5 s."""
    body = BytesIO()
    np.savez(body, **{f"a{i}": np.zeros(1) for i in range(100)})
    monkeypatch.setattr("zipfile.ZipFile.__init__", lambda *_, **__: pytest.fail("opened the archive"))
    found = client.post(PREDICT, data=body.getvalue(), content_type=NPY)
    assert "not an .npy file" in assert_error(found, 400, "broken_body")["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"\x93NUMPY", npy(np.zeros((1, 2, 2)))[:-1], b"PK\x03\x04", npy(np.zeros(2)).replace(b"<f8", b"|O8")],
)
def test_a_broken_array_is_rejected(client, body):
    assert_error(client.post(PREDICT, data=body, content_type=NPY), 400, "broken_body")


def with_shape(shape: str) -> bytes:
    body = npy(np.zeros(2))
    assert body.count(b"(2,), }") == 1
    return body.replace(b"(2,), }" + b" " * len(shape), f"{shape}, }}".encode() + b" " * 4)


@pytest.mark.parametrize("shape", ["(281474976710656,)", "(1267650600228229401496703205376,)", "(-1,)", "(-1, -2)"])
def test_a_shape_that_the_body_does_not_have_is_rejected_without_allocating_it(client, shape):
    assert len(with_shape(shape)) == len(npy(np.zeros(2)))
    response = client.post(PREDICT, data=with_shape(shape), content_type=NPY)
    assert "not an .npy file" in assert_error(response, 400, "broken_body")["message"]


def test_a_header_that_python_cannot_parse_is_rejected(client):
    header = b"-" * 9000 + b"1"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    response = client.post(PREDICT, data=body, content_type=NPY)
    assert "nested too deeply" in assert_error(response, 400, "broken_body")["message"]


def test_too_little_memory_for_an_array_is_500(client, monkeypatch: pytest.MonkeyPatch):
    """400 would tell the client that a valid array is invalid."""

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("model_store.utils.npy.np.frombuffer", fail)
    response = client.post(PREDICT, data=npy(np.zeros((1, 2, 2))), content_type=NPY)
    assert_error(response, 500, "internal_error")


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_versions_of_the_format_are_read(client, version):
    body = BytesIO()
    np.lib.format.write_array(body, np.ones((1, 2, 2), ">f4", order="F"), version)
    assert client.post(PREDICT, data=body.getvalue(), content_type=NPY).status_code == 200
    whole = body.getvalue().replace(b"NUMPY" + bytes(version), b"NUMPY\x03\x00")
    response = client.post(PREDICT, data=whole, content_type=NPY)
    assert "expected version 1.0 or 2.0, found 3.0" in assert_error(response, 400, "broken_body")["message"]


@pytest.mark.parametrize("array", [np.array(["x"]), np.array([1j]), np.zeros(2, "f4,f4"), np.zeros(2, "M8[s]")])
def test_an_array_of_other_values_is_rejected(client, array):
    assert_error(client.post(PREDICT, data=npy(array), content_type=NPY), 422, "invalid_request")
