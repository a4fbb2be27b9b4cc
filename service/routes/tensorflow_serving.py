"""The REST API of TensorFlow Serving under /v1, and KServe's V1 protocol, which has the same URLs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from flask import Blueprint, g, request
from werkzeug.routing import BaseConverter
from werkzeug.wrappers import Response

from model_store.artifact.asked_answers import KEYS, read_asked_answers
from model_store.nn import Array
from model_store.schema.columns import FaultCollector
from model_store.schema.signature import RegressionOutput, Signature
from model_store.utils.values import describe_value, list_names
from service.config import Settings
from service.http.model_version import AT_LEAST_HEADER, MODEL_VERSION_HEADER, require_at_least
from service.http.request_body import read_json
from service.http.responses import json_response, json_response_in_pieces
from service.inference.runner import InferenceRunner
from service.protocols import model_metadata, tensors
from service.protocols.explain_request import read_explain
from service.protocols.native import with_warnings
from service.protocols.row_blocks import column_blocks, range_blocks, row_blocks
from service.protocols.row_encoding import encode_rows
from service.protocols.tensors import TensorSpec
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.validation.predict_request import not_an_object_error
from service.validation.row_limits import check_row_count

_SIGNATURE_NAME = "serving_default"
_MODEL = "/v1/models/<name>"
_TYPES = {
    "BOOL": "DT_BOOL",
    "BYTES": "DT_STRING",
    "INT64": "DT_INT64",
    "UINT64": "DT_UINT64",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
}


class SegmentConverter(BaseConverter):
    """Match a path segment without a verb: `penguins`, not `penguins:predict`."""

    regex = "[^/:]+"


def create_blueprint(registry: ModelRegistry, inference: InferenceRunner, settings: Settings) -> Blueprint:
    blueprint = Blueprint("tensorflow_serving", __name__)

    @blueprint.get("/v1/models")
    def models() -> Response:
        return json_response({"models": list(registry.snapshot.entries)})

    @blueprint.get("/v1/models/<segment:name>")
    @blueprint.get(f"{_MODEL}/versions/<segment:version>")
    @blueprint.get(f"{_MODEL}/labels/<segment:version>")
    def status(name: str, version: str | None = None) -> Response:
        """Return the keys of both protocols, which share this URL."""
        if version is None:
            states = model_metadata.version_states(registry, name, registry.snapshot)
        else:
            states = {registry.version_number(name, version): ""}
        ready = "" in states.values()
        statuses = [_version_status(number, problem) for number, problem in sorted(states.items(), reverse=True)]
        return json_response({"name": name, "ready": ready, "model_version_status": statuses}, 200 if ready else 503)

    @blueprint.get(f"{_MODEL}/metadata")
    @blueprint.get(f"{_MODEL}/versions/<version>/metadata")
    @blueprint.get(f"{_MODEL}/labels/<version>/metadata")
    def metadata(name: str, version: str | None = None) -> Response:
        served = registry.find(name, version)
        definition = {
            "inputs": {tensor.name: _tensor_info(tensor) for tensor in tensors.input_specs(served.model.signature)},
            "outputs": {tensor.name: _tensor_info(tensor) for tensor in tensors.output_specs(served.model)},
            "method_name": "tensorflow/serving/predict",
        }
        return json_response(
            {
                "model_spec": {"name": name, "signature_name": "", "version": str(served.number)},
                "metadata": {"signature_def": {"signature_def": {_SIGNATURE_NAME: definition}}},
            }
        )

    @blueprint.post(f"{_MODEL}:explain")
    @blueprint.post(f"{_MODEL}/versions/<version>:explain")
    @blueprint.post(f"{_MODEL}/labels/<version>:explain")
    def explain(name: str, version: str | None = None) -> Response:
        """Predict, and explain the predictions as the native protocol does; the verb of KServe's V1 protocol."""
        return respond(name, version, explains=True)

    @blueprint.post(f"{_MODEL}:predict")
    @blueprint.post(f"{_MODEL}/versions/<version>:predict")
    @blueprint.post(f"{_MODEL}/labels/<version>:predict")
    def predict(name: str, version: str | None = None) -> Response:
        return respond(name, version, explains=False)

    def respond(name: str, version: str | None, *, explains: bool) -> Response:
        # Before the body is read: an unknown model is reported at once.
        at_least = require_at_least(request.headers.get(AT_LEAST_HEADER))
        g.request_record.served = served = registry.find(name, version, at_least=at_least)
        body = read_json(request, settings.max_body_bytes)
        if not isinstance(body, dict):
            raise not_an_object_error(body)
        location = _request_format(body)
        signature = served.model.signature
        g.is_columnar = location == "inputs"
        rows = _columns_to_rows(body["inputs"], served) if g.is_columnar else body["instances"]
        if isinstance(rows, list):
            check_row_count(location, len(rows), served.max_rows)
        rows = _wrap_single_values(rows, signature)
        g.sent_rows = rows  # for the example in an error response
        wanted = body.get("explain")
        if explains and (wanted is None or wanted is False):
            wanted = True
        asked = read_explain(wanted, served)
        if asked is not None and isinstance(rows, list):
            served.row_limit.check_explained(location, len(rows))
        levels = {key: body[key] for key in KEYS if key in body}
        certainty = read_asked_answers(levels, served.model) if levels else None
        if certainty is not None and isinstance(rows, list):
            served.row_limit.check_ranges(location, len(rows), certainty.values_per_output)
            signature = certainty.signature(served.model)
        encoded = encode_rows(served, rows, location)
        raw = inference(g.request_record, served, encoded.inputs)
        found = signature.decode_arrays(raw)
        more: dict[str, Any] = {} if certainty is None else {**range_blocks(certainty, served.model, raw)}
        if asked is not None:
            explained = inference.explain(g.request_record, served, encoded.inputs, raw, asked, signature=signature)
            more["explanations"] = explained.as_json()
        headers = {MODEL_VERSION_HEADER: str(served.number)}
        if location == "inputs":
            if isinstance(signature.output, RegressionOutput):
                outputs: Any = column_blocks(signature.output.names, found["values"])
            else:
                outputs = {key: row_blocks({key: values}, _arrays_to_rows) for key, values in found.items()}
            return json_response_in_pieces(with_warnings({"outputs": outputs, **more}, encoded.warnings), headers)
        convert = signature.predictions if isinstance(signature.output, RegressionOutput) else _arrays_to_rows
        response = {"predictions": row_blocks(found, convert), **more}
        return json_response_in_pieces(with_warnings(response, encoded.warnings), headers)

    return blueprint


def _request_format(body: dict[str, Any]) -> str:
    """Return "instances" (rows) or "inputs" (columns), whichever the request has."""
    faults = FaultCollector()
    expected = body.get("signature_name")
    if expected not in (None, "", _SIGNATURE_NAME):
        faults.add("signature_name", f"expected {_SIGNATURE_NAME!r}, found {describe_value(expected)}", "leave it out")
    forms = [form for form in ("instances", "inputs") if form in body]
    if len(forms) != 1:
        fix = 'send {"instances": [row, ...]} or {"inputs": {"column": [value, ...], ...}}'
        faults.add("body", f"expected instances or inputs, found {' and '.join(forms) or 'neither'}", fix)
    faults.raise_if_any()
    return forms[0]


def _columns_to_rows(columns: Any, served: LoadedVersion) -> Any:
    """Convert columns by name to rows, unless one is too long. Anything else is the rows of a single tensor."""
    signature = served.model.signature
    if not isinstance(columns, dict):
        return columns
    if columns.keys() == {tensors.TABLE_NAME}:
        return columns[tensors.TABLE_NAME]
    first = {name: column[0] if isinstance(column, list) and column else column for name, column in columns.items()}
    g.sent_rows = [first]
    faults = FaultCollector()
    whole_row = signature.inputs[0].name if signature.inputs[0].is_whole_row else None
    values = {}
    for name, column in columns.items():
        if not isinstance(column, list):
            faults.add(
                f"inputs.{name[:100]}", f"expected a list, found {describe_value(column)}", "send a value for each row"
            )
        else:
            check_row_count("inputs", len(column), served.max_rows)
            values[name] = column if name == whole_row else _squeeze_column(column)
    if len(set(map(len, values.values()))) > 1:
        found = [f"{name[:100]} has {len(column)}" for name, column in values.items()]
        faults.add(
            "inputs",
            f"expected the same number of values in each column, found {list_names(found)}",
            "send a value of each column for each row",
        )
    faults.raise_if_any()
    if len(values) > 1 and values.keys() == set(signature.names):  # rows in column order cost a third of objects
        return list(map(list, zip(*map(values.__getitem__, signature.names), strict=True)))
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _wrap_single_values(rows: Any, signature: Signature) -> Any:
    """Wrap single values for a model with one column: 1.0 becomes [1.0]."""
    if not isinstance(rows, list) or len(signature.inputs) > 1 or signature.inputs[0].is_whole_row:
        return rows
    return [row if isinstance(row, list | dict) else [row] for row in rows]


def _squeeze_column(column: list[Any]) -> list[Any]:
    """Convert a column of shape [-1, 1] to [-1]."""
    single = set(map(type, column)) == {list} and set(map(len, column)) == {1}
    return list(chain.from_iterable(column)) if single else column


def _arrays_to_rows(found: dict[str, Array]) -> list[Any]:
    """Return rows: plain values for a single output, objects for several."""
    if len(found) == 1:
        (values,) = found.values()
        alone: list[Any] = values.tolist()
        return alone
    rows = zip(*(values.tolist() for values in found.values()), strict=True)
    return [dict(zip(found, row, strict=True)) for row in rows]


def _version_status(number: int, problem: str) -> dict[str, Any]:
    status = {"error_code": "UNAVAILABLE" if problem else "OK", "error_message": problem}
    return {"version": str(number), "state": "END" if problem else "AVAILABLE", "status": status}


def _tensor_info(tensor: TensorSpec) -> dict[str, Any]:
    """Return a tensor's metadata. In this protocol a column is a scalar for each row."""
    return {
        "dtype": _TYPES[tensor.datatype],
        "tensor_shape": _SCALARS if tensor.shape == (-1, 1) else _tensor_shape(tensor.shape),
        "name": f"{_SIGNATURE_NAME}_{tensor.name}:0",
    }


def _tensor_shape(shape: Sequence[int]) -> dict[str, Any]:
    return {"dim": [{"size": str(size), "name": ""} for size in shape], "unknown_rank": False}


_SCALARS = _tensor_shape((-1,))  # made once: a model may have 60,000 targets
