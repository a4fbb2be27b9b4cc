"""The HTTP client of the service; it needs only the standard library.

    client = Client("http://127.0.0.1:8000")
    client.predict("penguins", [{"island": "Dream", ...}])    # rows in, a list of predictions out
    client.predict("digits", images)                          # NumPy in, NumPy out, in binary: (n, 8, 8)
    client.predict("penguins", {"island": names, "mass": masses}, version="candidate")     # NumPy by column

If the service requires API keys, use `Client(url, key=...)`. The client retries after a 503, as Retry-After says, and
after a refused or broken connection: a prediction has no side effects. Errors are exceptions with the service's
message: InputError for invalid rows, NotFoundError for unknown names, ServiceError, the base of both, for all others.
A client keeps one connection open and must be used by one thread only.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from forward_pass_client.deadline import Deadline
from forward_pass_client.errors import Fault, InputError, NotFoundError, ServiceError
from forward_pass_client.rows import encode_rows

_JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
_VERSION_HEADER, _AT_LEAST_HEADER = "X-Model-Version", "X-Model-Version-At-Least"
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
_MAX_WAIT_SECONDS = 30.0  # even if Retry-After says more
_READ_BYTES = 1 << 20  # at once
_UNCOUNTED_BYTES = 1 << 20  # the values of shorter JSON are not counted
_MIN_BYTES_PER_VALUE = 16  # of max_response_bytes
_BEYOND_FFFF = re.compile(rb"[\xf0-\xf4]|\\u[dD][89abAB]")  # in UTF-8, and in the escapes of JSON
_BEYOND_FF = re.compile(rb"[\xc4-\xef]|\\u")


class Client:
    """A client of the service at `url`.

    timeout_seconds: for each attempt, from the connection to the last byte of the response.
    retries: attempts after the first.
    max_response_bytes: a longer response is an error, so that a wrong server cannot fill the memory. So is JSON of
        more than 1 MiB with more than one value for 16 of these bytes: each takes 56 bytes or more as an object. JSON
        counts twice with characters beyond U+00FF, and four times with characters beyond U+FFFF, such as emoji.
    never_older: predictions of the default version, or of an alias, are never of an older version than an earlier one
        of this client, whichever replica of the service responds. `newest_versions` has the versions seen, by name and
        alias; clear it after a version was set back on purpose, or predictions fail with status 503.
    sleep: for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float = 30.0,
        retries: int = 4,
        max_response_bytes: int = 64 << 20,
        never_older: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        kind, host, port, self._base_path = _split_url(url)
        self._url = url
        _check_options(timeout_seconds, retries, max_response_bytes)
        self._timeout_seconds, self._max_response_bytes = timeout_seconds, max_response_bytes
        self._max_values = max_response_bytes // _MIN_BYTES_PER_VALUE
        self._connection = kind(host, port, timeout=timeout_seconds)
        if key is not None:
            _check_key(url, key)
        self._auth_headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._retries, self._sleep, self._never_older = retries, sleep, never_older
        self.newest_versions: dict[tuple[str, str | None], int] = {}  # seen by predict with never_older
        self._input_tensors: dict[str, list[dict[str, Any]]] = {}
        self.warnings: list[Fault] = []  # of the last predict: the missing values that the service filled in
        self.explanations: list[dict[str, Any]] = []  # of the last predict, if it asked for them
        self.intervals: list[Any] = []
        self.sets: list[list[Any]] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A later request opens it again."""
        self._connection.close()

    def models(self) -> list[dict[str, Any]]:
        """Return all models."""
        listed = self._json("GET", "/models")
        with self._expect_service("/models"):
            found: list[dict[str, Any]] = listed["models"]
            return found

    def model(self, name: str, version: int | str | None = None) -> dict[str, Any]:
        """Return a model's inputs, output and metadata."""
        found: dict[str, Any] = self._json("GET", _model_path(name, version))
        return found

    def predict(
        self,
        name: str,
        rows: Any,
        *,
        version: int | str | None = None,
        top_k: int | None = None,
        explain: bool | Mapping[str, Any] | None = None,
        interval: float | None = None,
        set: float | None = None,  # noqa: A002 - the name in the service's requests
        threshold: float | None = None,
    ) -> Any:
        """Return predictions: a list for a list of rows, arrays for an array or for arrays by column.

        An array of Python objects, such as the values of a data frame with text and numbers, is sent as a list of rows.
        `top_k` returns the probabilities of the `top_k` most probable labels only, for rows in a list. `warnings` then
        lists the missing values that the service filled in. With `explain`, True or an object with `label`, `target` or
        `baseline`, for rows in a list, `explanations` then has the contributions of the columns to each prediction.

        With a level such as 0.9, for rows in a list, `intervals` of a regression or `sets` of labels then hold the
        truth as often as it says. `threshold` overrides the probability from which the second of two labels is
        predicted.
        """
        self.warnings, self.explanations, self.intervals, self.sets = [], [], [], []
        given = {"explain": explain or None, "interval": interval, "set": set, "threshold": threshold}
        more = {key: value for key, value in given.items() if value is not None}
        if not isinstance(rows, Sequence):
            from forward_pass_client import tensors  # noqa: PLC0415 - only arrays need NumPy

            for option in (*(["top_k"] if top_k is not None else []), *more):
                problem = f"expected rows in a list, found {type(rows).__name__}"
                raise InputError([Fault(option, problem, "send a list of rows, such as rows.tolist()")])
            if isinstance(rows, Mapping):
                return self._infer(name, tensors.check_columns(rows), version)
            array = tensors.check_rows(rows)
            if array.dtype != object or tensors.is_text(array):
                return self._infer(name, {self._input_tensor_name(name): array}, version)
            rows = array.tolist()
        query = "" if top_k is None else f"?top_k={top_k}"
        path = f"{_model_path(name, version)}/predict{query}"
        response, _ = self._request_prediction(
            path, encode_rows(rows, more), {"Content-Type": "application/json"}, name, version
        )
        self._check_json_size(path, response, 200)
        with self._expect_service(path):
            body = json.loads(response)
            self.warnings = [Fault(*(str(each[key]) for key in Fault._fields)) for each in body.get("warnings", [])]
            self._check_predictions(path, body["predictions"], len(rows))
            if explain:
                self._check_predictions(path, body["explanations"], len(rows))
                self.explanations = body["explanations"]
            if interval is not None:
                self.intervals = self._check_list(path, body["intervals"], len(rows))
            if set is not None:
                self.sets = self._check_list(path, body["sets"], len(rows))
            return body["predictions"]

    def _infer(self, name: str, arrays: Mapping[str, Any], version: int | str | None) -> Any:
        from forward_pass_client import tensors  # noqa: PLC0415 - only arrays need NumPy

        header, data = tensors.encode_request(arrays)
        headers = {_JSON_LENGTH_HEADER: str(len(header)), "Content-Type": "application/octet-stream"}
        path = f"/v2{_model_path(name, version)}/infer"
        body, response_headers = self._request_prediction(path, header + data, headers, name, version)
        with self._expect_service(path):
            length = int(response_headers.get(_JSON_LENGTH_HEADER) or len(body))
            self._check_json_size(path, body[:length], 200)
            lines = json.loads(body[:length]).get("parameters", {}).get("warnings", "").splitlines()
            self.warnings = [Fault(*line.split(": ", 1)) for line in lines]
            found = tensors.decode_response(body, length, self._max_values)
            count = len(next(iter(arrays.values())))
            for output in found.values() if isinstance(found, dict) else [found]:
                self._check_count(path, output, count)
            return found

    def _request_prediction(
        self, path: str, body: bytes, headers: dict[str, str], name: str, version: int | str | None
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """Return body and headers of a 200 response; with `never_older` of a version not older than the newest seen."""
        key = name, None if version is None else str(version)
        newest = self.newest_versions.get(key, 0)
        if newest:
            headers = {**headers, _AT_LEAST_HEADER: str(newest)}
        response, found = self._request("POST", path, body, headers)
        number = found.get(_VERSION_HEADER, "")
        if self._never_older and number.isascii() and number.isdigit():
            self.newest_versions[key] = max(newest, int(number[:9]))
        return response, found

    def _check_count(self, path: str, predictions: Any, rows: int) -> None:
        """Raise ServiceError unless there is a prediction for each row."""
        if len(predictions) != rows:
            problem = f"expected {rows} predictions, one for each row; found {len(predictions)}"
            raise ServiceError(f"{self._url}{path}: {problem}", 200)

    def _check_list(self, path: str, found: Any, rows: int) -> list[Any]:
        """Return a list of the response. ServiceError unless it has an item for each row."""
        if not isinstance(found, list):
            raise TypeError(f"expected a list, found {type(found).__name__}")
        self._check_count(path, found, rows)
        return found

    def _check_predictions(self, path: str, predictions: Any, rows: int) -> None:
        """Raise ServiceError unless there is a number or an object for each row."""
        if not isinstance(predictions, list):
            problem = f"expected a list of predictions, found {type(predictions).__name__}"
            raise ServiceError(f"{self._url}{path}: {problem}", 200)
        self._check_count(path, predictions, rows)
        for i, one in enumerate(predictions):
            if isinstance(one, bool) or not isinstance(one, (int, float, dict)):
                problem = f"predictions.{i}: expected a number or an object, found {type(one).__name__}"
                raise ServiceError(f"{self._url}{path}: {problem}", 200)

    def _check_json_size(self, path: str, content: bytes, status: int) -> None:
        """Raise ServiceError if JSON would take too much memory: by its values and by the width of its characters.

        A comma or an opening bracket begins a value. A text with one character beyond U+00FF takes two bytes for each
        of its characters, with one beyond U+FFFF four.
        """
        if len(content) <= _UNCOUNTED_BYTES:
            return
        fix = "send fewer rows, or pass max_response_bytes"
        if sum(map(content.count, (b",", b"[", b"{"))) > self._max_values:
            problem = f"expected a response of at most {self._max_values} values, found more"
            raise ServiceError(f"{self._url}{path}: {problem}; {fix}", status)
        width = 4 if _BEYOND_FFFF.search(content) else 2 if _BEYOND_FF.search(content) else 1
        if width * len(content) > self._max_response_bytes:
            limit = self._max_response_bytes // width
            problem = f"expected at most {limit} bytes of JSON with characters of {width} bytes, found {len(content)}"
            raise ServiceError(f"{self._url}{path}: {problem}; {fix}", status)

    def _input_tensor_name(self, name: str) -> str:
        """Return the name of the tensor that holds a model's whole input."""
        if name not in self._input_tensors:
            path = f"/v2{_model_path(name, None)}"
            metadata = self._json("GET", path)
            with self._expect_service(path):
                self._input_tensors[name] = [{"name": str(each["name"])} for each in metadata["inputs"]]
        found = self._input_tensors[name]
        return str(found[0]["name"]) if len(found) == 1 else "instances"

    def _json(self, method: str, path: str, body: bytes | None = None) -> Any:
        response, _ = self._request(method, path, body, {"Content-Type": "application/json"})
        self._check_json_size(path, response, 200)
        with self._expect_service(path):
            return json.loads(response)

    @contextmanager
    def _expect_service(self, path: str) -> Iterator[None]:
        """Raise a response of status 200 that is not the service's, such as a proxy's page, as a ServiceError."""
        try:
            yield
        except (ValueError, TypeError, AttributeError, LookupError, StopIteration, RecursionError) as e:
            raise ServiceError(f"{self._url}{path}: expected a response of the service, found another one", 200) from e

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """Return body and headers of a 200 response; retry, or raise."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response, content = self._send(method, path, body, headers)
            except (OSError, http.client.HTTPException) as e:
                self._connection.close()  # the next request reconnects
                if last or isinstance(e, TimeoutError):
                    raise ServiceError(f"{self._url}: no response: {str(e) or type(e).__name__}") from e
                wait = 0.1 * 2.0**attempt
            else:
                if response.status == 200:
                    return content, response.headers
                if response.status != 503 or last:
                    self._check_json_size(path, content, response.status)
                    raise _response_error(response.status, content, f"{self._url}{path}")
                wait = _retry_seconds(response.headers.get("Retry-After"), 0.1 * 2.0**attempt)
            self._sleep(min(wait, _MAX_WAIT_SECONDS))
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Return a response and its body. TimeoutError if it takes too long, ServiceError if it is too long."""
        deadline = Deadline(self._timeout_seconds)
        self._connection.response_class = deadline.response  # type: ignore[assignment]  # it is called as a class is
        if self._connection.sock is not None:
            self._connection.sock.settimeout(self._timeout_seconds)  # the last response left less
        self._connection.request(method, self._base_path + path, body, {**headers, **self._auth_headers})
        try:
            response = self._connection.getresponse()
            blocks, size = [], 0
            while block := response.read(_READ_BYTES):
                blocks.append(block)
                size += len(block)
                if size > self._max_response_bytes:
                    self._connection.close()
                    problem = f"expected a response of at most {self._max_response_bytes} bytes, found more"
                    fix = "send fewer rows, or pass max_response_bytes"
                    raise ServiceError(f"{self._url}{path}: {problem}; {fix}", response.status)
        except ValueError as e:  # a chunk of negative size
            raise http.client.HTTPException(f"the response is not well-formed HTTP: {e}") from e
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return response, b"".join(blocks)


def _check_options(timeout_seconds: Any, retries: Any, max_response_bytes: Any) -> None:
    if not isinstance(timeout_seconds, (int, float)) or not 0 < timeout_seconds < math.inf:
        raise ServiceError(f"timeout_seconds: expected a number above 0, found {timeout_seconds!r}")
    if not isinstance(retries, int) or retries < 0:
        raise ServiceError(f"retries: expected a whole number, 0 or more; found {retries!r}")
    if not isinstance(max_response_bytes, int) or max_response_bytes < 1:
        raise ServiceError(f"max_response_bytes: expected a whole number, 1 or more; found {max_response_bytes!r}")


def _check_key(url: str, key: Any) -> None:
    if not (isinstance(key, str) and key.isascii() and key.isprintable()):
        raise ServiceError(f"{url}: expected a key of printable ASCII characters; create one with serve keygen")


def _split_url(url: str) -> tuple[type[http.client.HTTPConnection], str, int | None, str]:
    """Return the kind of the connection, host, port and path of a URL.

    ServiceError for anything else. It does not show a URL that cannot be read or has a user: it may hold a password.
    """
    example = "a URL such as http://127.0.0.1:8000"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if not url.isprintable() or " " in url:
            raise ValueError("expected visible characters")
    except (ValueError, TypeError, AttributeError) as e:
        raise ServiceError(f"url: expected {example}, found something else") from e
    if parts.username is not None or parts.password is not None:
        raise ServiceError(f"url: expected {example}, found one with a user or a password; pass the API key as key=...")
    if parts.scheme not in _CONNECTIONS or not host:
        raise ServiceError(f"{url}: expected {example}")
    if parts.query or parts.fragment:
        raise ServiceError(f"url: expected {example}, found one with a query; leave out what follows the path")
    return _CONNECTIONS[parts.scheme], host, port, parts.path.rstrip("/")


def _model_path(name: Any, version: int | str | None) -> str:
    if not isinstance(name, str):
        fault = Fault("name", f"expected the name of a model, found {type(name).__name__}", "pass its name as text")
        raise InputError([fault])
    path = f"/models/{quote(name, safe='', errors='replace')}"
    return path if version is None else f"{path}/versions/{quote(str(version), safe='', errors='replace')}"


def _retry_seconds(text: str | None, default: float) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() else default


def _response_error(status: int, body: bytes, url: str) -> ServiceError:
    """Return the exception for an error response, with the service's message."""
    try:
        error = json.loads(body)["error"]
        if isinstance(error, str):
            error = {
                "message": error.partition(" This works: curl ")[0],
                "faults": [],
            }  # without the example for a shell
        faults = [Fault(*(str(each[key]) for key in Fault._fields)) for each in error["faults"]]
        message = str(error["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ServiceError(f"{url}: status {status}: {body[:200].decode('utf-8', 'replace')}", status)
    if status in {400, 413, 422}:
        return InputError(faults or [Fault("request", message)], status)
    if status == 404:
        return NotFoundError(message, status)
    return ServiceError(f"{url}: status {status}: {message}", status)
