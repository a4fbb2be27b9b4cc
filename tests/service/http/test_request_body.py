"""The request body: strict JSON, complete, with a supported content type, within its limit."""

import gzip
from io import BytesIO

import pytest

from tests.service.conftest import assert_error

GOOD = b'{"instances": [[3, 80]]}'
ADDRESS = "/models/price/predict"


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "text/plain",
        "application/vnd.rows+json",
    ],
)
def test_a_body_with_a_missing_or_generic_content_type_is_json(client, content_type):
    assert client.post(ADDRESS, data=GOOD, content_type=content_type).status_code == 200


@pytest.mark.parametrize("content_type", ["text/html", "multipart/form-data; boundary=x", "application/xml"])
def test_another_content_type_is_415(client, content_type):
    assert_error(client.post(ADDRESS, data=GOOD, content_type=content_type), 415, "unsupported_media_type")


def test_a_compressed_body_is_decompressed(client):
    response = client.post(ADDRESS, data=gzip.compress(GOOD), headers={"Content-Encoding": "gzip"})
    assert response.json == client.post(ADDRESS, data=GOOD).json


def test_another_content_encoding_is_415(client):
    response = client.post(ADDRESS, data=GOOD, headers={"Content-Encoding": "br"})
    assert_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", "empty"),
        (b"  ", "not JSON"),
        (b"{", "line 1 column 2"),
        (b'{"instances": [[NaN, 1]]}', "send null for a missing value"),
        (b'{"instances": [[Infinity, 1]]}', "finite numbers only"),
        (b'{"instances": [[-Infinity, 1]]}', "finite numbers only"),
        (b'{"instances": [[1e999, 1]]}', "finite numbers only"),
        (b'{"instances": [[' + b"9" * 5000 + b", 1]]}", "finite numbers only"),
        (b"{'instances': []}", "that is Python"),
        (b'{"instances": [[True, 1]]}', "that is Python"),
        (b'{"instances": [[1, 2]]} x', "unexpected content"),
        (b"[" * 100_000, "depth limit"),
        (b'{"instances":' + b"[" * 2000 + b"]" * 2000 + b"}", "depth limit"),
        (b'"\xff\xfe"', "not valid UTF-8"),
        (b'"\\ud800"', "surrogate"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
    ],
)
def test_invalid_json_is_400_with_its_location(client, body, hint):
    error = assert_error(client.post(ADDRESS, data=body), 400, "bad_json")
    assert hint in error["message"]
    assert len(error["message"]) < 400


@pytest.mark.parametrize("body", [b"[]", b"3", b'"text"', b"null", b"true"])
def test_json_that_is_not_an_object_is_422(client, body):
    error = assert_error(client.post(ADDRESS, data=body), 422, "invalid_request")
    assert error["faults"][0]["location"] == "body"


def test_a_body_over_the_limit_is_413_before_it_is_read(store, make_client):
    client = make_client(store, max_body_bytes=len(GOOD))
    assert client.post(ADDRESS, data=GOOD).status_code == 200

    class Untouched(BytesIO):
        def read(self, *_):
            raise AssertionError("the body was read")

    response = client.post(ADDRESS, input_stream=Untouched(), environ_overrides={"CONTENT_LENGTH": str(len(GOOD) + 1)})
    error = assert_error(response, 413, "body_too_large")
    assert f"at most {len(GOOD):,} bytes" in error["message"]


def test_a_chunked_body_over_the_limit_is_413(store, make_client):
    client = make_client(store, max_body_bytes=len(GOOD))
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    whole = client.post(ADDRESS, input_stream=BytesIO(GOOD), environ_overrides=chunked)
    assert whole.status_code == 200
    more = client.post(ADDRESS, input_stream=BytesIO(GOOD + b" "), environ_overrides=chunked)
    assert_error(more, 413, "body_too_large")


def test_json_with_too_many_values_for_its_limit_is_413(store, make_client):
    """Python takes 32 bytes for a number that takes two in JSON: a body of 8 MB would take 125 MB."""
    client = make_client(store, max_body_bytes=2**21)
    many = b'{"instances": [[' + b"1," * (2**21 // 16) + b"1]]}"
    padding = b" " * (2**20 - len(many))
    assert len(many + padding) == 2**20
    assert_error(client.post(ADDRESS, data=many + padding), 422, "invalid_request")
    for path in (ADDRESS, "/v1/models/price:predict", "/v2/models/price/infer"):
        response = client.post(path, data=many + padding + b" ")
        assert response.status_code == 413, path
        assert "at most 131072 values in JSON, found about 131076; send fewer rows" in response.get_data(as_text=True)


@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nested_lists_count_as_values(client, start, end):
    """8 MB of nested lists have few commas; parsing them took a worker 3 to 6 s and 390 MB."""
    nested = start * 100 + b"1" + end * 100 + b","
    body = b'{"instances": [' + nested * (2**23 // len(nested) - 1) + b"1]}"
    assert body.count(b",") < 50_000
    assert "values in JSON" in assert_error(client.post(ADDRESS, data=body), 413, "body_too_large")["message"]


def test_csv_with_too_many_values_for_its_limit_is_413(store, make_client):
    client = make_client(store, max_body_bytes=2**21)
    response = client.post(ADDRESS, data=b"1," * (2**21 // 16) + b"1" * 2**20, content_type="text/csv")
    assert response.status_code == 413
    assert "at most 131072 values in CSV, found about 131073; send fewer rows" in response.get_data(as_text=True)


def test_a_body_shorter_than_its_content_length_is_400(client):
    response = client.post(
        ADDRESS, input_stream=BytesIO(GOOD), environ_overrides={"CONTENT_LENGTH": str(len(GOOD) + 1)}
    )
    error = assert_error(response, 400, "broken_body")
    assert f"{len(GOOD)} came" in error["message"]


def test_a_body_that_the_server_cannot_read_is_400(client):
    class Broken(BytesIO):
        def read(self, *_):
            raise OSError("the connection is gone")

    response = client.post(ADDRESS, input_stream=Broken(), environ_overrides={"CONTENT_LENGTH": "10"})
    assert_error(response, 400, "broken_body")
