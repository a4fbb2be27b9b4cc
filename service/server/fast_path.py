"""The fast path: the worker serves plain predict requests without Flask, many in one forward pass.

Flask's dispatch and WSGI take longer than most networks, so the worker offers every complete request to the fast path
first. `try_parse` accepts a valid POST of JSON to a native predict endpoint. `respond` runs the network once for all
accepted requests of one version. Flask handles every other request, and every request that fails here, from the
beginning: its responses are equal except for ids and times.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import orjson
from werkzeug.exceptions import NotFound

from model_store.errors import Fault, InputError
from model_store.nn import Array
from model_store.utils.duplicate_keys import has_duplicate_keys
from service.config import Settings
from service.http.cross_origin import CrossOrigin, Headers
from service.http.model_version import AT_LEAST_HEADER, MODEL_VERSION_HEADER, parse_at_least
from service.http.request_body import has_too_many_values, is_json_content_type
from service.http.request_head import HostPolicy, is_valid_host
from service.http.responses import RESPONSE_HEADERS, json_bytes
from service.inference.runner import InferenceRunner
from service.protocols.native import PredictParser, predict_response
from service.registry.errors import UnavailableError, UnknownModelError, WouldBlock
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.security.access_control import AccessControl
from service.security.api_keys import AccessDeniedError
from service.server.gunicorn_compat import ParsedHead
from service.server.request_reader import RequestHead
from service.server.response_head import header_lines, status_lines
from service.telemetry.request_record import RequestRecord, RequestRecorder, clock, loggable
from service.validation.predict_request import is_version_ref
from service.validation.row_limits import RowLimitError
from service.validation.simdjson_table import MAX_OUTLINE_BYTES, SimdjsonReader

_PREDICT_PATH = re.compile(r"(?:/models/([A-Za-z0-9._-]+)(?:/versions/([A-Za-z0-9._-]+))?)?/predict")
_ENDPOINT = "predict.predict"  # Flask's name of the view that does the same
_ROUTES = ("/predict", "/models/<name>/predict", "/models/<name>/versions/<version>/predict")
# Fields that change how the body is read or the response is written.
_UNSUPPORTED_HEADERS = {"CONTENT-ENCODING", "TRANSFER-ENCODING", "EXPECT", "UPGRADE", "SCRIPT_NAME"}
_AT_LEAST_NAME = AT_LEAST_HEADER.upper()  # as gunicorn's parser has it
_FALLBACK_ERRORS = (
    AccessDeniedError,
    NotFound,
    InputError,
    RowLimitError,
    UnknownModelError,
    UnavailableError,
    WouldBlock,
    orjson.JSONDecodeError,
)


MAX_RESPONSE_VALUES = 2**16  # Flask writes larger responses in pieces; these take up to 2 MB

_NO_WARNINGS: Sequence[Fault] = ()  # a table of numbers has no missing value
_JSON_LINES = header_lines([("Content-Type", "application/json"), *RESPONSE_HEADERS.items()])


class PredictTarget:
    """What the head of a request to a predict endpoint says, worked out once for each cached head."""

    def __init__(
        self, uri: str, name: str | None, version: str | None, at_least: int, cross_origin_headers: Headers
    ) -> None:
        self.name, self.version, self.at_least = name, version, at_least
        self.method, self.path = loggable("POST", uri)
        self.route = _ROUTES[(name is not None) + (version is not None)]
        self._lines = _JSON_LINES + header_lines(cross_origin_headers)
        self._started_for: tuple[int, int] | None = None  # the second and the version of `_start`
        self._start = ""

    def response_start(self, served: LoadedVersion) -> str:
        """Return the head of a response up to the headers that each request has of its own."""
        key = int(time.time()), served.number
        if key != self._started_for:
            lines = f"{status_lines('200 OK', key[0], close=False)}{self._lines}"
            self._started_for, self._start = key, f"{lines}{MODEL_VERSION_HEADER}: {served.number}\r\n"
        return self._start


class ParsedPredict:
    """A parsed predict request, the version that serves it, and its record."""

    __slots__ = ("body", "has_response", "head", "inputs", "record", "served", "target", "warnings")

    def __init__(
        self,
        head: RequestHead,
        target: PredictTarget,
        served: LoadedVersion,
        inputs: Array,
        warnings: Sequence[Fault],
        record: RequestRecord,
    ) -> None:
        self.head, self.target, self.served, self.inputs, self.warnings = head, target, served, inputs, warnings
        self.record, self.has_response = record, False
        self.body: bytes | None = None  # of the response; None if Flask has to make it


class FastPath:
    """The fast path of one thread."""

    def __init__(
        self,
        registry: ModelRegistry,
        parser: PredictParser,
        inference: InferenceRunner,
        recorder: RequestRecorder,
        access: AccessControl,
        cross_origin: CrossOrigin,
        hosts: HostPolicy,
        settings: Settings,
    ) -> None:
        self._registry, self._parser, self._inference, self._recorder = registry, parser, inference, recorder
        self._keys, self._scope = access.keys, access.required_scope(_ENDPOINT)
        self._cross_origin, self._hosts, self._settings = cross_origin, hosts, settings
        self._table_reader = SimdjsonReader()
        self._last_pass: tuple[LoadedVersion, Array, float] | None = None  # until `record_metrics` counts it

    def try_parse(self, head: RequestHead, body: bytes, client_ip: str, arrived_at: float) -> ParsedPredict | None:
        """Parse a complete request; None if Flask has to handle it."""
        target = head.parsed.predict_target
        if target is None:
            target = head.parsed.predict_target = self._parse_target(head.parsed)
        if not target or has_too_many_values(body, self._settings.max_body_bytes):
            return None
        record = RequestRecord(target.method, target.path, client_ip, arrived_at)
        try:
            # Every listener serves predictions.
            record.key_name = self._keys.require_scope(head.uncached_headers.get("AUTHORIZATION"), self._scope)
            outline = self._table_reader.outline(body)
            table = self._parse_small_table(body, outline, target) if outline else self._parse_table(body, target)
            found = table or self._parse_rows(body, target)
        except _FALLBACK_ERRORS:  # Flask reports it
            return None
        if found is None:
            return None
        served, (inputs, warnings) = found
        record.served, record.rows = served, len(inputs)
        if record.rows * served.row_limit.row_values > MAX_RESPONSE_VALUES:
            return None
        record.parsed_at = clock()
        return ParsedPredict(head, target, served, inputs, warnings, record)

    def respond(self, batch: Sequence[ParsedPredict]) -> list[bytes | None]:
        """Return the whole responses to requests for one version; None for one that Flask has to handle.

        Call `record_metrics` once they are sent.
        """
        served = batch[0].served
        inputs = batch[0].inputs if len(batch) == 1 else np.concatenate([request.inputs for request in batch])
        outputs, computing, computed = self._inference.run(served, inputs)
        self._last_pass = served, inputs, computed - computing
        start, has_failed = 0, False
        for request in batch:
            end = start + request.record.rows
            of_request = outputs if len(batch) == 1 else outputs[start:end]
            request.body = _encode_body(served, of_request, request.warnings)
            start = end
            has_failed |= request.body is None
        if has_failed:  # Flask counts the rows of those
            counted = [request.inputs for request in batch if request.body is not None]
            self._last_pass = (served, np.concatenate(counted), computed - computing) if counted else None
        # What may fail has been done: Flask handles either all of them or none, and each is recorded once.
        return [
            None if request.body is None else self._build_response(request, request.body, computing, computed)
            for request in batch
        ]

    def record_metrics(self, batch: Sequence[ParsedPredict]) -> None:
        """Count and log what `respond` did. If recording one request fails, the others are still recorded."""
        failure: Exception | None = None
        for request in batch:
            if request.has_response:
                try:
                    self._recorder.finish(request.record, route=request.target.route, status=200)
                except Exception as e:  # noqa: BLE001 - raised once the others are recorded
                    failure = e
        passed, self._last_pass = self._last_pass, None
        if passed is not None:
            self._inference.record_pass(*passed)
        if failure is not None:
            raise failure

    def _parse_small_table(
        self, body: bytes, outline: bytes, target: PredictTarget
    ) -> tuple[LoadedVersion, tuple[Array, Sequence[Fault]]] | None:
        """Parse a body that names no model."""
        served = self._registry.find(target.name, target.version, at_least=target.at_least)
        shape = served.model.signature.table_shape
        if shape is None or len(shape) > 1:
            return None
        table = self._table_reader.small_table(body, outline, shape[0], served.max_rows)
        if table is None:
            return None
        return served, (served.model.signature.encode_table(table, dtype=served.model.network.dtype), _NO_WARNINGS)

    def _parse_table(
        self, body: bytes, target: PredictTarget
    ) -> tuple[LoadedVersion, tuple[Array, Sequence[Fault]]] | None:
        """Parse a large body. Small ones with a model or several dimensions take less with orjson."""
        plain = self._table_reader.parse(body) if len(body) > MAX_OUTLINE_BYTES else None
        if plain is None or (target.name is not None and plain.model is not None):
            return None
        if not isinstance(plain.model, str | None) or (plain.version is not None and not is_version_ref(plain.version)):
            return None
        if target.version is not None and plain.version is not None:
            return None
        served = self._registry.find(
            target.name or plain.model, target.version or plain.version, at_least=target.at_least
        )
        signature = served.model.signature
        if signature.table_shape is None:
            return None
        table = plain.table(signature.table_shape, served.max_rows)
        if table is None:
            return None
        return served, (signature.encode_table(table, dtype=served.model.network.dtype), _NO_WARNINGS)

    def _parse_rows(
        self, body: bytes, target: PredictTarget
    ) -> tuple[LoadedVersion, tuple[Array, Sequence[Fault]]] | None:
        parsed = orjson.loads(body)
        if not isinstance(parsed, dict) or has_duplicate_keys(body, parsed):
            return None
        return self._parser.parse(parsed, target.name, target.version, target.at_least)

    def _build_response(self, request: ParsedPredict, body: bytes, computing: float, computed: float) -> bytes:
        record, headers = request.record, request.head.uncached_headers
        record.compute_started_at, record.compute_ended_at = computing, computed
        self._recorder.identify(
            record, headers.get("X-REQUEST-ID", ""), headers.get("TRACEPARENT", ""), headers.get("TRACESTATE", "")
        )
        request.has_response = True
        start, lines = request.target.response_start(request.served), self._recorder.response_lines(record)
        return f"{start}Content-Length: {len(body)}\r\n{lines}\r\n".encode("latin-1") + body

    def _parse_target(self, head: ParsedHead) -> PredictTarget | Literal[False]:
        path = _PREDICT_PATH.fullmatch(head.path)
        if path is None or head.path == self._settings.predict_route or head.method != "POST":
            return False
        if head.version != (1, 1) or head.query or not head.keep_alive:
            return False
        headers = dict(head.headers)
        if len(headers) < len(head.headers) or not _UNSUPPORTED_HEADERS.isdisjoint(headers):  # or one sent twice
            return False
        if not is_json_content_type(headers.get("CONTENT-TYPE", "")) or not is_valid_host(headers.get("HOST")):
            return False
        if not self._hosts.is_trusted(headers.get("HOST")):
            return False
        at_least = parse_at_least(headers.get(_AT_LEAST_NAME))
        if at_least is None:
            return False
        return PredictTarget(head.uri, path[1], path[2], at_least, self._cross_origin.headers(headers.get("ORIGIN")))


def _encode_body(served: LoadedVersion, outputs: Array, warnings: Sequence[Fault]) -> bytes | None:
    try:
        return json_bytes(predict_response(served, served.model.signature.decode(outputs), warnings))
    except InputError:
        return None
