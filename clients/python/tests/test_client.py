"""The client against scripted servers. tests/service/test_client.py lets it call the service."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from forward_pass_client import Client, InputError, ServiceError, tensors

Response = tuple[int, dict[str, str], bytes]


@pytest.fixture
def scripted() -> Iterator[Callable[..., str]]:
    """Servers that send the given responses in turn."""
    servers = []

    def start(*responses: Response) -> str:
        left = list(responses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, body = left.pop(0)
                if not status:
                    return  # the connection is closed
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


GOOD: Response = (200, {}, json.dumps({"predictions": [7.0]}).encode())
BUSY: Response = (503, {"Retry-After": "5"}, b'{"error": "no model"}')


@pytest.mark.parametrize("dtype", ["?", "u1", "u8", "i2", "f2", "f4", "f8", ">f8", ">i4"])
def test_arrays_of_every_datatype_keep_their_values(dtype):
    head, tail = tensors.encode_request({"x": np.array([[0, 1]], dtype)})
    sent = json.loads(head)["inputs"]
    answer = json.dumps({"outputs": sent}).encode()
    assert np.asarray(tensors.decode_response(answer + tail, len(answer), 10)).tolist() == [[0, 1]]


def test_client_retries_after_retry_after(scripted):
    waits: list[float] = []
    client = Client(scripted(BUSY, (503, {}, b"busy"), (0, {}, b""), GOOD), sleep=waits.append)
    assert client.predict("price", [[3, 80]]) == [7.0]
    assert waits == [5.0, 0.2, 0.4]
    client.close()


def test_client_waits_at_most_30_seconds_and_ignores_an_invalid_retry_after(scripted):
    waits: list[float] = []
    odd = [(503, {"Retry-After": text}, b"") for text in ("9999", "Wed, 21 Oct 2015 07:28:00 GMT", "-1")]
    client = Client(scripted(*odd, GOOD), sleep=waits.append)
    assert client.predict("price", [[3, 80]]) == [7.0]
    assert waits == [30.0, 0.2, 0.4]
    client.close()


def test_client_does_not_retry_after_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.05, sleep=pytest.fail)
        with pytest.raises(ServiceError, match="no response: timed out") as caught:
            client.predict("price", [[3, 80]])
        assert caught.value.status is None


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_the_timeout_is_that_of_the_whole_response(start: bytes) -> None:
    """A server that sends a byte of the head or of the body every 20 ms kept its client for as long as it liked."""
    ended = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(start)
            while not ended.wait(0.02):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=0.3)
        with pytest.raises(ServiceError, match="no response: timed out"):
            client.predict("model", [[1]])
        ended.set()
        thread.join()


def test_a_response_does_not_shorten_the_time_of_the_next_one(scripted: Callable[..., str]) -> None:
    with Client(scripted(GOOD, GOOD), timeout_seconds=5) as client:
        assert client.predict("model", [[1]]) == [7.0]
        assert client.predict("model", [[1]]) == [7.0]


@pytest.mark.parametrize("status", [200, 500])
def test_a_response_that_is_too_long_is_an_error(scripted: Callable[..., str], status: int) -> None:
    long = (status, {}, b'{"predictions": [' + b" " * 5000 + b"7.0]}")
    with pytest.raises(ServiceError, match="/predict: expected a response of at most 4000 bytes, found more; "):
        Client(scripted(long), max_response_bytes=4000).predict("model", [[1]])
    assert Client(scripted((200, *long[1:])), max_response_bytes=6000).predict("model", [[1]]) == [7.0]


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("value", [b"[]", b"{}", b"1"])
def test_a_response_of_too_many_values_is_an_error(scripted: Callable[..., str], status: int, value: bytes) -> None:
    """250 MiB of empty lists took 6.5 GB of memory."""
    body = b'{"predictions": [' + b",".join([value] * 600_000) + b"]}"
    with pytest.raises(ServiceError, match="expected a response of at most 262144 values, found more; send fewer"):
        Client(scripted((status, {}, body)), max_response_bytes=4 << 20).predict("model", [[1]])
    with pytest.raises(ServiceError, match="at most 262144 values"):
        Client(scripted((status, {}, body)), max_response_bytes=4 << 20).predict("model", {"x": np.ones(1)})


def test_the_largest_response_of_the_service_is_read(scripted: Callable[..., str]) -> None:
    """SERVE_MAX_OUTPUT_VALUES values, each with all digits of a number and a label of 31 characters."""
    row = b"{" + b",".join(b'"%s": 0.%017d' % (b"x" * 31, i) for i in range(1024)) + b"}"
    body = b'{"predictions": [' + b",".join([row] * 1024) + b"]}"
    assert len(Client(scripted((200, {}, body))).predict("model", [[1]] * 1024)[0]) == 1


@pytest.mark.parametrize(
    ("character", "limit"), [("é", None), ("中", 2 << 20), ("😀", 1 << 20), (r"\ud83d\ude00", 1 << 20)]
)
def test_json_counts_the_bytes_of_its_characters_in_memory(
    scripted: Callable[..., str], character: str, limit: int | None
) -> None:
    """60 MiB with one emoji took 540 MiB, as Python keeps each text with four bytes a character."""
    body = b'{"predictions": [{"label": "%s%s"}]}' % (b"a" * (3 << 20), character.encode())
    client = Client(scripted((200, {}, body)), max_response_bytes=4 << 20)
    if limit is None:
        assert client.predict("model", [[1]])[0]["label"].endswith("é")
    else:
        with pytest.raises(ServiceError, match=f"expected at most {limit} bytes of JSON with characters of"):
            client.predict("model", [[1]])


@pytest.mark.parametrize(
    ("predictions", "problem"),
    [
        ('"ab"', "expected a list of predictions, found str"),
        ('{"a": 1, "b": 2}', "expected a list of predictions, found dict"),
        ("5", "expected a list of predictions, found int"),
        ("[1, null]", "predictions.1: expected a number or an object, found NoneType"),
        ('["a", 1]', "predictions.0: expected a number or an object, found str"),
        ("[true, 1]", "predictions.0: expected a number or an object, found bool"),
        ("[{}, []]", "predictions.1: expected a number or an object, found list"),
    ],
)
def test_predictions_of_another_type_are_an_error(scripted: Callable[..., str], predictions: str, problem: str) -> None:
    body = b'{"predictions": %s}' % predictions.encode()
    with pytest.raises(ServiceError, match=re.escape(problem)):
        Client(scripted((200, {}, body))).predict("model", [[1], [2]])


def test_a_binary_response_of_too_many_texts_is_an_error(scripted: Callable[..., str]) -> None:
    data = b"\2\0\0\0ab" * 100
    output = {"name": "y", "datatype": "BYTES", "shape": [100], "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"outputs": [output]}).encode()
    response = (200, {"Inference-Header-Content-Length": str(len(header))}, header + data)
    rows = {"x": np.ones(100)}
    assert len(Client(scripted(response)).predict("model", rows)) == 100
    with pytest.raises(ServiceError, match="expected a response of the service"):
        Client(scripted(response), max_response_bytes=1000).predict("model", rows)


@pytest.mark.parametrize("chunk", [b"-5", b"-7fffffffffffffff"])
def test_a_chunk_of_negative_size_is_a_service_error(scripted: Callable[..., str], chunk: bytes) -> None:
    answer = (200, {"Transfer-Encoding": "chunked", "Content-Length": "0"}, chunk + b"\r\nxxxxxxxx\r\n0\r\n\r\n")
    with pytest.raises(ServiceError, match="no response: "):
        Client(scripted(answer), retries=0).predict("model", [[1]])


def test_a_response_that_ends_early_is_retried(scripted: Callable[..., str]) -> None:
    short = (200, {"Content-Length": "1000"}, b"{")
    waits: list[float] = []
    assert Client(scripted(short, GOOD), sleep=waits.append).predict("model", [[1]]) == [7.0]
    assert waits == [0.1]


def test_there_is_a_prediction_for_each_row(scripted: Callable[..., str]) -> None:
    with pytest.raises(ServiceError, match="expected 2 predictions, one for each row; found 1"):
        Client(scripted(GOOD)).predict("model", [[1], [2]])
    header = json.dumps(
        {"outputs": [{"name": "y", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}]}
    )
    binary = (200, {"Inference-Header-Content-Length": str(len(header))}, header.encode() + bytes(8))
    with pytest.raises(ServiceError, match="expected 3 predictions, one for each row; found 1"):
        Client(scripted(binary)).predict("model", {"x": np.arange(3.0)})


def test_an_error_that_is_nested_deeply_is_shown_as_text(scripted: Callable[..., str]) -> None:
    with pytest.raises(ServiceError, match=r"status 500: \[\[\["):
        Client(scripted((500, {}, b"[" * 50_000))).predict("model", [[1]])


def test_retries_end(scripted):
    with pytest.raises(ServiceError, match="status 503: no model") as caught:
        Client(scripted(BUSY, BUSY), retries=1, sleep=lambda _: None).predict("price", [[3, 80]])
    assert caught.value.status == 503
    with pytest.raises(ServiceError, match="no response") as caught:
        Client("http://127.0.0.1:1", retries=1, sleep=lambda _: None).predict("price", [[3, 80]])
    assert caught.value.status is None


def test_response_of_another_server_raises_service_error(scripted):
    with pytest.raises(ServiceError, match="status 502: <html>"):
        Client(scripted((502, {}, b"<html>bad gateway</html>"))).predict("price", [[3, 80]])
    for url in ("127.0.0.1:8000", "ftp://x", "http://"):
        with pytest.raises(ServiceError, match="expected a URL such as"):
            Client(url)


@pytest.mark.parametrize("key", ["fp_a\r\nX-Admin: yes", "fp_\N{SNOWMAN}", "fp_\x00"])
def test_key_with_control_characters_is_not_sent(key: str) -> None:
    with pytest.raises(ServiceError, match="printable"):
        Client("http://127.0.0.1:1", key=key)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, float("inf")]], "instances.0.1: expected a finite number, found an infinite one"),
        ([{"mass": -np.float32("inf")}], "instances.0.mass: expected a finite number"),
        ([[10**5000]], "instances.0.0: expected a finite number"),
        ([[1], [datetime(2024, 1, 1, tzinfo=UTC)]], "instances.1.0: expected a number, text, .*, found datetime"),
        ([[1j]], "instances.0.0: .* found complex"),
        ([{"a": {1, 2}}, {"a": b"x"}], r"instances.0.a: .* found set .*; instances.1.a: .* found bytes"),
        ([{np.int64(1): 2}], "instances.0: expected names of columns, found int64 '1'"),
    ],
)
def test_rows_that_json_lacks_are_reported_with_their_locations(rows, message):
    with pytest.raises(InputError, match=message) as caught:
        Client("http://127.0.0.1:9", sleep=pytest.fail).predict("price", rows)
    assert caught.value.status is None


def test_rows_in_themselves_are_reported():
    rows: list[Any] = []
    rows.append(rows)
    with pytest.raises(InputError, match="nested too deeply"):
        Client("http://127.0.0.1:9", sleep=pytest.fail).predict("price", rows)


def test_text_that_is_no_unicode_is_reported():
    with pytest.raises(InputError, match=r"island.0: expected text in Unicode"):
        tensors.encode_request({"island": np.array(["\ud800"], object)})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"mass": 4200.0, "island": "Dream"}, r"expected an array for each column, found one row .*put the row into"),
        ({"mass": [1.0], "island": "Dream"}, "island: expected an array with a value for each row, found 'Dream'"),
        ({"mass": []}, "rows: expected at least one row, found none"),
        ({}, "rows: expected at least one row, found none"),
        (np.empty((0, 2)), "rows: expected at least one row, found none"),
        (None, "rows: expected rows, found None"),
        (3.5, "rows: expected rows, found 3.5"),
        ({1, 2}, "rows: expected rows, found set"),
        ({"mass": [[1], [1, 2]]}, "mass: expected an array, found list"),
        ({"island": np.array(["a", 3], object)}, r"island.1: expected text, found 3"),
    ],
)
def test_rows_of_another_form_are_named_before_anything_is_sent(rows, message):
    with pytest.raises(InputError, match=message):
        Client("http://127.0.0.1:9", sleep=pytest.fail).predict("price", rows)


def test_an_array_of_objects_is_sent_as_rows(scripted):
    rows = np.array([["Dream", 4200.5], ["Biscoe", None]], object)
    two = (200, {}, b'{"predictions": [7.0, 8.0]}')
    assert Client(scripted(two)).predict("price", rows) == [7.0, 8.0]


def test_an_array_of_text_is_sent_as_a_tensor(scripted, monkeypatch):
    client = Client(scripted(GOOD))
    monkeypatch.setattr(client, "_input_tensor_name", lambda _: "colour")
    monkeypatch.setattr(client, "_infer", lambda _, arrays, version: arrays)
    assert client.predict("kind", np.array(["red"], object)) == {"colour": ["red"]}


def test_numbers_among_objects_are_sent_as_numbers():
    (found,) = tensors.check_columns({"mass": np.array([3, 1.5, None], object)}).values()
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [3, 1.5, np.nan])


def test_masked_values_are_missing_values():
    masked = np.ma.array([[1.0, 999.0], [3.0, 4.0]], mask=[[False, True], [False, False]])
    assert tensors.check_rows(masked).tolist() == [[1.0, None], [3.0, 4.0]]
    columns = tensors.check_columns({"a": masked[:, 0], "b": masked[:, 1]})
    assert columns["a"].tolist() == [1.0, 3.0]
    np.testing.assert_array_equal(columns["b"], [np.nan, 4.0])


@pytest.mark.parametrize(
    "url",
    ["http://user:secret@127.0.0.1:1", "https://secret@x", "http://x:secret", "http://[secret", "http://x?key=secret"],
)
def test_errors_show_no_password_of_a_url(url: str) -> None:
    with pytest.raises(ServiceError, match="url: expected a URL such as") as e:
        Client(url)
    assert "secret" not in str(e.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "http://x y"}, "url: expected a URL"),
        ({"url": "http://x\r\nX: y"}, "url: expected a URL"),
        ({"url": 5}, "url: expected a URL"),
        ({"url": "http://x:99999"}, "url: expected a URL"),
        ({"max_response_bytes": 0}, "max_response_bytes: expected a whole number, 1 or more; found 0"),
        ({"retries": -1}, "retries: expected a whole number, 0 or more; found -1"),
        ({"timeout_seconds": 0}, "timeout_seconds: expected a number above 0, found 0"),
        ({"timeout_seconds": "1"}, "timeout_seconds: expected a number above 0, found '1'"),
        ({"key": b"fp_key"}, "expected a key of printable ASCII characters"),
    ],
)
def test_options_of_another_form_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        Client(**{"url": "http://127.0.0.1:1", **options})


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"predictions": [1], "warnings": [5]}', b"[" * 100_000])
def test_a_page_of_another_server_is_a_service_error(scripted: Callable[..., str], body: bytes) -> None:
    for rows in ([[1]], {"x": np.ones(1)}):
        with pytest.raises(ServiceError, match="expected a response of the service, found another one"):
            Client(scripted((200, {}, body))).predict("price", rows)


def test_names_of_another_type_are_named_before_anything_is_sent() -> None:
    client = Client("http://127.0.0.1:1")
    for name in (None, 5, b"price"):
        with pytest.raises(InputError, match="name: expected the name of a model, found"):
            client.predict(name, [[1]])  # type: ignore[arg-type]
