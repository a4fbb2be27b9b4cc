"""Export requests as OpenTelemetry spans, by OTLP to a collector. Imported only if tracing is on.

A request is a span with the ids of its response headers and the child spans `parse`, `compute` and `serialise`. They
are made from its `RequestRecord` when the request is over. OpenTelemetry's own variables (OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER, OTEL_BSP_SCHEDULE_DELAY ...) apply.
"""

from __future__ import annotations

import threading
import time

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.trace import set_span_in_context as within

from service.telemetry.request_record import RequestRecord, clock

# RFC 9110 and PATCH. Others have the name "HTTP": the names of spans must be few.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_OTHER_METHOD = "_OTHER"
_MAX_METHOD_CHARACTERS = 32


class RequestTracer:
    def __init__(self, processor: SpanProcessor) -> None:
        """`processor` receives the finished spans."""
        resource = Resource({"service.name": "forward-pass"}).merge(OTELResourceDetector().detect())
        self._ids = _FixedIdGenerator()
        self._id_lock = threading.Lock()  # else two threads could take each other's ids
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("forward_pass")

    @classmethod
    def to_endpoint(cls, endpoint: str) -> RequestTracer:
        """Send spans to a collector from a thread, which sends the rest when the process ends."""
        session = requests.Session()
        session.stream = True  # read no body: a collector could send gigabytes, and only the status counts
        session.hooks["response"].append(_close)
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", session=session)))

    def should_sample(self, record: RequestRecord) -> bool:
        """Return True if this request is sampled: as its caller decided, else as OTEL_TRACES_SAMPLER says."""
        found = self._provider.sampler.should_sample(_parent_context(record), int(record.trace_id, 16), "request")
        return bool(found.decision.is_sampled())

    def export(self, record: RequestRecord) -> None:
        monotonic, wall = clock(), time.time_ns()

        def at(moment: float) -> int:
            return wall - round(1e9 * (monotonic - moment))

        with self._id_lock:
            self._ids.next_ids = int(record.trace_id, 16), int(record.span_id, 16)
            span = self._tracer.start_span(
                f"{record.method if record.method in _METHODS else 'HTTP'} {record.route}",
                _parent_context(record),
                SpanKind.SERVER,
                _attributes(record),
                start_time=at(record.arrived_at),
            )
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR, record.error_code))
        if record.compute_ended_at:
            stages = {
                "parse": (record.started_at, record.parsed_at),
                "compute": (record.compute_started_at, record.compute_ended_at),
                "serialise": (record.compute_ended_at, record.ended_at),
            }
            for stage, (start, end) in stages.items():
                self._tracer.start_span(stage, within(span, Context()), start_time=at(start)).end(at(end))
        span.end(at(record.ended_at))


class _FixedIdGenerator(RandomIdGenerator):  # type: ignore[misc]
    """Generates `next_ids` once, else random ids."""

    next_ids: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return self.next_ids[0] if self.next_ids else super().generate_trace_id()

    def generate_span_id(self) -> int:
        ids, self.next_ids = self.next_ids, None
        return ids[1] if ids else super().generate_span_id()


def _parent_context(record: RequestRecord) -> Context:
    """Return the caller's span; an empty context if the trace starts here."""
    if not record.parent_id:
        return Context()
    flags = TraceFlags(record.parent_trace_flags)
    state = TraceState.from_header([record.tracestate] if record.tracestate else [])
    trace_id, span_id = int(record.trace_id, 16), int(record.parent_id, 16)
    remote = SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags, trace_state=state)
    return within(NonRecordingSpan(remote), Context())


def _close(response: requests.Response, *_: object, **__: object) -> None:
    response.close()


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    """Return the span's attributes, with OpenTelemetry's names where they exist."""
    attributes: dict[str, str | int] = {
        "http.request.method": record.method if record.method in _METHODS else _OTHER_METHOD,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "url.path": record.target,
        "client.address": record.client,
        "forward_pass.request_id": record.request_id,
    }
    if record.method not in _METHODS:
        attributes["http.request.method_original"] = record.method[:_MAX_METHOD_CHARACTERS]
    if record.served is not None:
        attributes |= {"forward_pass.model": record.served.name, "forward_pass.version": record.served.number}
        attributes["forward_pass.rows"] = record.rows
    if record.error_code:
        attributes["error.type"] = record.error_code
    return attributes
