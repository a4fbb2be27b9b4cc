"""The Open Inference Protocol (V2) under /v2, for clients of Triton, KServe and MLServer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, g, request
from werkzeug.wrappers import Response

from model_store.errors import Fault, InputError
from model_store.utils.values import describe_value
from service.config import Settings
from service.http.exceptions import ApiError
from service.http.model_version import AT_LEAST_HEADER, require_at_least
from service.http.request_body import check_json_content_type, parse_json, read_body
from service.http.responses import json_response
from service.inference.runner import InferenceRunner
from service.protocols import model_metadata, open_inference, open_inference_metadata, tensors
from service.protocols.explain_request import read_explain_parameters
from service.protocols.explained_tensors import explanation_tensors
from service.protocols.open_inference_metadata import PLATFORM, check_loads_no_file
from service.protocols.tensors import TensorSpec
from service.registry.registry import ModelRegistry
from service.telemetry.metrics import Metrics

_MODEL = "/v2/models/<name>"
_VERSION = f"{_MODEL}/versions/<version>"


def create_blueprint(
    registry: ModelRegistry, inference: InferenceRunner, metrics: Metrics, settings: Settings
) -> Blueprint:
    blueprint = Blueprint("open_inference", __name__)
    extensions = ("binary_tensor_data", "model_configuration", "statistics")

    @blueprint.get("/v2")
    def server() -> Response:
        return json_response(open_inference_metadata.server_metadata(extensions, repository=settings.admin))

    @blueprint.get("/v2/health/live")
    @blueprint.get("/v2/health/ready")
    def health() -> Response:
        ready = registry.is_ready
        down = request.path.endswith("ready") and not ready
        return json_response({"live": True, "ready": ready}, 503 if down else 200)

    @blueprint.get(_MODEL)
    @blueprint.get(_VERSION)
    def model(name: str, version: str | None = None) -> Response:
        snapshot = registry.snapshot
        served = registry.find(name, version, snapshot)
        return json_response(open_inference_metadata.model_metadata(snapshot, served))

    @blueprint.get(f"{_MODEL}/ready")
    @blueprint.get(f"{_VERSION}/ready")
    def model_ready(name: str, version: str | None = None) -> Response:
        registry.version_number(name, version)  # 404 or 503 otherwise
        return json_response({"name": name, "ready": True})

    @blueprint.get(f"{_MODEL}/config")
    @blueprint.get(f"{_VERSION}/config")
    def config(name: str, version: str | None = None) -> Response:
        served = registry.find(name, version)
        signature = served.model.signature
        return json_response(
            {
                "name": name,
                "platform": PLATFORM,
                "backend": PLATFORM,
                "max_batch_size": served.max_rows,
                "input": [
                    _tensor_config(tensor) | ({} if column.fill is None else {"optional": True})
                    for tensor, column in zip(tensors.input_specs(signature), signature.inputs, strict=True)
                ],
                "output": [_tensor_config(tensor) for tensor in tensors.output_specs(served.model)],
            }
        )

    @blueprint.get(f"{_MODEL}/example")
    @blueprint.get(f"{_VERSION}/example")
    def example(name: str, version: str | None = None) -> Response:
        """Return a valid body for /infer. Not part of the protocol; the examples in errors use it."""
        served = registry.find(name, version)
        instance = model_metadata.require_example(served).instance
        return json_response({"inputs": tensors.row_to_tensors(served.model.signature, instance)})

    @blueprint.get("/v2/models/stats")
    @blueprint.get(f"{_MODEL}/stats")
    @blueprint.get(f"{_VERSION}/stats")
    def statistics(name: str | None = None, version: str | None = None) -> Response:
        """Return the counts of all workers since the service started."""
        if name is not None:
            versions = [(name, registry.version_number(name, version))]
        else:
            versions = [(served.name, served.number) for served in registry.snapshot.default_versions]
        counted = metrics.counters.totals_by_model_version()
        return json_response({"model_stats": [_version_statistics(*each, counted) for each in versions]})

    @blueprint.post(f"{_MODEL}/infer")
    @blueprint.post(f"{_VERSION}/infer")
    def infer(name: str, version: str | None = None) -> Response:
        # Before the body is read: an unknown model is reported at once.
        at_least = require_at_least(request.headers.get(AT_LEAST_HEADER))
        g.request_record.served = served = registry.find(name, version, at_least=at_least)
        json_length = request.headers.get(open_inference.JSON_LENGTH_HEADER)
        if json_length is None:
            check_json_content_type(request)
        body = read_body(request, settings.max_body_bytes)
        document, tail = open_inference.split_body(body, json_length, settings.max_body_bytes)
        if document is not None:
            g.sent_tensors = document.get("inputs"), tail  # for the example in an error response
        infer_request = open_inference.parse_request(document, tail, served, settings.max_body_bytes)
        asked = read_explain_parameters((document or {}).get("parameters"), served, "parameters.")
        encoded = tensors.encode(served.model, infer_request.arrays, served.max_rows)
        if asked is not None:
            served.row_limit.check_explained("inputs", len(encoded.inputs))
        served.row_limit.check_ranges("inputs", len(encoded.inputs), infer_request.asked.values_per_output)
        raw = inference(g.request_record, served, encoded.inputs)
        more = []
        if asked is not None:
            signature = infer_request.asked.signature(served.model)
            found = inference.explain(g.request_record, served, encoded.inputs, raw, asked, "rows", signature=signature)
            more = explanation_tensors(found)
        accepted = request.accept_encodings
        coding = accepted.best_match(["gzip", "deflate", "x-gzip"]) if accepted else None
        content, headers = open_inference.serialize_response(served, infer_request, raw, encoded.warnings, coding, more)
        return Response(content, headers=headers)

    @blueprint.post("/v2/repository/index")
    def index() -> Response:
        _require_admin(settings)
        expected = _read_object(settings).get("ready", False)
        if not isinstance(expected, bool):
            raise InputError(
                [
                    Fault(
                        "ready", f"expected true or false, found {describe_value(expected)}", "leave it out to list all"
                    )
                ]
            )
        return json_response(open_inference_metadata.repository_index(registry, only_ready=expected))

    @blueprint.post("/v2/repository/models/<name>/load")
    def load(name: str) -> Response:
        _require_admin(settings)
        check_loads_no_file(_read_object(settings).get("parameters", {}))
        registry.load(name)
        return json_response({})

    @blueprint.post("/v2/repository/models/<name>/unload")
    def unload(name: str) -> Response:
        _require_admin(settings)
        _read_object(settings)
        registry.unload(name)
        return json_response({})

    return blueprint


def _require_admin(settings: Settings) -> None:
    if not settings.admin:
        fix = "set SERVE_ADMIN=true to enable it on SERVE_ADMIN_PORT"
        message = f"the repository API is disabled; {fix}"
        raise ApiError(404, "not_found", message, [Fault("URL", "the repository API is disabled", fix)])


def _read_object(settings: Settings) -> dict[str, Any]:
    """Return the body of a repository request, which may be empty."""
    body = read_body(request, settings.max_body_bytes)
    found = parse_json(body, settings.max_body_bytes) if body else {}
    if not isinstance(found, dict):
        raise InputError([Fault("body", f"expected an object, found {describe_value(found)}", "send {}")])
    parameters = found.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError([Fault("parameters", f"expected an object, found {describe_value(parameters)}", "send {}")])
    return found


def _tensor_config(tensor: TensorSpec) -> dict[str, Any]:
    datatype = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
    about: dict[str, Any] = {"name": tensor.name, "data_type": datatype, "dims": tensor.shape[1:]}
    return about | ({"labels": tensor.labels} if tensor.labels else {})


def _version_statistics(
    name: str, number: int, counted: Mapping[tuple[str, str], Mapping[str, float]]
) -> dict[str, Any]:
    samples = counted.get((name, str(number)), {})

    def spent(stage: str) -> dict[str, int]:
        count = int(samples.get(f"forward_pass_stage_seconds_count:{stage}", 0))
        return {"count": count, "ns": round(1e9 * samples.get(f"forward_pass_stage_seconds_sum:{stage}", 0))}

    stages = {"queue": "queue", "compute_input": "parse", "compute_infer": "compute", "compute_output": "serialise"}
    statistics = {key: spent(stage) for key, stage in stages.items()}
    total = {"count": statistics["queue"]["count"], "ns": sum(each["ns"] for each in statistics.values())}
    failed = int(samples.get("forward_pass_errors_total", 0))
    spent_in_all = round(1e9 * samples.get("forward_pass_request_seconds_sum", 0))
    nothing = {"count": 0, "ns": 0}
    fail = {"count": failed, "ns": max(0, spent_in_all - total["ns"])} if failed else nothing
    caches = {"cache_hit": nothing, "cache_miss": nothing}  # responses are not cached
    return {
        "name": name,
        "version": str(number),
        "inference_count": int(samples.get("forward_pass_rows_total", 0)),
        "execution_count": int(samples.get("forward_pass_batch_rows_count", 0)),
        "inference_stats": {"success": total, "fail": fail, **statistics, **caches},
        "batch_stats": [],
    }
