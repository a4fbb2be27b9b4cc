"""Record what happened in a request: ids, times, metrics, the access log line and the span.

    record = recorder.begin("POST", "/predict", request_id="", traceparent="", client="10.0.0.7")
    ...                                    # sets parsed_at, compute_started_at, compute_ended_at
    headers = recorder.response_headers(record)
    recorder.finish(record, route="/predict", status=200)

Both Flask's views and the fast path use it. Traces follow W3C Trace Context: the caller's trace id and tracestate are
kept, and this request is a span of its own.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from model_store.utils.printable import printable
from service.telemetry.cell_file import CounterCell, HistogramCells
from service.telemetry.metrics import Metrics
from service.telemetry.trace_context import parse_tracestate

access_log = logging.getLogger("service.access")

# Polled every few seconds: logged at debug level only.
UNLOGGED_ROUTES = frozenset(
    {
        *("/healthz", "/readyz", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"),
        *("/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"),
        "/grpc.health.v1.Health/Check",
    }
)
STAGES = ("queue", "parse", "compute", "serialise")
MAX_TARGET_CHARACTERS = 500
MAX_RECENT = 100
# Unix time, method, target, status, seconds, model, version, rows, error code, request id, name of the key.
RecentRequest = tuple[float, str, str, int, float, str, str, int, str, str, str]
clock = time.monotonic

_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# As `serve keygen` makes them. Each character may be escaped in a path, also several times: f, %66, %2566.
_API_KEY = re.compile(
    r"(?:f|%(?:25)*66)(?:p|%(?:25)*70)(?:_|%(?:25)*5[Ff])"
    r"(?:[A-Za-z0-9_-]|%(?:25)*(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|2[Dd]|5[Ff])){20,}"
)
_SERVER_TIMING = "Server-Timing: queue;dur=%.3f, parse;dur=%.3f, compute;dur=%.3f, serialise;dur=%.3f\r\n"
_PREPARED_IDS = 64
# Sets the last bit of each trace id and span id: neither may be zero.
_NONZERO_BITS = sum((1 << 64 | 1) << 192 * i for i in range(_PREPARED_IDS))


class ModelVersion(Protocol):
    """The version that served a request, as far as telemetry needs it."""

    @property
    def name(self) -> str: ...

    @property
    def number(self) -> int: ...


class RequestRecord:
    """One request. Times are those of `clock`, 0.0 until they are known.

    `str` gives the line of the access log, `as_dict` the fields of the JSON log.
    """

    parsed_at = compute_started_at = compute_ended_at = ended_at = 0.0
    stages: tuple[float, float, float, float] = 0.0, 0.0, 0.0, 0.0  # the seconds of each of `STAGES`
    served: ModelVersion | None = None
    rows = 0
    key_name = ""  # of the API key, if one is required and in the key file
    error_code = request_id = trace_id = span_id = parent_id = tracestate = route = ""
    trace_flags = parent_trace_flags = status = 0
    in_progress = False  # True while the gauge of requests in progress counts it

    def __init__(self, method: str, target: str, client: str, arrived_at: float = 0.0) -> None:
        """`method` and `target` are logged as they are: see `loggable`."""
        self.method, self.target, self.client = method, target, client
        self.started_at = clock()
        self.arrived_at = arrived_at or self.started_at

    def end(self, ended: float) -> None:
        """Set the end and the seconds of the stages. Waiting for the event loop and for a batch both count as queue."""
        self.ended_at = ended
        started, parsed, computing, computed = (
            self.started_at, self.parsed_at, self.compute_started_at, self.compute_ended_at
        )  # fmt: skip
        queue = started - self.arrived_at + computing - parsed
        self.stages = queue, parsed - started, computed - computing, ended - computed

    def __str__(self) -> str:
        model = f" {self.served.name}/{self.served.number} rows={self.rows}" if self.served else ""
        error = f" error={self.error_code}" if self.error_code else ""
        target = printable(self.target)
        took = f"{1000 * (self.ended_at - self.arrived_at):.1f}ms"
        line = f"{self.method} {target} {self.status} {took}{model}{error}"
        key = f" key={self.key_name}" if self.key_name else ""
        return f"{line} id={self.request_id} from={self.client}{key}"

    def as_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"request_id": self.request_id, "trace_id": self.trace_id, "span_id": self.span_id}
        fields |= {"method": self.method, "target": self.target, "client": self.client}
        if self.key_name:
            fields["key_name"] = self.key_name
        if self.status:
            fields |= {"status": self.status, "seconds": round(self.ended_at - self.arrived_at, 6)}
        if self.served:
            fields |= {"model": self.served.name, "version": self.served.number, "rows": self.rows}
        if self.compute_ended_at:
            fields |= {f"{stage}_seconds": round(spent, 6) for stage, spent in zip(STAGES, self.stages, strict=True)}
        if self.error_code:
            fields["error"] = self.error_code
        return fields


def loggable(method: str, uri: str) -> tuple[str, str]:
    """Return the method and target of a request without what may be a secret: keys, the query, the user of a URI."""
    path = _redact_keys(uri.partition("?")[0])
    is_short = path[:1] == "/" and len(path) <= MAX_TARGET_CHARACTERS
    return _redact_keys(method), path if is_short else _short_target(path)


def _redact_keys(text: str) -> str:
    """Replace what has the form of an API key, which a client may have put into a URL by mistake."""
    return _API_KEY.sub("fp_[key]", text) if "fp_" in text or "%" in text else text


def _short_target(target: str) -> str:
    """Return a request's target without the authority of an absolute URI, cut if it is long."""
    scheme, separator, rest = target.partition("://")
    path = f"{scheme}://.../{rest.partition('/')[2]}" if separator else target
    return path if len(path) <= MAX_TARGET_CHARACTERS else f"{path[:MAX_TARGET_CHARACTERS]}..."


class Tracer(Protocol):
    """Exports requests as spans; see `tracing`."""

    def should_sample(self, record: RequestRecord) -> bool: ...

    def export(self, record: RequestRecord) -> None: ...


class RequestRecorder:
    def __init__(self, metrics: Metrics, health_route: str = "") -> None:
        """`health_route` is one more route that is logged at debug level only."""
        self.metrics = metrics
        self._unlogged_routes = UNLOGGED_ROUTES | {health_route}
        self.tracer: Tracer | None = None  # set after the fork: a thread sends the spans
        # The last predictions and errors, for the page /traffic: tuples, as a record would keep its version in memory.
        self.recent: deque[RecentRequest] = deque(maxlen=MAX_RECENT)
        # The version that would serve a path and an Authorization header, for requests that are rejected before their
        # body is read.
        self.served_at: Callable[[str, str | None], ModelVersion | None] = lambda *_: None
        self._random = random.Random()  # noqa: S311 - ids are no secrets
        self._ids: list[tuple[str, str]] = []  # prepared trace ids and span ids
        os.register_at_fork(after_in_child=self._seed)  # else all workers would make the same ids
        self._cells: dict[tuple[str, str, str, int], _RequestCells] = {}

    def begin(
        self,
        method: str,
        target: str,
        *,
        request_id: str = "",
        traceparent: str = "",
        tracestate: str = "",
        client: str = "",
        arrived_at: float = 0.0,
    ) -> RequestRecord:
        """Begin a request. `arrived_at`: when all of it had arrived, if known."""
        record = RequestRecord(*loggable(method, target), client, arrived_at)
        self.identify(record, request_id, traceparent, tracestate)
        record.in_progress = True
        self.metrics.in_progress.inc()
        return record

    def identify(self, record: RequestRecord, request_id: str, traceparent: str, tracestate: str) -> None:
        """Give a request its ids: the caller's where they are valid."""
        try:
            record.trace_id, record.span_id = self._ids.pop()
        except IndexError:  # several threads may get here
            prepared = self._prepare_ids()
            record.trace_id, record.span_id = prepared.pop()
            self._ids += prepared
        record.request_id = record.trace_id
        if request_id and _VALID_REQUEST_ID.fullmatch(request_id) and request_id == _redact_keys(request_id):
            record.request_id = request_id
        given = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        if given is not None and not (given[1] == "00" and given[5]):
            record.trace_id, record.parent_id = given[2], given[3]
            record.trace_flags = record.parent_trace_flags = int(given[4], 16) & 1
            if tracestate:
                record.tracestate = parse_tracestate(tracestate)

    def _seed(self) -> None:
        self._random.seed()
        self._ids.clear()

    def _prepare_ids(self) -> list[tuple[str, str]]:
        text = (self._random.getrandbits(192 * _PREPARED_IDS) | _NONZERO_BITS).to_bytes(24 * _PREPARED_IDS).hex()
        return [(text[i : i + 32], text[i + 32 : i + 48]) for i in range(0, len(text), 48)]

    def discard(self) -> None:
        """Drop a request that was begun here and is recorded elsewhere."""
        self.metrics.in_progress.inc(-1.0)

    def response_headers(self, record: RequestRecord) -> list[tuple[str, str]]:
        """Return the headers with ids and times. Call this once the body is serialized."""
        lines = self.response_lines(record).splitlines()
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]

    def response_lines(self, record: RequestRecord) -> str:
        """Return the lines of `response_headers`, each with its end."""
        record.end(clock())
        if self.tracer is not None:
            record.trace_flags = int(self.tracer.should_sample(record))
        trace = f"00-{record.trace_id}-{record.span_id}-0{record.trace_flags}"
        lines = f"X-Request-Id: {record.request_id}\r\ntraceparent: {trace}\r\n"
        if record.tracestate:
            lines += f"tracestate: {record.tracestate}\r\n"
        if record.compute_ended_at:
            queue, parse, compute, serialise = record.stages
            lines += _SERVER_TIMING % (1e3 * queue, 1e3 * parse, 1e3 * compute, 1e3 * serialise)
        return lines

    def finish(self, record: RequestRecord, *, route: str, status: int) -> None:
        """Update the metrics, write the line of the access log and export the span."""
        metrics, served = self.metrics, record.served
        if record.in_progress:  # else an earlier call failed, and Flask now answers with an error
            record.in_progress = False
            metrics.in_progress.inc(-1.0)
        if not record.ended_at:
            record.end(clock())
        record.route, record.status = route, status
        name, version = ("", "") if served is None else metrics.version_labels(served.name, served.number)
        cells = self._cells.get((route, name, version, status)) or self._make_cells(route, name, version, status)
        cells.count(record)
        if record.key_name:
            metrics.key_requests.labels(record.key_name, str(status)).inc()
        if record.error_code:
            metrics.errors.labels(record.error_code, name, version).inc()
        if served is not None or status >= 400:
            self.recent.append((
                time.time(), record.method, record.target, status, record.ended_at - record.arrived_at, name, version,
                record.rows, record.error_code, record.request_id, record.key_name,
            ))  # fmt: skip
        # Overload must not also flood the log.
        quiet = (route in self._unlogged_routes and status < 400) or record.error_code == "overloaded"
        level = logging.DEBUG if quiet else logging.INFO
        if access_log.isEnabledFor(level):
            access_log.log(level, record)
        if self.tracer is not None:
            self.tracer.export(record)

    def _make_cells(self, route: str, name: str, version: str, status: int) -> _RequestCells:
        cells = _RequestCells(
            self.metrics, route, (name, version), status, has_seconds=route not in self._unlogged_routes
        )
        self._cells[route, name, version, status] = cells
        return cells


class _RequestCells:
    """The cells that count the requests of one route, version and status: finding them takes longer than counting."""

    def __init__(
        self, metrics: Metrics, route: str, labels: tuple[str, str], status: int, *, has_seconds: bool
    ) -> None:
        self._metrics, self._labels = metrics, labels
        self._requests = metrics.requests.labels(route, *labels, str(status))
        self._seconds = [metrics.request_seconds.labels(route, *labels)] if has_seconds else []
        self._rows: CounterCell | None = None
        self._stages: list[HistogramCells] = []

    def count(self, record: RequestRecord) -> None:
        predicted = record.compute_ended_at and record.status < 400  # not if the outputs could not be sent
        if predicted and self._rows is None:
            self._stages = [self._metrics.stage_seconds.labels(stage, *self._labels) for stage in STAGES]
            self._rows = self._metrics.rows.labels(*self._labels)
        with self._metrics.counters.cell_lock:
            self._requests.add(1.0)
            for seconds in self._seconds:
                seconds.add(record.ended_at - record.arrived_at)
            if predicted and self._rows is not None:
                self._rows.add(record.rows)
                for stage, spent in zip(self._stages, record.stages):  # noqa: B905 - `strict` takes longer than a stage
                    stage.add(spent)
