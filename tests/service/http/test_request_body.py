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
    error = assert_error(client.post(ADDRESS, data=GOOD, content_type=content_type), 415, "unsupported_media_type")
    assert (
        "expected one of application/json, text/csv, application/x-npy, image/png, image/jpeg; found"
        in error["message"]
    )


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "gzip, identity", " gzip ,"])
def test_a_compressed_body_is_decompressed(client, coding):
    response = client.post(ADDRESS, data=gzip.compress(GOOD), headers={"Content-Encoding": coding})
    assert response.json == client.post(ADDRESS, data=GOOD).json


def test_a_body_that_was_compressed_a_hundredfold_is_413(client):
    """8 kB of gzip held 8 MB of JSON: the costliest body by what was sent."""
    for size, expected in ((2**20, 200), (2**20 + 1, 413), (6 * 2**20, 413)):
        body = GOOD + b" " * (size - len(GOOD))
        compressed = gzip.compress(body)
        response = client.post(ADDRESS, data=compressed, headers={"Content-Encoding": "gzip"})
        assert response.status_code == expected
        assert client.post(ADDRESS, data=body).status_code == 200
    error = assert_error(response, 413, "body_too_large")
    assert (
        "bytes, 100 times as many as were sent, found more when decompressed; send it uncompressed" in error["message"]
    )


@pytest.mark.parametrize("coding", ["", "identity", " , "])
def test_an_empty_content_encoding_is_none(client, coding):
    response = client.post(ADDRESS, data=GOOD, headers={"Content-Encoding": coding})
    assert response.json == client.post(ADDRESS, data=GOOD).json


def test_another_content_encoding_is_415(client):
    for coding in ("br", "gzip, gzip"):
        response = client.post(ADDRESS, data=GOOD, headers={"Content-Encoding": coding})
        assert coding in assert_error(response, 415, "unsupported_media_type")["message"]


@pytest.mark.parametrize("coding", ["gzip, chunked", "deflate,chunked"])
def test_a_transfer_coding_other_than_chunked_is_501(client, coding):
    headers = {"Transfer-Encoding": coding}
    response = client.post(ADDRESS, input_stream=BytesIO(gzip.compress(GOOD)), headers=headers)
    assert coding in assert_error(response, 501, "bad_request")["message"]


def test_a_byte_order_mark_is_skipped_in_every_body(client):
    tensors = b'{"inputs": [{"name": "instances", "shape": [1, 2], "datatype": "FP64", "data": [3, 80]}]}'
    for path, body, content_type in (
        (ADDRESS, GOOD, "application/json"),
        ("/v1/models/price:predict", GOOD, "application/json"),
        ("/v2/models/price/infer", tensors, "application/json"),
        (ADDRESS, b"rooms,area\n3,80\n", "text/csv"),
    ):
        with_mark = client.post(path, data=b"\xef\xbb\xbf" + body, content_type=content_type)
        assert with_mark.status_code == 200, with_mark.json
        assert with_mark.json == client.post(path, data=body, content_type=content_type).json


TENSOR = '{"name": "rooms", "shape": [1, 1], "datatype": "FP64", "data": [3]}'


@pytest.mark.parametrize(
    ("path", "body", "location"),
    [
        (ADDRESS, '{"instances": [[3, 80]], "instances": [[5, 80]]}', "instances"),
        (ADDRESS, '{"instances": [{"rooms": 3, "area": 80, "rooms": 5}]}', "instances.0.rooms"),
        (ADDRESS, '{"instances": [{"rooms": 3}, {"rooms": 3, "\\u0072ooms": 5}]}', "instances.1.rooms"),
        ("/predict", '{"model": "image", "instances": [[3, 80]], "model": "price"}', "model"),
        ("/invocations", '{"model": "price", "instances": [[3, 80]], "parameters": {"a": 1, "a": 2}}', "parameters.a"),
        ("/v1/models/price:predict", '{"inputs": {"rooms": [3], "area": [80], "rooms": [5]}}', "inputs.rooms"),
        (
            "/v1/models/price:predict",
            '{"instances": [[3, 80]], "signature_name": "", "signature_name": ""}',
            "signature_name",
        ),
        ("/v2/models/price/infer", f'{{"inputs": [{TENSOR[:-1]}, "data": [5]}}]}}', "inputs.0.data"),
        ("/v2/models/price/infer", f'{{"id": "1", "inputs": [{TENSOR}], "id": "2"}}', "id"),
    ],
)
def test_a_key_that_is_sent_twice_is_rejected_by_name(client, path, body, location):
    response = client.post(path, data=body)
    text = response.get_json()["error"]
    message = text if isinstance(text, str) else text["message"]
    assert response.status_code == (400 if path.startswith("/v") else 422)
    assert f": {location}: expected each key once, found this one 2 times" in message


def test_colons_in_texts_are_no_keys(client):
    answer = client.post("/models/penguins/predict", data='{"instances": [{"island": "a:b", "mass": 1, "sex": null}]}')
    assert "found 'a:b'" in assert_error(answer, 422, "invalid_request")["message"]


def test_a_key_that_is_sent_twice_to_the_repository_is_rejected(store, make_client):
    client = make_client(store, admin=True, admin_port=80)  # the port of Flask's test client
    response = client.post("/v2/repository/index", data='{"ready": true, "ready": false}')
    assert response.status_code == 400
    assert "ready: expected each key once" in response.get_json()["error"]


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
        (b"rooms,area\n3,80\n", "for CSV send Content-Type: text/csv, with curl as --data-binary"),
        (b"rooms,area3,80", "for CSV send Content-Type: text/csv"),
        (b'{"instances": [3 80]}', "write valid JSON"),
        (b'{"instances": [[True, 1]]}', "that is Python"),
        (b'{"instances": [[1, 2]]} x', "unexpected content"),
        (b"[" * 100_000, "depth limit"),
        (b'{"instances":' + b"[" * 2000 + b"]" * 2000 + b"}", "depth limit"),
        (b'"\xff\xfe"', "not valid UTF-8"),
        (b'"\\ud800"', "surrogate"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not valid UTF-8"),
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


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_of_csv_count_as_values_also_empty_ones(store, make_client, end):
    """8 MB of empty lines, 8 kB compressed, took 2.6 s."""
    client = make_client(store, max_body_bytes=2**21)
    body = (b"1" + end) * (2**21 // 16)
    response = client.post(ADDRESS, data=body + b"1" * 2**20, content_type="text/csv")
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


def test_too_little_memory_for_a_body_is_500(client):
    """400 would tell the client that a valid body is invalid."""

    class Large(BytesIO):
        def read(self, *_):
            raise MemoryError

    response = client.post(ADDRESS, input_stream=Large(), environ_overrides={"CONTENT_LENGTH": "10"})
    assert_error(response, 500, "internal_error")
