"""The client: predictions of a running service, with the standard library alone.

    client = Client("http://127.0.0.1:8000")
    client.predict("penguins", [{"island": "Dream", ...}])    # rows in, a list of answers out
    client.predict("digits", images)                          # NumPy in, NumPy out, as bytes: (n, 8, 8)
    client.predict("penguins", {"island": names, "mass": masses}, version="champion")     # NumPy by column

Where the service asks for keys, `Client(url, key=...)` sends one. A 503 is asked again when its Retry-After says so,
and so is a connection that is refused or breaks: a prediction changes nothing. What goes wrong in the end is an
exception of `model_store.errors`, with the service's own words: InputError for rows that do not fit, NotFoundError for
names that are not there, ServiceError for all else. A client keeps one connection open and belongs to one thread.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from model_store.errors import Fault, InputError, NotFoundError, StoreError

_JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
_MAX_WAIT_SECONDS = 30.0  # seconds, whatever Retry-After says


class ServiceError(StoreError):
    """The service did not answer, or not with predictions. `status` is None where there was no answer at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class Client:
    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float = 30.0,
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ServiceError(f"{url}: expected an address such as http://127.0.0.1:8000")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_seconds)
        self._url, self._base = url, parts.path.rstrip("/")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ServiceError(f"{url}: expected a key of printable ASCII letters; serve keygen makes such keys")
        self._key = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._retries, self._sleep = retries, sleep
        self._tensors: dict[str, list[dict[str, Any]]] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def models(self) -> list[dict[str, Any]]:
        """The models there are."""
        found: list[dict[str, Any]] = self._json("GET", "/models")["models"]
        return found

    def model(self, name: str, version: int | str | None = None) -> dict[str, Any]:
        """What a model takes and gives."""
        found: dict[str, Any] = self._json("GET", _model_path(name, version))
        return found

    def predict(self, name: str, rows: Any, *, version: int | str | None = None) -> Any:
        """Rows as a list: a list of answers. A NumPy array, or arrays by column: an array, or several by name."""
        if isinstance(rows, Mapping):
            return self._infer(name, rows, version)
        if not isinstance(rows, Sequence):
            return self._infer(name, {self._only_tensor(name): rows}, version)
        answer = self._json("POST", f"{_model_path(name, version)}/predict", {"instances": rows})
        return answer["predictions"]

    def _infer(self, name: str, arrays: Mapping[str, Any], version: int | str | None) -> Any:
        from model_store.client import tensors  # noqa: PLC0415 - NumPy is only needed by who has arrays

        head, tail = tensors.encode_request(arrays)
        headers = {_JSON_LENGTH_HEADER: str(len(head)), "Content-Type": "application/octet-stream"}
        path = f"/v2{_model_path(name, version)}/infer"
        body, answered = self._ask("POST", path, head + tail, headers)
        return tensors.decode_response(body, int(answered.get(_JSON_LENGTH_HEADER) or len(body)))

    def _only_tensor(self, name: str) -> str:
        """What an array is called that is all of a model's input."""
        if name not in self._tensors:
            self._tensors[name] = self._json("GET", f"/v2{_model_path(name, None)}")["inputs"]
        found = self._tensors[name]
        return str(found[0]["name"]) if len(found) == 1 else "instances"

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        sent = None if body is None else json.dumps(body, allow_nan=False).encode()
        answer, _ = self._ask(method, path, sent, {"Content-Type": "application/json"})
        return json.loads(answer)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """The body and the headers of a 200."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                self._connection.request(method, self._base + path, body, {**headers, **self._key})
                response = self._connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as e:
                self._connection.close()  # the next request opens it anew
                if last or isinstance(e, TimeoutError):
                    raise ServiceError(f"{self._url}: no answer: {str(e) or type(e).__name__}") from e
                wait = 0.1 * 2.0**attempt
            else:
                if response.status == 200:
                    return answer, response.headers
                if response.status != 503 or last:
                    raise _response_error(response.status, answer, f"{self._url}{path}")
                wait = _retry_seconds(response.headers.get("Retry-After"), 0.1 * 2.0**attempt)
            self._sleep(min(wait, _MAX_WAIT_SECONDS))
        raise AssertionError("the last attempt returns or raises")


def _model_path(name: str, version: int | str | None) -> str:
    path = f"/models/{quote(name, safe='')}"
    return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def _retry_seconds(text: str | None, otherwise: float) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() else otherwise


def _response_error(status: int, answer: bytes, location: str) -> StoreError | InputError:
    """The exception for an answer that is an error, in the service's own words."""
    try:
        error = json.loads(answer)["error"]
        if isinstance(error, str):
            error = {"message": error.partition(" This works: curl ")[0], "faults": []}  # that is for a shell
        faults = [Fault(each["location"], each["problem"], each["fix"]) for each in error["faults"]]
        message = str(error["message"])
    except (ValueError, KeyError, TypeError):
        return ServiceError(f"{location}: answered {status}: {answer[:200].decode('utf-8', 'replace')}", status)
    if status in {400, 422}:
        return InputError(faults or [Fault("request", message)])
    if status == 404:
        return NotFoundError(message)
    return ServiceError(f"{location}: answered {status}: {message}", status)
