"""Health endpoints (/healthz, /readyz) and Prometheus metrics (/metrics)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Blueprint, request
from prometheus_client.core import Metric
from werkzeug.wrappers import Response

from model_store.errors import Fault
from service.http.request_head import HostPolicy
from service.http.responses import json_response
from service.inference.drift import DriftMonitor
from service.registry.registry import ModelRegistry
from service.security.api_keys import ApiKeys
from service.telemetry.metrics import CONTENT_TYPE, InternalGauges, Metrics, key_gauges, model_gauges


def create_blueprint(
    registry: ModelRegistry, metrics: Metrics, drift: DriftMonitor, keys: ApiKeys, hosts: HostPolicy
) -> Blueprint:
    blueprint = Blueprint("health", __name__)

    def problems() -> list[Fault]:
        keys.reload_if_changed()
        return [*registry.snapshot.problems, *filter(None, [keys.problem])]

    def collect_model_gauges(_: InternalGauges) -> Iterator[Metric]:
        snapshot = registry.snapshot
        served = ((served.name, served.number, served.digest) for served in snapshot.default_versions)
        return model_gauges(served, len(problems()))

    def collect_drift_gauges(recent: InternalGauges) -> Iterator[Metric]:
        return drift.metrics(set(registry.snapshot.pinned_versions), recent)

    metrics.register_collector(collect_model_gauges)
    metrics.register_collector(lambda _: key_gauges(keys.expiry_by_name()))
    metrics.register_collector(collect_drift_gauges)

    @blueprint.get("/healthz")
    def alive() -> Response:
        return json_response({"status": "ok"})

    @blueprint.get("/readyz")
    def ready() -> Response:
        """Return 503 only if no model can predict: one broken model must not take the others out of rotation.

        If API keys are required, a request without one gets only the status.
        """
        found = problems()
        status = "unavailable" if not registry.is_ready else "degraded" if found else "ready"
        body: dict[str, Any] = {"status": status}
        if keys.is_known(request.headers.get("Authorization")) and hosts.is_trusted(request.headers.get("Host")):
            defaults = {
                name: entry.default.number if entry.default and name not in registry.unloaded_models else None
                for name, entry in registry.snapshot.entries.items()
            }
            body |= {"models": defaults, "problems": [problem.as_dict() for problem in found]}
        return json_response(body, 503 if status == "unavailable" else 200)

    @blueprint.get("/metrics")
    def exposition() -> Response:
        drift.flush()
        return Response(metrics.exposition(), content_type=CONTENT_TYPE)

    return blueprint
