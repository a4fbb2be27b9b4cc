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
    monkeypatch.setattr("zipfile.ZipFile.__init__", lambda *_: pytest.fail("opened the archive"))
    found = client.post(PREDICT, data=body.getvalue(), content_type=NPY)
    assert "not an .npy file" in assert_error(found, 400, "broken_body")["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"\x93NUMPY", npy(np.zeros((1, 2, 2)))[:-1], b"PK\x03\x04", npy(np.zeros(2)).replace(b"<f8", b"|O8")],
)
def test_a_broken_array_is_rejected(client, body):
    assert_error(client.post(PREDICT, data=body, content_type=NPY), 400, "broken_body")


@pytest.mark.parametrize("array", [np.array(["x"]), np.array([1j]), np.zeros(2, "f4,f4"), np.zeros(2, "M8[s]")])
def test_an_array_of_other_values_is_rejected(client, array):
    assert_error(client.post(PREDICT, data=npy(array), content_type=NPY), 422, "invalid_request")
