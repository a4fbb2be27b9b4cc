"""Examples in error responses: for a rejected request, a body that works and the curl command that sends it.

The row is the client's own with its errors fixed, or else the model's example. A long body is left out: the command
fetches the model's example and pipes it into the request. No forward pass is run: values that pass validation and are
not extreme are accepted.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
from flask import current_app, g, request

from model_store.errors import Fault
from model_store.schema.signature import ArrayColumn
from model_store.similar_names import closest_name
from model_store.utils.printable import printable
from service.http.request_head import root_url
from service.protocols import tensors
from service.registry.errors import UnavailableError, UnknownModelError, WouldBlock
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.registry.shared_names import SharedNames
from service.routes.row_repair import repair_row, row_from_tensors

_MAX_BODY_BYTES = 4096  # larger bodies, such as images, are left out
REPOSITORY_PATH = "/v2/repository/"


def error_example(registry: ModelRegistry, faults: list[Fault]) -> dict[str, Any] | None:
    """Return `{"body": ..., "curl": "..."}`, without the body if it is long.

    None if no model can predict, or if a row of the model is too large for an example.
    """
    if request.blueprint == "aliases":  # no request to predict
        return None
    base, curl = root_url(request), "curl -s"
    if current_app.extensions["keys"]:
        curl += ' -H "Authorization: Bearer $FORWARD_PASS_KEY"'
    if request.path.startswith(REPOSITORY_PATH) and isinstance(registry.unloaded_models, SharedNames):
        named = (request.view_args or {}).get("name", "")
        path = request.path if not named or named in registry.snapshot.entries else f"{REPOSITORY_PATH}index"
        url = shlex.quote(base + quote(path))
        return {"body": {}, "curl": f"{curl} {url} -H 'Content-Type: application/json' -d '{{}}'"}
    served, is_requested = _intended_version(registry)
    if served is None or served.example is None:
        return None
    url = shlex.quote(base + quote(_predict_path(served, is_requested), safe="/:"))
    if _min_row_bytes(served) <= _MAX_BODY_BYTES:  # else a short request would cost as much as a long row
        row = _example_row(served, served.example.instance, faults)
        body = _example_body(served, row, is_only_model=len(registry.snapshot.entries) == 1)
        text = orjson.dumps(body).decode()
        if len(text) <= _MAX_BODY_BYTES:
            return {"body": body, "curl": f"{curl} {url} -d {shlex.quote(printable(text))}"}
    tensor = "/v2" if request.path.startswith("/v2") else ""
    example = shlex.quote(f"{base}{tensor}/models/{served.name}/versions/{served.number}/example")
    return {"curl": f"{curl} {example} | {curl} {url} -d @-"}


def _min_row_bytes(served: LoadedVersion) -> int:
    """Return how long a row of the model is in JSON at least: a number and a comma for each value, and the names."""
    columns = served.model.signature.inputs
    return sum(2 * math.prod(column.shape) + (0 if column.is_whole_row else len(column.name)) for column in columns)


def _intended_version(registry: ModelRegistry) -> tuple[LoadedVersion | None, bool]:
    """Return the version in the URL and True; or, with False, the model that the client probably meant.

    That is the model with the most similar name or, if the request names none, with the most of the sent columns.
    """
    view_args = request.view_args or {}
    name = view_args.get("name") or g.get("requested_model") or ""
    if "name" in view_args:
        try:
            return registry.find(name, view_args.get("version"), load=False), True
        except (UnknownModelError, UnavailableError, WouldBlock):
            pass
    elif found := re.search(r"/models/([^/:]+)", request.path):
        name = found[1]
    unloaded = frozenset(registry.unloaded_models)
    available = {each.name: each for each in registry.snapshot.default_versions if each.name not in unloaded}
    if not name:
        return max(
            available.values(), key=lambda served: (_count_matching_columns(served), served.name), default=None
        ), False
    close = closest_name(name, available)
    return available[close] if close else next(iter(available.values()), None), False


def _count_matching_columns(served: LoadedVersion) -> int:
    """Count the model's columns in the first row of the request, by name or in column order."""
    rows, signature = g.get("sent_rows"), served.model.signature
    row = rows[0] if isinstance(rows, list) and rows else None
    if isinstance(row, Mapping):
        return sum(name in row for name in signature.names)
    if not isinstance(row, list) or not row:
        return 0
    if isinstance(signature.inputs[0], ArrayColumn):
        return int(isinstance(row[0], list))
    return len(row) if len(row) == len(signature.names) and not isinstance(row[0], list) else 0


def _predict_path(served: LoadedVersion, is_requested: bool) -> str:
    """Return the predict endpoint of the request's protocol: the requested path if it is one."""
    path = request.path
    if _is_hosted_platform() or (
        is_requested and request.url_rule and request.url_rule.rule.endswith(("predict", "infer"))
    ):
        return path
    if path.startswith("/v2"):
        return f"/v2/models/{served.name}/infer"
    return f"/v1/models/{served.name}:predict" if path.startswith("/v1") else f"/models/{served.name}/predict"


def _is_hosted_platform() -> bool:
    return request.path == "/invocations" or request.blueprint == "sagemaker_vertex"


def _example_body(served: LoadedVersion, row: Any, *, is_only_model: bool) -> dict[str, Any]:
    """Return the body in the request's format: tensors, columns or rows."""
    if _is_hosted_platform():
        return ({} if is_only_model else {"model": served.name}) | {"instances": [row]}
    if request.path.startswith("/v2"):
        given = g.get("sent_tensors", ([], b""))[0]
        names = [one.get("name") for one in given if isinstance(one, dict)] if isinstance(given, list) else []
        return {"inputs": tensors.row_to_tensors(served.model.signature, row, as_table=names == [tensors.TABLE_NAME])}
    if g.get("is_columnar"):
        return {"inputs": {name: [value] for name, value in row.items()} if isinstance(row, Mapping) else [row]}
    return {"instances": [row]}


def _example_row(served: LoadedVersion, example: Any, faults: list[Fault]) -> Any:
    """Return the first row with an error, or else the first row, repaired; `example` if none was sent."""
    of_tensors = "sent_tensors" in g  # their errors name a row or a tensor
    location = re.compile(r"rows\.(\d{1,9})" if of_tensors else r"(?:instances|inputs|line)[. ](\d{1,9})")
    number = next((int(found[1]) for fault in faults if (found := location.match(fault.location))), 0)
    if "sent_csv" in g and number in g.sent_csv.lines:
        number = g.sent_csv.lines.index(number)
    if of_tensors:
        inputs, tail = g.sent_tensors
        return repair_row(served, example, row_from_tensors(served, inputs, tail, number))
    rows = g.get("sent_rows")
    return repair_row(served, example, rows[number]) if isinstance(rows, list) and number < len(rows) else example
