"""Logs as text and as JSON."""

from __future__ import annotations

import json
import logging
import socket

import pytest

from service.telemetry.logging import JsonFormatter, TextFormatter
from tests.service.server.server_process import Server, until

ROW = {"instances": [{"rooms": 3, "area": 80.0}]}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def lines():
    """The service's log lines during the test, parsed from JSON."""
    found: list[dict] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = JsonFormatter().format(record)
            assert "\n" not in text
            found.append(json.loads(text))

    handler, logger = Handler(), logging.getLogger("service")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel("INFO")
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_prediction_logs_one_line_with_its_trace_and_stage_times(client, lines):
    trace = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-Id": "mine"}
    answer = client.post("/models/price/predict?receipt=false", json=ROW, headers=trace)
    (line,) = lines
    assert line["trace_id"] == TRACE
    assert answer.headers["traceparent"] == f"00-{TRACE}-{line['span_id']}-01"
    logged = {
        key: line[key] for key in ("level", "message", "request_id", "method", "target", "status", "model", "rows")
    }
    assert logged == {
        "level": "info",
        "message": "answered",
        "request_id": "mine",
        "method": "POST",
        "target": "/models/price/predict",
        "status": 200,
        "model": "price",
        "rows": 1,
    }
    stages = [line[f"{stage}_seconds"] for stage in ("queue", "parse", "compute", "serialise")]
    assert sum(stages) == pytest.approx(line["seconds"], abs=1e-5)


def test_rejected_request_logs_its_error_code_and_no_stages(client, lines):
    client.post("/predict", json={"model": "nobody", **ROW})
    assert (lines[0]["status"], lines[0]["error"]) == (404, "unknown_model")
    assert "compute_seconds" not in lines[0]


def test_crash_logs_its_traceback_and_request_in_one_line(client, lines, monkeypatch):
    monkeypatch.setattr("model_store.schema.signature.Signature.decode_arrays", lambda *_: 1 / 0)
    answer = client.post("/models/price/predict", json=ROW)
    crash, line = lines
    assert "ZeroDivisionError" in crash["exception"]
    assert crash["request_id"] == line["request_id"] == answer.json["request_id"]
    assert line["error"] == "internal_error"


@pytest.mark.slow
def test_every_log_line_is_json_with_the_json_format(store, tmp_path):
    server = Server(store, tmp_path, SERVE_LOG_FORMAT="json", SERVE_LOG_LEVEL="debug")
    try:
        server.ask("POST", "/models/price/predict", ROW)
        server.ask("GET", "/nowhere")
    finally:
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert {"service", "service.access", "gunicorn.error"} <= {line["logger"] for line in lines}
    statuses = [line["status"] for line in lines if line["message"] == "answered"]
    assert sorted(statuses[-2:]) == [200, 404]  # of two workers, each of which logs after it has responded


@pytest.mark.slow
def test_library_logs_are_json_too(store, tmp_path):
    """For example failed exports of spans. By default, logging writes only their message."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
    soon = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    server = Server(store, tmp_path, SERVE_LOG_FORMAT="json", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **soon)
    try:
        server.ask("POST", "/models/price/predict", ROW)
        until(lambda: "Failed to export" in server.log)
    finally:
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert any(line["logger"].startswith("opentelemetry") for line in lines)


@pytest.mark.parametrize("formatter", [TextFormatter("%(levelname)s %(message)s"), JsonFormatter()])
def test_a_log_line_has_visible_characters_only_and_a_bounded_length(formatter: logging.Formatter) -> None:
    hostile = "\x1b[2J\u202e\x9b\r\n2026 INFO forged"
    record = logging.LogRecord("service", logging.WARNING, "", 0, "found %s", (hostile * 10_000,), None)
    line = formatter.format(record)
    assert line.isprintable()
    assert len(line) < 100_000  # 8,000 characters, of which each may become six
    try:
        raise ValueError(hostile)
    except ValueError as e:
        record = logging.LogRecord("service", logging.ERROR, "", 0, "crashed", (), (type(e), e, e.__traceback__))
    assert all(line.isprintable() for line in formatter.format(record).split("\n"))
