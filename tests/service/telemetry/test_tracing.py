"""Spans as OpenTelemetry's exporters receive them."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from service.cli import main
from service.telemetry.tracing import RequestTracer
from tests.service.server.server_process import ROOT, Server

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROW = {"instances": [{"rooms": 3, "area": 80.0}]}


@pytest.fixture
def spans(client):
    """The spans of the client's requests."""
    exporter = InMemorySpanExporter()
    client.application.extensions["recorder"].tracer = RequestTracer(SimpleSpanProcessor(exporter))
    return exporter.get_finished_spans


def test_prediction_is_a_span_with_its_stages_as_children(client, spans):
    answer = client.post(
        "/models/price/predict?receipt=false", json=ROW, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"}
    )
    *stages, request = spans()
    assert request.name == "POST /models/<name>/predict"
    assert request.kind is SpanKind.SERVER
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.context.span_id:016x}-01"
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, SPAN)
    assert request.resource.attributes["service.name"] == "forward-pass"
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/models/<name>/predict",
        "http.response.status_code": 200,
        "url.path": "/models/price/predict",
        "client.address": "127.0.0.1",
        "forward_pass.request_id": answer.headers["X-Request-Id"],
        "forward_pass.model": "price",
        "forward_pass.version": 1,
        "forward_pass.rows": 1,
    }
    assert [span.name for span in stages] == ["parse", "compute", "serialise"]
    assert {span.parent.span_id for span in stages} == {request.context.span_id}
    assert len({span.context.span_id for span in (*stages, request)}) == 4
    moments = [request.start_time, stages[0].start_time, stages[1].end_time, stages[2].end_time, request.end_time]
    assert moments == sorted(moments)


def test_spans_have_the_callers_tracestate(client, spans):
    trace = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE"}
    assert client.post("/models/price/predict", json=ROW, headers=trace).status_code == 200
    assert len(spans()) == 4
    for span in spans():
        assert list(span.context.trace_state.items()) == [("rojo", "00f067aa0ba902b7"), ("congo", "t61rcWkgMzE")]


def test_new_trace_has_the_ids_of_the_response_headers(client, spans):
    answer = client.get("/models/unknown")
    (request,) = spans()
    traceparent = f"00-{request.context.trace_id:032x}-{request.context.span_id:016x}-01"
    assert answer.headers["traceparent"] == traceparent
    assert request.parent is None
    assert request.attributes["error.type"] == "unknown_model"
    assert request.status.is_ok or request.status.is_unset


def test_crash_is_a_span_with_error_status(client, spans, monkeypatch):
    monkeypatch.setattr("model_store.schema.signature.Signature.decode_arrays", lambda *_: 1 / 0)
    client.post("/models/price/predict", json=ROW)
    assert not spans()[-1].status.is_ok
    assert spans()[-1].status.description == "internal_error"


def test_unsampled_trace_leaves_no_span(client, spans):
    answer = client.post("/models/price/predict", json=ROW, headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert answer.headers["traceparent"].endswith("-00")
    assert spans() == ()


def test_environments_sampler_decides_without_a_callers_trace(client, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    exporter = InMemorySpanExporter()
    client.application.extensions["recorder"].tracer = RequestTracer(SimpleSpanProcessor(exporter))
    assert client.get("/models").headers["traceparent"].endswith("-00")
    assert exporter.get_finished_spans() == ()


def test_endpoint_without_the_extra_stops_the_start_with_a_fix(monkeypatch, capsys):
    monkeypatch.setattr("service.cli.find_spec", lambda _: None)
    for outlives_the_test in ("service.cli.signal.signal", "service.cli.log_to_stderr"):
        monkeypatch.setattr(outlives_the_test, lambda *_: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    with pytest.raises(SystemExit) as ended:
        main(["--port", "0"])
    assert ended.value.code == 2
    assert "pip install 'opentelemetry-sdk>=" in capsys.readouterr().err


def test_opentelemetry_is_not_imported_without_an_endpoint():
    asked = "import sys; from service import cli; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Collector(HTTPServer):
    """An OTLP collector that keeps the spans."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list = []
        self.names: set[str] = set()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for group in sent.resource_spans:
            self.server.names |= {a.value.string_value for a in group.resource.attributes if a.key == "service.name"}
            self.server.spans += [span for scope in group.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_) -> None: ...


@pytest.mark.slow
def test_workers_send_every_span_before_they_exit(store, tmp_path):
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        server = Server(store, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME="pricing")
        try:
            for _ in range(20):
                assert server.ask("POST", "/models/price/predict", ROW)[0] == 200
        finally:
            assert server.stop() == 0
        collector.shutdown()
    assert collector.names == {"pricing"}
    names = [span.name for span in collector.spans]
    assert names.count("POST /models/<name>/predict") == names.count("parse") == names.count("compute") == 20


def test_unknown_methods_share_the_name_of_a_span(client, spans):
    """A collector has an index of names: a client could fill it."""
    for number in range(3):
        client.open("/models/price/predict", method=f"METHOD{number}{'X' * 100}")
    assert {span.name for span in spans()} == {f"HTTP {spans()[0].attributes['http.route']}"}
    assert {span.attributes["http.request.method"] for span in spans()} == {"_OTHER"}
    originals = [span.attributes["http.request.method_original"] for span in spans()]
    assert originals == [f"METHOD{number}".ljust(32, "X") for number in range(3)]


def test_the_body_of_a_collectors_response_is_not_read(client):
    """A response of 3 GB took as much memory, and one of a byte a second kept the thread for ever."""
    sent, ended = [], threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            try:
                while len(sent) < 1000:
                    sent.append(self.wfile.write(bytes(1 << 20)))
            except OSError:
                ended.set()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        tracer = RequestTracer.to_endpoint(f"http://127.0.0.1:{server.server_port}")
        client.application.extensions["recorder"].tracer = tracer
        client.post("/models/price/predict", json=ROW)
        assert tracer._provider.force_flush()
        assert ended.wait(20)
    assert len(sent) < 100
