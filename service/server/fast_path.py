"""The express: predictions that are plainly asked for, answered by the worker itself, many in one forward pass.

Flask's dispatch, and WSGI around it, take longer than most networks do. So the worker offers every request that has
arrived here first. `take` reads one that is plain: a POST of JSON without a fault to one of our own addresses. `answer`
runs the network once for all that wait for the same version. Whatever is not plain, or goes wrong on the way, is
Flask's from the start, faults and all: what a caller gets is the same but for ids and times.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any

import numpy as np
import orjson

from model_store.errors import InputError
from model_store.nn import Array
from service.config import Settings
from service.http.request_body import is_dense, is_json
from service.http.responses import ANSWER_HEADERS, json_bytes
from service.inference.runner import InferenceRunner
from service.protocols.native import PredictParser, predict_response
from service.registry.errors import WouldBlock
from service.registry.registry import LoadedVersion, ModelRegistry, UnavailableError, UnknownError
from service.security.api_keys import AccessDeniedError, ApiKeys
from service.telemetry.request_record import RequestRecord, RequestRecorder, clock
from service.validation.predict_request import is_version_ref
from service.validation.simdjson_table import PlainReader

_PATH = re.compile(r"(?:/models/([A-Za-z0-9._-]+)(?:/versions/([A-Za-z0-9._-]+))?)?/predict")
_ROUTES = ("/predict", "/models/<name>/predict", "/models/<name>/versions/<version>/predict")
# What of a request's head says something about its body or its answer, and so is no business of the express.
_NOT_PLAIN = {"CONTENT-ENCODING", "TRANSFER-ENCODING", "EXPECT", "UPGRADE", "SCRIPT_NAME"}
_REFUSALS = (AccessDeniedError, InputError, UnknownError, UnavailableError, WouldBlock, orjson.JSONDecodeError)


class Target:
    """What the head of a plain request says. Heads repeat, so this is worked out once for each that differs."""

    __slots__ = ("authorization", "name", "request_id", "route", "traceparent", "uri", "version")

    def __init__(self, uri: str, name: str | None, version: str | None, headers: Mapping[str, str]) -> None:
        self.uri, self.name, self.version = uri, name, version
        self.route = _ROUTES[(name is not None) + (version is not None)]
        self.authorization = headers.get("AUTHORIZATION")
        self.request_id, self.traceparent = headers.get("X-REQUEST-ID", ""), headers.get("TRACEPARENT", "")


class ParsedPredict:
    """A request that was read, and the version that answers it."""

    __slots__ = ("arrived", "client", "inputs", "parsed", "record", "served", "started", "target")
    target: Target
    served: LoadedVersion
    inputs: Array
    client: str
    arrived: float
    started: float
    parsed: float
    record: RequestRecord | None  # once it has its answer


class FastPath:
    """Belongs to one thread."""

    def __init__(
        self,
        registry: ModelRegistry,
        parser: PredictParser,
        inference: InferenceRunner,
        recorder: RequestRecorder,
        keys: ApiKeys,
        settings: Settings,
    ) -> None:
        self._registry, self._parser, self._inference, self._recorder = registry, parser, inference, recorder
        self._keys, self._settings = keys, settings
        self._reader = PlainReader()
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in ANSWER_HEADERS.items())
        self._second, self._start = 0, ""
        self._passed: tuple[LoadedVersion, Array, float] | None = None  # the last pass, until it is noted

    def take(self, head: Any, body: bytes, client: str, arrived: float) -> ParsedPredict | None:
        """A request as gunicorn parsed its head, with the whole of its body; None where it is not plain."""
        try:
            target = head.fast_path
        except AttributeError:
            target = head.fast_path = None if head.path == self._settings.predict_route else _target(head)
        if target is None or is_dense(body, self._settings.max_body_bytes):
            return None
        asked = ParsedPredict()
        asked.started, asked.record = clock(), None
        try:
            self._keys.check(target.authorization, "predict")
            found = self._table(body, target) or self._rows(body, target)
        except _REFUSALS:  # Flask will say so
            return None
        if found is None:
            return None
        asked.served, asked.inputs = found
        asked.parsed = clock()
        asked.target, asked.client, asked.arrived = target, client, arrived
        return asked

    def answer(self, together: Sequence[ParsedPredict]) -> list[bytes | None]:
        """The whole answers to requests for one version; None for one that Flask has to explain.

        To be followed by `note`, once they are sent.
        """
        served = together[0].served
        inputs = together[0].inputs if len(together) == 1 else np.concatenate([asked.inputs for asked in together])
        outputs, computing, computed = self._inference.run(served, inputs)
        self._passed = served, inputs, computed - computing
        bodies: list[bytes | None] = []
        start = 0
        for asked in together:
            end = start + len(asked.inputs)
            bodies.append(_body(served, outputs[start:end]))
            start = end
        # What may fail has been done: Flask answers either all of them or none, and each is observed once.
        return [
            None if body is None else self._written(asked, body, computing, computed)
            for asked, body in zip(together, bodies, strict=True)
        ]

    def note(self, together: Sequence[ParsedPredict]) -> None:
        """Counts what `answer` did, and logs it. What cannot be counted keeps nothing else from it."""
        failure: Exception | None = None
        for asked in together:
            if asked.record is not None:
                try:
                    self._recorder.finish(asked.record, route=asked.target.route, status=200)
                except Exception as e:  # noqa: BLE001 - it is raised once the others are counted
                    failure = e
        passed, self._passed = self._passed, None
        if passed is not None:
            self._inference.note(*passed)
        if failure is not None:
            raise failure

    def _table(self, body: bytes, target: Target) -> tuple[LoadedVersion, Array] | None:
        plain = self._reader.open(body)
        if plain is None or (target.name is not None and plain.model is not None):
            return None
        if not isinstance(plain.model, str | None) or (plain.version is not None and not is_version_ref(plain.version)):
            return None
        if target.version is not None and plain.version is not None:
            return None
        served = self._registry.find(target.name or plain.model, target.version or plain.version)
        signature = served.model.signature
        if signature.table_shape is None:
            return None
        table = plain.table(signature.table_shape, self._settings.max_instances)
        return None if table is None else (served, signature.encode_table(table, dtype=served.model.network.dtype))

    def _rows(self, body: bytes, target: Target) -> tuple[LoadedVersion, Array] | None:
        parsed = orjson.loads(body)
        return self._parser.parse(parsed, target.name, target.version) if isinstance(parsed, dict) else None

    def _written(self, asked: ParsedPredict, body: bytes, computing: float, computed: float) -> bytes:
        recorder, target = self._recorder, asked.target
        record = recorder.begin(
            "POST",
            target.uri,
            request_id=target.request_id,
            traceparent=target.traceparent,
            client=asked.client,
            arrived=asked.arrived,
        )
        record.started, record.parsed, record.computing, record.computed = (
            asked.started,
            asked.parsed,
            computing,
            computed,
        )
        record.served, record.rows = asked.served, len(asked.inputs)
        told = "".join([f"{name}: {value}\r\n" for name, value in recorder.headers(record)])
        asked.record = record
        return f"{self._head()}Content-Length: {len(body)}\r\n{told}\r\n".encode("latin-1") + body

    def _head(self) -> str:
        """What every answer of a second begins with."""
        second = int(time.time())
        if second != self._second:
            date = formatdate(second, usegmt=True)
            self._second = second
            self._start = (
                f"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: {date}\r\nConnection: keep-alive\r\n"
                f"Content-Type: application/json\r\n{self._fixed}"
            )
        return self._start


def _body(served: LoadedVersion, outputs: Array) -> bytes | None:
    try:
        return json_bytes(predict_response(served, served.model.signature.decode(outputs)))
    except InputError:
        return None


def _target(head: Any) -> Target | None:
    path = _PATH.fullmatch(head.path)
    if path is None or head.method != "POST" or head.version != (1, 1) or head.query or head.should_close():
        return None
    headers = dict(head.headers)
    if len(headers) < len(head.headers) or not _NOT_PLAIN.isdisjoint(headers):  # a field that comes twice, too
        return None
    if not is_json(headers.get("CONTENT-TYPE", "").partition(";")[0].strip().lower()):
        return None
    return Target(head.uri, path[1], path[2], headers)
