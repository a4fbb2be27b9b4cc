"""The predict endpoints: POST /predict and /models/<name>[/versions/<version>]/predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, g, request
from werkzeug.wrappers import Response

from model_store.artifact.receipt import make_receipt
from model_store.errors import Fault, InputError, did_you_mean
from model_store.nn import Array
from model_store.schema.row_parser import RowBatch
from service.config import Settings
from service.http.request_body import check_json_content_type, parse_json, read_body
from service.http.responses import json_response
from service.inference.range_warnings import range_warnings
from service.inference.runner import InferenceRunner
from service.protocols import csv_npy
from service.protocols.native import PredictParser, predict_response
from service.protocols.row_encoding import encode_rows
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.telemetry.request_record import RequestRecord
from service.validation.predict_request import not_an_object_error


@dataclass(frozen=True)
class PredictResult:
    """The version used, the request body, the encoded rows and the predictions."""

    served: LoadedVersion
    body: bytes
    inputs: Array
    predictions: list[Any]
    warnings: list[Fault]  # of missing values that were filled in
    csv: RowBatch | None = None

    def locate(self, warnings: Sequence[Fault]) -> list[Fault]:
        """Return warnings that name the lines of a CSV body in place of its rows."""
        return list(warnings) if self.csv is None else list(map(self.csv.with_line, warnings))


class Predictor:
    """Parse a predict request (JSON, CSV or .npy) and run the model."""

    def __init__(
        self, registry: ModelRegistry, parser: PredictParser, inference: InferenceRunner, settings: Settings
    ) -> None:
        self._registry, self._parser, self._inference, self._settings = registry, parser, inference, settings

    def __call__(self, name: str | None, version: str | None, *, ignored_key: str = "") -> PredictResult:
        """Predict for the current request. `ignored_key` of the body is ignored."""
        record: RequestRecord = g.request_record
        max_bytes = self._settings.max_body_bytes
        if name is not None or request.mimetype in csv_npy.MEDIA_TYPES:
            # Before the body is read: an unknown model is reported at once.
            record.served = served = self._registry.find(name, version)
        if request.mimetype in csv_npy.MEDIA_TYPES:
            sent = read_body(request, max_bytes)
            if request.mimetype == csv_npy.CSV:
                header = request.mimetype_params.get("header")
                g.sent_csv = batch = csv_npy.parse_csv_rows(sent, served, header, max_bytes=max_bytes)
                g.sent_rows = batch.rows
                try:
                    encoded = encode_rows(served, batch.rows, "rows")
                except InputError as e:
                    raise batch.with_lines(e) from e
            else:
                encoded = csv_npy.encode_npy(sent, served)
        else:
            check_json_content_type(request, csv_npy.MEDIA_TYPES)
            sent = read_body(request, max_bytes)
            body = parse_json(sent, max_bytes, accepts_csv=True)
            if not isinstance(body, dict):
                raise not_an_object_error(body)
            body.pop(ignored_key, None)
            model = body.get("model")
            g.requested_model, g.sent_rows = model if isinstance(model, str) else "", body.get("instances")
            record.served, faults = self._parser.find_version(body, name, version)
            served, encoded = self._parser.encode(body, record.served, faults)
        outputs = self._inference(record, served, encoded.inputs)
        predictions = served.model.signature.decode(outputs)
        return PredictResult(served, sent, encoded.inputs, predictions, encoded.warnings, g.get("sent_csv"))


def create_blueprint(predictor: Predictor) -> Blueprint:
    blueprint = Blueprint("predict", __name__)

    @blueprint.post("/predict")
    @blueprint.post("/models/<name>/predict")
    @blueprint.post("/models/<name>/versions/<version>/predict")
    def predict(name: str | None = None, version: str | None = None) -> Response:
        extras = _true_query_parameters()
        result = predictor(name, version)
        served = result.served
        response = predict_response(served, result.predictions, result.locate(result.warnings))
        if "warnings" in extras:
            found = result.locate([*result.warnings, *range_warnings(served.model, result.inputs)])
            response["warnings"] = [warning.as_dict() for warning in found]
        if "receipt" in extras:
            response["receipt"] = make_receipt(
                served.name, served.number, served.digest, result.body, result.predictions
            )
        return json_response(response)

    return blueprint


_QUERY_PARAMETERS = ("warnings", "receipt")


def _true_query_parameters() -> set[str]:
    """Return the query parameters that are true. Raises InputError for unknown, repeated or malformed ones.

    The error does not repeat the value of an unknown parameter, which may be a secret.
    """
    faults = []
    for name, values in request.args.lists():
        found = values[0]
        if name not in _QUERY_PARAMETERS:
            fix = did_you_mean(name, _QUERY_PARAMETERS) or f"the parameters are {' and '.join(_QUERY_PARAMETERS)}"
            location = name if len(name) <= 100 else name[:97] + "..."
            faults.append(Fault(location, "unknown query parameter", fix))
        elif len(values) > 1:
            faults.append(Fault(name, f"expected once, found {len(values)} times", f"send it once: ?{name}=true"))
        elif found not in {"true", "false"}:
            faults.append(Fault(name, f"expected true or false, found {found[:100]!r}", f"send ?{name}=true"))
    if faults:
        raise InputError(faults)
    return {name for name, found in request.args.items() if found == "true"}
