"""The pages: the OpenAPI document, and a reference that people read, both made from what is served right now."""

from __future__ import annotations

import shlex
import weakref
from collections.abc import Mapping
from typing import Any

import orjson
from flask import Blueprint, render_template, request, url_for
from werkzeug.wrappers import Response

from model_store.utils.number_format import METRIC_TITLES, format_grouped, format_number, format_percent
from service.config import Settings
from service.openapi.document import build_document
from service.protocols import model_metadata
from service.registry.registry import ModelRegistry
from service.registry.snapshot import Snapshot

_ENDPOINTS = (
    ("POST", "/predict", "Predictions of the model that the body names"),
    ("POST", "/models/<name>/predict", "Predictions of this model"),
    ("POST", "/models/<name>/versions/<version>/predict", "Predictions of this version; a number, an alias or latest"),
    ("POST", "/v2/models/<name>/infer", "The same in tensors: the Open Inference Protocol, with all its addresses"),
    ("POST", "/v1/models/<name>:predict", "The same as TensorFlow Serving answers it, with its status and metadata"),
    ("POST", "/invocations", "The same for hosted platforms, beside GET /ping"),
    ("GET", "/models", "The models there are"),
    ("GET", "/models/<name>", "What a model takes and gives, and how good it is"),
    ("GET", "/models/<name>/versions/<version>", "The same of one version"),
    ("GET", "/models/<name>/example", "A body that is answered; the same below versions and /v2"),
    ("GET", "/healthz", "200 while the process lives"),
    ("GET", "/readyz", "200 while a model can answer, with all that is amiss; 503 when none can"),
    ("GET", "/metrics", "Figures for Prometheus"),
    ("GET", "/openapi.json", "This reference for programs: OpenAPI 3.1"),
)
_ERROR_CODES = (
    (400, ("bad_json", "broken_body"), "The body is not JSON, or did not come whole."),
    (400, ("bad_request",), "What came is not well-formed HTTP; also 414, 417, 431 and 501."),
    (401, ("unauthorized",), "The service asks for a key, and the request has none that is known."),
    (403, ("forbidden",), "The key has not the scope that the address needs."),
    (404, ("unknown_model", "unknown_version", "not_found"), "There is no such thing; the message says what there is."),
    (405, ("method_not_allowed",), "The address takes another method."),
    (408, ("request_timeout",), "The request did not arrive within half a minute."),
    (413, ("body_too_large",), "The body has more bytes than the limit."),
    (415, ("unsupported_media_type",), "The Content-Type is clearly not JSON. None at all is fine."),
    (422, ("invalid_request",), "The request was understood and does not fit; every fault is named."),
    (500, ("internal_error",), "A bug of the service. Its log has the reason under the request_id."),
    (
        503,
        ("overloaded", "loading", "no_model", "model_unavailable"),
        "Nothing can answer now; Retry-After says how long.",
    ),
)
_ERROR_EXAMPLE = {
    "error": {
        "code": "unknown_model",
        "message": "there is no model 'pengins'; did you mean 'penguins'?",
        "faults": [
            {
                "location": "model",
                "problem": "expected one of digits, penguins; found 'pengins'",
                "fix": "did you mean 'penguins'?",
            }
        ],
    },
    "request_id": "5f0c8e4b1d2a4c3f9e6b7a8091c2d3e4",
}


def create_blueprint(registry: ModelRegistry, settings: Settings) -> Blueprint:
    blueprint = Blueprint("pages", __name__)
    # The document of the snapshot that was last asked about, which nobody but the catalog is to keep.
    latest: list[tuple[weakref.ref[Snapshot], bytes]] = []

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        snapshot = registry.snapshot
        if not latest or latest[0][0]() is not snapshot:
            document = build_document(snapshot, require_keys=bool(settings.keys_file))
            latest[:] = [(weakref.ref(snapshot), orjson.dumps(document))]
        return Response(latest[0][1], content_type="application/json")

    @blueprint.get("/docs")
    def docs() -> str:
        snapshot = registry.snapshot
        cards = [
            model_metadata.model_details(snapshot.entries[served.name], served) for served in snapshot.default_versions
        ]
        curl = 'curl -H "Authorization: Bearer $FORWARD_PASS_KEY"' if settings.keys_file else "curl"
        return render_template(
            "docs.html",
            cards=[_page_model(card, curl) for card in cards],
            problems=snapshot.problems,
            base=request.host_url.rstrip("/"),
            settings=settings,
            addresses=_ENDPOINTS,
            error_codes=_ERROR_CODES,
            error_example=_indented_json(_ERROR_EXAMPLE),
            grouped=format_grouped,
        )

    return blueprint


def _page_model(card: dict[str, Any], curl: str) -> dict[str, Any]:
    """A card with its example as text: a line for the shell, and the answer to it."""
    example = card["example"]
    row = orjson.dumps({"instances": example["instances"]}).decode()
    path = url_for("predict.predict", name=card["name"])
    address = shlex.quote(request.host_url.rstrip("/") + path)
    return card | {
        "path": path,
        "curl": f"{curl} {address} -d {shlex.quote(row)}",
        "request": row,
        "answer": _indented_json(
            {"model": card["name"], "version": card["version"], "predictions": example["predictions"]}
        ),
        "figures": _metrics_table(card["training"]),
        "drawable": _is_drawable(card["inputs"][0]),
    }


def _is_drawable(column: Mapping[str, Any]) -> bool:
    """An array that can be shown as an image, with room between its darkest and its lightest."""
    seen = column.get("seen", {})
    return len(column.get("shape", ())) == 2 and seen.get("min", 0) < seen.get("max", 0)


def _metrics_table(training: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metrics as a sentence and a table; nothing of them where an artifact records them in another form."""
    metrics, baseline = training.get("metrics"), training.get("baseline", {})
    if not isinstance(metrics, dict) or not isinstance(baseline, dict):
        return None
    of = f"{_format_metric(metrics.get('rows', ''))} {metrics.get('of', 'rows')}".strip()
    accuracy = metrics.get("accuracy")
    by = next((key for key in ("classes", "targets") if isinstance(metrics.get(key), dict)), "")
    table = _metrics_by_name(metrics.get(by))
    beside = _metrics_by_name(baseline.get(by))
    summary = f"Measured on {of}."
    if isinstance(accuracy, float):
        summary = f"Right for {format_percent(accuracy)} of {of}"
        always = baseline.get("accuracy")
        if isinstance(always, float):
            summary += f"; always answering “{baseline.get('answer')}” would be right for {format_percent(always)}"
        summary += "."
    elif beside:
        summary += " The baseline always answers the training rows' mean."
    first = next(iter(table.values()), {})
    columns = [*(key for key in METRIC_TITLES if key in first), *(key for key in first if key not in METRIC_TITLES)]
    lines = [
        (title, [_format_metric(row.get(column)) for column in columns])
        for name, figures in table.items()
        for title, row in ((name, figures), ("baseline", beside.get(name)))
        if row is not None
    ]
    return {
        "summary": summary,
        "by": {"classes": "class"}.get(by, "target"),
        "columns": [METRIC_TITLES.get(column, column) for column in columns],
        "rows": lines,
    }


def _metrics_by_name(group: Any) -> dict[str, dict[str, Any]]:
    """The figures of each class or target."""
    return {name: row for name, row in group.items() if isinstance(row, dict)} if isinstance(group, dict) else {}


def _format_metric(value: Any) -> str:
    """A figure of an artifact, which may be anything."""
    short = value is None or isinstance(value, float) or (type(value) is int and abs(value) < 10**15)
    return format_number(value) if short else str(value)


def _indented_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
