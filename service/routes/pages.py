"""The HTML pages of the whole service: all models at `/`, the traffic at `/traffic`, the reports at `/reports`."""

from __future__ import annotations

import time
from importlib.resources import files
from itertools import islice
from typing import Any

from flask import Blueprint, request
from werkzeug.wrappers import Response

from model_store.report.page import render_sections
from model_store.utils.number_format import format_grouped
from service.config import Settings
from service.http.responses import json_response
from service.inference.drift import DriftMonitor
from service.pages import overview, reports, traffic
from service.pages.traffic_monitor import TrafficMonitor
from service.registry.registry import ModelRegistry
from service.registry.snapshot import Snapshot
from service.routes.page_frame import check_access, may_read_traffic, page_view, render_page, require_pages, wants_page
from service.telemetry.metrics import Metrics

_MAX_MODEL_CHARACTERS = 200  # of a query


def create_blueprint(
    registry: ModelRegistry,
    store: overview.ManifestSource,
    metrics: Metrics,
    drift: DriftMonitor,
    monitor: TrafficMonitor,
    settings: Settings,
) -> Blueprint:
    blueprint = Blueprint("pages", __name__)
    headlines = overview.Headlines(store, registry.check_may_wait)

    def traffic_by_model(snapshot: Snapshot) -> dict[str, Any]:
        monitor.tick()
        drift.flush()
        drifting = traffic.drift_columns(drift, snapshot, metrics.counters.internal_gauges())
        shown = islice(snapshot.entries, overview.MAX_MODELS)
        return overview.model_traffic(monitor.history(), drifting, shown, time.time())

    @blueprint.get("/")
    @page_view("predict")
    def root() -> Response:
        """Return the page of all models to a browser. Any other client makes a health check, without a key."""
        if not wants_page():
            return json_response({"status": "alive"}, headers={"Vary": "Accept"})
        check_access("pages.overview")
        snapshot = registry.snapshot
        page = render_page(
            "overview.html",
            "overview",
            script="",
            settings=settings,
            grouped=format_grouped,
            **overview.describe(
                snapshot,
                headlines,
                registry.unloaded_models,
                traffic_by_model(snapshot) if may_read_traffic() else None,
            ),
        )
        return _page(page)

    @blueprint.get("/traffic")
    @page_view("metrics")
    def traffic_page() -> Response:
        """Return the traffic of the last minutes, to a browser as a page that asks for it every 2 s."""
        if wants_page():
            return _page(render_page("traffic.html", "traffic", script="traffic/page", windows=traffic.WINDOWS))
        monitor.watch()
        drift.flush()
        found = traffic.describe(
            monitor,
            drift,
            registry.snapshot,
            metrics.counters.internal_gauges(),
            time.time(),
            minutes=traffic.requested_window(request.args.get("minutes")),
            model=request.args.get("model", "")[:_MAX_MODEL_CHARACTERS],
        )
        return json_response(found, headers={"Vary": "Accept"})

    @blueprint.get("/reports")
    @page_view("predict")
    def report_index() -> Response:
        require_pages()
        found = reports.describe(registry.snapshot, headlines)
        return _page(render_page("reports.html", "reports", script="", **found))

    @blueprint.get("/models/<name>/versions/<version>/report")
    @page_view("predict")
    def report(name: str, version: str) -> Response:
        """Return the report of a version in the frame of the pages, as `train` writes it beside the artifact."""
        require_pages()
        registry.check_may_wait()  # charts of many classes take a second
        served = registry.find(name, version)
        reference = f"{served.name}/{served.number}"
        sections = render_sections(served.model, reference, served.digest)
        return _page(render_page("report.html", "reports", script="", reference=reference, sections=sections))

    @blueprint.get("/static/report.css")
    def report_styles() -> Response:
        require_pages()
        text = files("model_store.report").joinpath("style.css").read_bytes()
        return Response(text, content_type="text/css; charset=utf-8")

    return blueprint


def _page(text: str) -> Response:
    return Response(text, headers={"Vary": "Accept"}, content_type="text/html; charset=utf-8")
