"""Tracing: requests as OpenTelemetry spans, sent by OTLP to a collector. Imported only if tracing is on.

A request is a span of the ids that its answer tells, with the spans `parse`, `compute` and `serialise` below it. They
are made of what was observed anyway, when the request is over. OpenTelemetry's own variables (OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER, OTEL_BSP_SCHEDULE_DELAY ...) hold.
"""

from __future__ import annotations

import threading
import time

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import set_span_in_context as within

from service.telemetry.request_record import RequestRecord, clock


class RequestTracer:
    def __init__(self, processor: SpanProcessor) -> None:
        """`processor` takes the spans that have ended."""
        named = Resource({"service.name": "forward-pass"}).merge(OTELResourceDetector().detect())
        self._ids = _FixedIdGenerator()
        self._id_lock = threading.Lock()  # two threads would take one another's ids
        self._provider = TracerProvider(resource=named, id_generator=self._ids)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("forward_pass")

    @classmethod
    def to_endpoint(cls, endpoint: str) -> RequestTracer:
        """To a collector, by a thread of this process, which also sends what is left when the process ends."""
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))

    def should_sample(self, record: RequestRecord) -> bool:
        """Whether this request's spans are kept: as its caller decided, else as OTEL_TRACES_SAMPLER says."""
        found = self._provider.sampler.should_sample(_parent_context(record), int(record.trace_id, 16), "request")
        return bool(found.decision.is_sampled())

    def export(self, record: RequestRecord) -> None:
        now, today = clock(), time.time_ns()

        def at(moment: float) -> int:
            return today - round(1e9 * (now - moment))

        with self._id_lock:
            self._ids.next_ids = int(record.trace_id, 16), int(record.span_id, 16)
            span = self._tracer.start_span(
                f"{record.method} {record.route}",
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
            for stage, (begun, ended) in stages.items():
                self._tracer.start_span(stage, within(span, Context()), start_time=at(begun)).end(at(ended))
        span.end(at(record.ended_at))


class _FixedIdGenerator(RandomIdGenerator):  # type: ignore[misc]
    """Gives the ids of a trace and of a span that it was told, once; else random ones."""

    next_ids: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return self.next_ids[0] if self.next_ids else super().generate_trace_id()

    def generate_span_id(self) -> int:
        told, self.next_ids = self.next_ids, None
        return told[1] if told else super().generate_span_id()


def _parent_context(record: RequestRecord) -> Context:
    """The caller's span; nothing where the trace begins here."""
    if not record.parent_id:
        return Context()
    flags = TraceFlags(record.parent_trace_flags)
    remote = SpanContext(int(record.trace_id, 16), int(record.parent_id, 16), is_remote=True, trace_flags=flags)
    return within(NonRecordingSpan(remote), Context())


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    """Attributes, by OpenTelemetry's names where it has one."""
    about: dict[str, str | int] = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "url.path": record.target,
        "client.address": record.client,
        "forward_pass.request_id": record.request_id,
    }
    if record.served is not None:
        about |= {"forward_pass.model": record.served.name, "forward_pass.version": record.served.number}
        about["forward_pass.rows"] = record.rows
    if record.error_code:
        about["error.type"] = record.error_code
    return about
