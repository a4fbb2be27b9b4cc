"""Ids, traces, times and the log line of a request."""

from __future__ import annotations

import logging
import os
import re

import pytest

from service.telemetry import metrics as metrics_module
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecorder, clock

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROW = {"instances": [{"rooms": 3, "area": 80.0}]}


@pytest.fixture
def recorder() -> RequestRecorder:
    return RequestRecorder(Metrics())


@pytest.mark.parametrize("given", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-what-else"])
def test_callers_trace_continues_with_a_new_span(recorder, given):
    record = recorder.begin("POST", "/predict", traceparent=given)
    traceparent = dict(recorder.response_headers(record))["traceparent"]
    version, trace, span, flags = traceparent.split("-")
    assert (version, trace, flags) == ("00", TRACE, given.split("-")[3])
    assert span != SPAN
    assert re.fullmatch("[0-9a-f]{16}", span)
    assert record.parent_id == SPAN


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_invalid_traceparent_is_replaced_by_a_new_trace(recorder, given):
    traceparent = dict(recorder.response_headers(recorder.begin("POST", "/predict", traceparent=given)))["traceparent"]
    found = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-00", traceparent)
    assert found
    assert found[1] != TRACE
    assert int(found[1], 16)
    assert int(found[2], 16)


def test_request_without_an_id_uses_its_trace_id(recorder):
    record = recorder.begin("POST", "/predict")
    assert record.request_id == record.trace_id
    again = [recorder.begin("POST", "/predict", traceparent=f"00-{TRACE}-{SPAN}-01") for _ in range(2)]
    assert again[0].request_id != again[1].request_id  # a trace may hold several requests


def test_ids_of_forked_processes_differ(recorder):
    read, write = os.pipe()
    for _ in range(4):
        if os.fork() == 0:
            os.write(write, f"{recorder.begin('GET', '/').request_id}\n".encode())
            os._exit(0)
        os.wait()
    os.close(write)
    with os.fdopen(read) as lines:
        assert len(set(lines)) == 4


def test_stages_sum_to_the_total_and_waiting_counts_as_queue(recorder):
    record = recorder.begin("POST", "/predict", arrived_at=clock() - 2.0)
    record.parsed_at, record.compute_started_at, record.compute_ended_at = (
        record.started_at + offset for offset in (1, 4, 9)
    )
    record.end(record.started_at + 16)
    queue, parse, compute, serialise = record.stages
    assert queue == pytest.approx(2 + 3, abs=0.1)
    assert [parse, compute, serialise] == pytest.approx([1, 5, 7])
    assert sum(record.stages) == pytest.approx(record.ended_at - record.arrived_at)


def test_prediction_has_a_server_timing_header(client):
    answer = client.post("/models/price/predict", json=ROW)
    timing = re.findall(r"(\w+);dur=(\d+\.\d{3})", answer.headers["Server-Timing"])
    assert [stage for stage, _ in timing] == ["queue", "parse", "compute", "serialise"]
    assert float(timing[1][1]) > 0
    assert "Server-Timing" not in client.get("/healthz").headers


def test_every_response_has_a_traceparent(client):
    for answer in (client.get("/nowhere"), client.post("/models/price/predict", json=ROW), client.get("/docs")):
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", answer.headers["traceparent"])
    answer = client.post("/models/price/predict", json=ROW, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")


def test_url_cannot_forge_a_log_line(recorder, caplog):
    with caplog.at_level(logging.INFO, "service.access"):
        recorder.finish(recorder.begin("GET", "/a\nb\x1b[0m"), route="none", status=404)
    assert caplog.messages[0].startswith("GET /a\\nb\\u001b[0m 404 ")


def test_request_whose_counting_fails_is_no_longer_in_progress(client, monkeypatch):
    """Flask then returns 500, and tries to count that as well."""
    metrics = client.application.extensions["recorder"].metrics

    def fail(*_):
        raise OSError("Too many open files")

    monkeypatch.setattr(metrics.requests, "labels", fail)
    assert client.post("/models/price/predict", json=ROW).status_code == 500
    assert "forward_pass_requests_in_progress 0.0" in metrics.counters.exposition()


def test_stages_are_counted_by_model_and_version(own_client):
    own_client.post("/models/price/predict", json={"instances": ROW["instances"] * 3})
    text = own_client.get("/metrics").get_data(as_text=True)
    for stage in ("queue", "parse", "compute", "serialise"):
        assert f'forward_pass_stage_seconds_count{{model="price",stage="{stage}",version="1"}} 1.0' in text
    assert 'forward_pass_batch_rows_bucket{le="2.0",model="price",version="1"} 0.0' in text
    assert 'forward_pass_batch_rows_bucket{le="4.0",model="price",version="1"} 1.0' in text


class Version:
    name = "price"

    def __init__(self, number: int) -> None:
        self.number = number


def test_versions_beyond_the_limit_share_a_label(monkeypatch):
    """Each version has a hundred series, which stay until the service ends."""
    monkeypatch.setattr(metrics_module, "MAX_LABELLED_VERSIONS", 3)
    recorder = RequestRecorder(Metrics())
    for number in (1, 2, 3, 4, 5, 1, 5):
        record = recorder.begin("POST", "/predict")
        record.served, record.rows, record.compute_ended_at = Version(number), 1, clock()
        recorder.finish(record, route="/predict", status=200)
    found = re.findall(
        r'forward_pass_rows_total\{model="(\w+)",version="(\w+)"\} (\S+)', recorder.metrics.counters.exposition()
    )
    assert sorted(found) == [
        ("other", "other", "3.0"),
        ("price", "1", "2.0"),
        ("price", "2", "1.0"),
        ("price", "3", "1.0"),
    ]


def test_models_beyond_the_limit_share_a_label(monkeypatch):
    """The series of a model's loads stay after the model is gone."""
    monkeypatch.setattr(metrics_module, "MAX_LABELLED_VERSIONS", 2)
    metrics = Metrics()
    assert [metrics.model_label(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]
