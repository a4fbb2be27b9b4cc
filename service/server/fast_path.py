"""The fast path: the worker serves plain predict requests without Flask, many in one forward pass.

Flask's dispatch and WSGI take longer than most networks, so the worker offers every complete request to the fast path
first. `try_parse` accepts a valid POST of JSON to a native predict endpoint. `respond` runs the network once for all
accepted requests of one version. Flask handles every other request, and every request that fails here, from the
beginning: its responses are equal except for ids and times.
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
from service.http.request_body import has_too_many_values, is_json_media_type
from service.http.responses import RESPONSE_HEADERS, json_bytes
from service.inference.runner import InferenceRunner
from service.protocols.native import PredictParser, predict_response
from service.registry.errors import UnavailableError, UnknownModelError, WouldBlock
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.security.api_keys import AccessDeniedError, ApiKeys
from service.telemetry.request_record import RequestRecord, RequestRecorder, clock
from service.validation.predict_request import is_version_ref
from service.validation.simdjson_table import SimdjsonReader

_PREDICT_PATH = re.compile(r"(?:/models/([A-Za-z0-9._-]+)(?:/versions/([A-Za-z0-9._-]+))?)?/predict")
_ROUTES = ("/predict", "/models/<name>/predict", "/models/<name>/versions/<version>/predict")
# What of a request's head says something about its body or its answer, and so is no business of the express.
_UNSUPPORTED_HEADERS = {"CONTENT-ENCODING", "TRANSFER-ENCODING", "EXPECT", "UPGRADE", "SCRIPT_NAME"}
_FALLBACK_ERRORS = (
    AccessDeniedError,
    InputError,
    UnknownModelError,
    UnavailableError,
    WouldBlock,
    orjson.JSONDecodeError,
)


class PredictTarget:
    """What the head of a plain request says. Heads repeat, so this is worked out once for each that differs."""

    __slots__ = ("authorization", "name", "request_id", "route", "traceparent", "uri", "version")

    def __init__(self, uri: str, name: str | None, version: str | None, headers: Mapping[str, str]) -> None:
        self.uri, self.name, self.version = uri, name, version
        self.route = _ROUTES[(name is not None) + (version is not None)]
        self.authorization = headers.get("AUTHORIZATION")
        self.request_id, self.traceparent = headers.get("X-REQUEST-ID", ""), headers.get("TRACEPARENT", "")


class ParsedPredict:
    """A request that was read, and the version that answers it."""

    __slots__ = ("client_ip", "inputs", "parsed_at", "received_at", "record", "served", "started_at", "target")
    target: PredictTarget
    served: LoadedVersion
    inputs: Array
    client_ip: str
    received_at: float
    started_at: float
    parsed_at: float
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
        self._table_reader = SimdjsonReader()
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in RESPONSE_HEADERS.items())
        self._second, self._start = 0, ""
        self._last_forward: tuple[LoadedVersion, Array, float] | None = None  # the last pass, until it is noted

    def try_parse(self, head: Any, body: bytes, client_ip: str, received_at: float) -> ParsedPredict | None:
        """A request as gunicorn parsed its head, with the whole of its body; None where it is not plain."""
        try:
            target = head.fast_path
        except AttributeError:
            target = head.fast_path = None if head.path == self._settings.predict_route else _parse_target(head)
        if target is None or has_too_many_values(body, self._settings.max_body_bytes):
            return None
        request = ParsedPredict()
        request.started_at, request.record = clock(), None
        try:
            self._keys.require_scope(target.authorization, "predict")
            found = self._parse_table(body, target) or self._parse_rows(body, target)
        except _FALLBACK_ERRORS:  # Flask will say so
            return None
        if found is None:
            return None
        request.served, request.inputs = found
        request.parsed_at = clock()
        request.target, request.client_ip, request.received_at = target, client_ip, received_at
        return request

    def respond(self, batch: Sequence[ParsedPredict]) -> list[bytes | None]:
        """The whole answers to requests for one version; None for one that Flask has to explain.

        To be followed by `note`, once they are sent.
        """
        served = batch[0].served
        inputs = batch[0].inputs if len(batch) == 1 else np.concatenate([request.inputs for request in batch])
        outputs, computing, computed = self._inference.run(served, inputs)
        self._last_forward = served, inputs, computed - computing
        bodies: list[bytes | None] = []
        start = 0
        for request in batch:
            end = start + len(request.inputs)
            bodies.append(_encode_body(served, outputs[start:end]))
            start = end
        # What may fail has been done: Flask answers either all of them or none, and each is observed once.
        return [
            None if body is None else self._build_response(request, body, computing, computed)
            for request, body in zip(batch, bodies, strict=True)
        ]

    def record_metrics(self, batch: Sequence[ParsedPredict]) -> None:
        """Counts what `answer` did, and logs it. What cannot be counted keeps nothing else from it."""
        failure: Exception | None = None
        for request in batch:
            if request.record is not None:
                try:
                    self._recorder.finish(request.record, route=request.target.route, status=200)
                except Exception as e:  # noqa: BLE001 - it is raised once the others are counted
                    failure = e
        passed, self._last_forward = self._last_forward, None
        if passed is not None:
            self._inference.record_pass(*passed)
        if failure is not None:
            raise failure

    def _parse_table(self, body: bytes, target: PredictTarget) -> tuple[LoadedVersion, Array] | None:
        plain = self._table_reader.parse(body)
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

    def _parse_rows(self, body: bytes, target: PredictTarget) -> tuple[LoadedVersion, Array] | None:
        parsed = orjson.loads(body)
        return self._parser.parse(parsed, target.name, target.version) if isinstance(parsed, dict) else None

    def _build_response(self, request: ParsedPredict, body: bytes, computing: float, computed: float) -> bytes:
        recorder, target = self._recorder, request.target
        record = recorder.begin(
            "POST",
            target.uri,
            request_id=target.request_id,
            traceparent=target.traceparent,
            client=request.client_ip,
            arrived_at=request.received_at,
        )
        record.started_at, record.parsed_at, record.compute_started_at, record.compute_ended_at = (
            request.started_at,
            request.parsed_at,
            computing,
            computed,
        )
        record.served, record.rows = request.served, len(request.inputs)
        recorded = "".join([f"{name}: {value}\r\n" for name, value in recorder.response_headers(record)])
        request.record = record
        return f"{self._response_head()}Content-Length: {len(body)}\r\n{recorded}\r\n".encode("latin-1") + body

    def _response_head(self) -> str:
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


def _encode_body(served: LoadedVersion, outputs: Array) -> bytes | None:
    try:
        return json_bytes(predict_response(served, served.model.signature.decode(outputs)))
    except InputError:
        return None


def _parse_target(head: Any) -> PredictTarget | None:
    path = _PREDICT_PATH.fullmatch(head.path)
    if path is None or head.method != "POST" or head.version != (1, 1) or head.query or head.should_close():
        return None
    headers = dict(head.headers)
    if len(headers) < len(head.headers) or not _UNSUPPORTED_HEADERS.isdisjoint(
        headers
    ):  # a field that comes twice, too
        return None
    if not is_json_media_type(headers.get("CONTENT-TYPE", "").partition(";")[0].strip().lower()):
        return None
    return PredictTarget(head.uri, path[1], path[2], headers)
