"""The OpenAPI document and the HTML reference page, both generated from the models in memory."""

from __future__ import annotations

import html
import math
import re
import secrets
import shlex
import weakref
from collections.abc import Mapping
from itertools import islice
from typing import Any

import orjson
from flask import Blueprint, redirect, request
from werkzeug.wrappers import Response

from model_store.utils.number_format import METRIC_TITLES, format_grouped, format_number, format_percent, format_score
from model_store.utils.printable import printable
from service.config import Settings
from service.http.request_head import root_url
from service.openapi.described_models import split_described
from service.openapi.document import build_document
from service.openapi.json_schema import Json
from service.protocols import model_metadata
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.registry.snapshot import ModelEntry, Snapshot
from service.routes.page_frame import has_traffic, page_view, render_page, require_pages

_SCORES = ("precision", "recall", "f1", "roc_auc", "r2", "d2")  # at most 1: shown with equal decimals
_MAX_METRICS, _MAX_METRIC_ROWS = 20, 1000  # an artifact may have any, and the table has a cell for each pair
_ENDPOINTS = (
    ("POST", "/predict", "Predictions of the model named in the body"),
    ("POST", "/models/<name>/predict", "Predictions of this model"),
    ("POST", "/models/<name>/versions/<version>/predict", "Predictions of this version: a number, an alias or latest"),
    (
        "POST",
        "/v2/models/<name>/infer",
        "Predictions as tensors (Open Inference Protocol V2)",
    ),
    (
        "POST",
        "/v1/models/<name>:predict",
        "Predictions in the format of TensorFlow Serving",
    ),
    ("POST", "/invocations", "Predictions for Amazon SageMaker and Google Vertex AI; GET /ping is their health check"),
    ("GET", "/", "Page of all models; JSON for programs"),
    ("GET", "/models", "List of models"),
    ("GET", "/models/<name>", "Inputs, output, metrics and an example of a model"),
    ("GET", "/models/<name>/versions/<version>", "The same for one version"),
    ("GET", "/models/<name>/aliases", "Aliases of a model, and who moved them, when and why"),
    (
        "POST",
        "/models/<name>/aliases/<alias>",
        "Move an alias; also under /rollback and /protection (requires SERVE_ADMIN)",
    ),
    (
        "GET",
        "/models/<name>/network",
        "Layers and weights of a network; a page for browsers. Also under /versions",
    ),
    ("POST", "/models/<name>/activations", "The output of each layer for one row. Also under /versions"),
    ("GET", "/models/<name>/example", "A valid request body; also under /versions/<version> and /v2"),
    ("GET", "/healthz", "200 if the process is running"),
    ("GET", "/readyz", "200 if at least one model can predict, with current problems; else 503"),
    ("GET", "/metrics", "Prometheus metrics"),
    ("GET", "/traffic", "Traffic of the last hour by model and version"),
    ("GET", "/openapi.json", "This reference as an OpenAPI 3.1 document"),
)
_ERROR_CODES = (
    (400, ("bad_json", "broken_body"), "The body is not valid JSON, or is incomplete."),
    (400, ("bad_request",), "The request's head is invalid. Also with status 414, 417, 431 and 501."),
    (401, ("unauthorized",), "An API key is required; the request has none, or an unknown, expired or revoked one."),
    (403, ("forbidden",), "The key lacks the scope that this endpoint requires."),
    (
        404,
        ("unknown_model", "unknown_version", "not_found"),
        "The model, version or endpoint does not exist. The message lists those that do.",
    ),
    (405, ("method_not_allowed",), "The endpoint does not support this method."),
    (408, ("request_timeout",), "The request did not arrive within 30 seconds."),
    (409, ("conflict", "gate_failed"), "The alias was not moved: it has changed, is protected, or a gate failed."),
    (413, ("body_too_large",), "The body exceeds the size limit."),
    (
        413,
        ("too_many_rows",),
        "The request has more rows or characters of text than the model's limit. The message says how many rows fit.",
    ),
    (415, ("unsupported_media_type",), "The Content-Type is not supported. It may be left out for JSON."),
    (422, ("invalid_request",), "The request is invalid. The response lists every error."),
    (500, ("internal_error",), "A bug in the service. The cause is in its log under the request_id."),
    (
        503,
        ("overloaded", "loading", "no_model", "model_unavailable"),
        "The service cannot predict now. Retry-After says when to retry.",
    ),
    (
        503,
        ("older_version",),
        "The model's version is older than X-Model-Version-At-Least. Retry-After says when to retry.",
    ),
    (503, ("store_unavailable",), "The model store cannot be read or written. Predictions go on."),
    (503, ("metrics_unavailable",), "The counts of /metrics cannot be read. Predictions go on."),
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
    blueprint = Blueprint("docs", __name__)
    # The document of the last snapshot. The weak reference does not keep a replaced snapshot in memory.
    latest: list[tuple[weakref.ref[Snapshot], Json]] = []
    # The page of the last snapshot, by whether its header has a link to /traffic. It has a placeholder for the URL of
    # the service, which each client names in Host.
    pages: list[tuple[weakref.ref[Snapshot], dict[bool, str]]] = []
    placeholder = f"http://{secrets.token_hex(16)}"
    placed_path = re.compile(rf"{placeholder}(/models/[A-Za-z0-9._-]+/predict)")

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        snapshot = registry.snapshot
        if not latest or latest[0][0]() is not snapshot:
            latest[:] = [(weakref.ref(snapshot), build_document(snapshot, require_keys=bool(settings.keys_file)))]
        servers = [{"url": request.script_root or "/"}]
        return Response(orjson.dumps(latest[0][1] | {"servers": servers}), content_type="application/json")

    @blueprint.get("/docs/", strict_slashes=True)
    def slash() -> Response:  # the page's links are relative, so that it works behind any prefix
        return redirect("../docs")

    @blueprint.get("/docs", strict_slashes=True)
    @page_view("predict")
    def docs() -> str:
        require_pages()
        snapshot = registry.snapshot
        if not pages or pages[0][0]() is not snapshot:
            pages[:] = [(weakref.ref(snapshot), {})]
        rendered = pages[0][1]
        if (links := has_traffic()) not in rendered:
            rendered[links] = render(snapshot)
        base = root_url(request)
        page = placed_path.sub(lambda found: html.escape(shlex.quote(base + found[1])), rendered[links])
        return page.replace(placeholder, html.escape(base))

    def render(snapshot: Snapshot) -> str:
        described, only_named = split_described(snapshot)
        curl = 'curl -H "Authorization: Bearer $FORWARD_PASS_KEY"' if settings.keys_file else "curl"
        return render_page(
            "docs.html",
            "docs",
            models=[
                _page_model(snapshot.entries[served.name], served, f"{curl} {placeholder}") for served in described
            ],
            only_named=[{"name": served.name, "version": served.number} for served in only_named],
            problems=snapshot.problems,
            base=placeholder,
            settings=settings,
            endpoints=_ENDPOINTS,
            error_codes=_ERROR_CODES,
            error_example=_indented_json(_ERROR_EXAMPLE),
            grouped=format_grouped,
        )

    return blueprint


def _page_model(entry: ModelEntry, served: LoadedVersion, curl: str) -> dict[str, Any]:
    """Return a model's details with what the page shows: a curl command with its response, fields and metrics.

    `curl` is the command up to the path of the URL.

    A model without an example has neither command nor response, and its form is empty.
    """
    details = model_metadata.model_details(entry, served)
    path = f"/models/{details['name']}/predict"
    page = details | {
        "path": path,
        "metrics": _metrics_table(details["training"]),
        "fields": [column.form_field() for column in served.model.signature.inputs],
    }
    example = details["example"]
    if example is None:
        return page
    body = orjson.dumps({"instances": example["instances"]}).decode()
    return page | {
        "curl": f"{curl}{path} -d {shlex.quote(printable(body))}",
        "request": body,
        "response": _indented_json(
            {"model": details["name"], "version": details["version"], "predictions": example["predictions"]}
        ),
    }


def _metrics_table(training: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the metrics as a sentence and a table, or None if the artifact has them in another form."""
    metrics, baseline = training.get("metrics"), training.get("baseline", {})
    if not isinstance(metrics, dict) or not isinstance(baseline, dict):
        return None
    of = f"{_format_metric('rows', metrics.get('rows', ''))} {metrics.get('of', 'rows')}".strip()
    accuracy = metrics.get("accuracy")
    by = next((key for key in ("classes", "labels", "targets") if isinstance(metrics.get(key), dict)), "")
    table = _metrics_by_name(metrics.get(by))
    beside = _metrics_by_name(baseline.get(by))
    summary = f"Measured on {of}."
    if isinstance(accuracy, float):
        summary = f"Accuracy {format_percent(accuracy)} on {of}"
        always = baseline.get("accuracy")
        if isinstance(always, float):
            summary += f"; always predicting “{baseline.get('answer')}” gives {format_percent(always)}"
        summary += "."
    elif by == "labels":
        summary = _describe_labels(metrics, baseline, of)
    elif beside:
        quantile = metrics.get("quantile")
        constant = f"{format_number(quantile)} quantile" if isinstance(quantile, float) else "mean"
        summary += f" The baseline always predicts the {constant} of the training rows."
    first = next(iter(table.values()), {})
    columns = [*(key for key in METRIC_TITLES if key in first), *(key for key in first if key not in METRIC_TITLES)]
    del columns[_MAX_METRICS:]
    lines = [
        (title, [_format_metric(column, row.get(column)) for column in columns])
        for name, figures in islice(table.items(), _MAX_METRIC_ROWS)
        for title, row in ((name, figures), ("baseline", beside.get(name)))
        if row is not None
    ]
    return {
        "summary": summary,
        "by": {"classes": "class", "labels": "label"}.get(by, "target"),
        "columns": [METRIC_TITLES.get(column, column) for column in columns],
        "rows": lines,
    }


def _describe_labels(metrics: Mapping[str, Any], baseline: Mapping[str, Any], of: str) -> str:
    """Return the metrics of a model whose rows may have several labels, and those of its baseline, as a sentence."""
    shown = [f"{METRIC_TITLES[key]} {_format_metric(key, metrics.get(key))}" for key in ("micro_f1", "log_loss")]
    match, summary = metrics.get("exact_match"), f"{', '.join(shown)}, on {of}."
    if isinstance(match, float):
        summary = f"All labels right in {format_percent(match)}, {summary}"
    if isinstance(loss := baseline.get("log_loss"), float):
        summary += f" Always predicting the frequency of each label has the log loss {format_number(loss)}."
    return summary[0].upper() + summary[1:]


def _metrics_by_name(group: Any) -> dict[str, dict[str, Any]]:
    """Return the metrics of each class or target."""
    return {name: row for name, row in group.items() if isinstance(row, dict)} if isinstance(group, dict) else {}


def _format_metric(name: str, value: Any) -> str:
    """Format a metric of an artifact, which may be any JSON value."""
    if name == "coverage" and isinstance(value, float) and math.isfinite(value):
        return format_percent(value)
    if name in _SCORES and isinstance(value, float) and math.isfinite(value):
        return format_score(value, 4)
    short = value is None or isinstance(value, float) or (type(value) is int and abs(value) < 10**15)
    return format_number(value) if short else str(value)


def _indented_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
