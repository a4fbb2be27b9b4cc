"""The predict endpoints: POST /predict and /models/<name>[/versions/<version>]/predict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from flask import Blueprint, g, request
from werkzeug.wrappers import Response

from model_store.artifact.asked_answers import KEYS, AskedAnswers, read_asked_answers
from model_store.artifact.explanation import Asked
from model_store.artifact.receipt import PredictionsHash, make_receipt
from model_store.errors import Fault, InputError, did_you_mean
from model_store.nn import Array
from model_store.schema.columns import FaultCollector
from model_store.schema.row_parser import RowBatch
from model_store.schema.signature import RegressionOutput, Signature
from service.config import Settings
from service.http.model_version import AT_LEAST_HEADER, MODEL_VERSION_HEADER, require_at_least
from service.http.request_body import check_json_content_type, parse_json, read_body
from service.http.responses import ListInBlocks, json_response_in_pieces
from service.inference.range_warnings import range_warnings
from service.inference.runner import InferenceRunner
from service.protocols import csv_npy
from service.protocols.explain_request import EXPLAIN_PARAMETERS, read_explain, read_explain_parameters
from service.protocols.native import PredictParser, predict_response
from service.protocols.row_blocks import prediction_blocks, range_blocks
from service.protocols.row_encoding import encode_rows
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.telemetry.request_record import RequestRecord
from service.validation.predict_request import QUERY_PARAMETERS, not_an_object_error
from service.validation.row_limits import TooManyRowsError

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class PredictResult:
    """The version used, the request body, the encoded rows and the predictions."""

    served: LoadedVersion
    body: bytes
    inputs: Array
    predictions: ListInBlocks
    warnings: list[Fault]  # of missing values that were filled in
    csv: RowBatch | None = None
    explanations: list[dict[str, Any]] | None = None
    ranges: Mapping[str, ListInBlocks] | None = None  # intervals or sets

    def locate(self, warnings: Sequence[Fault]) -> list[Fault]:
        """Return warnings that name the lines of a CSV body in place of its rows."""
        return list(warnings) if self.csv is None else list(map(self.csv.with_line, warnings))


class Predictor:
    """Parse a predict request (JSON, CSV, .npy or an image file) and run the model."""

    def __init__(
        self, registry: ModelRegistry, parser: PredictParser, inference: InferenceRunner, settings: Settings
    ) -> None:
        self._registry, self._parser, self._inference, self._settings = registry, parser, inference, settings

    def __call__(
        self,
        name: str | None,
        version: str | None,
        *,
        top_k: int | None = None,
        receipt: bool = False,
        explain: Mapping[str, Any] | None = None,
        levels: Mapping[str, Any] = _NOTHING,
        ignored_key: str = "",
    ) -> PredictResult:
        """Predict for the current request. `ignored_key` of the body is ignored.

        `top_k` leaves only the most probable labels of a classifier in the predictions. Predictions with a `receipt`
        may have fewer rows. `explain` has the parameters of an explanation, `levels` those of `read_asked_answers`; a
        JSON body may ask for them itself.
        """
        record: RequestRecord = g.request_record
        max_bytes, at_least = self._settings.max_body_bytes, require_at_least(request.headers.get(AT_LEAST_HEADER))
        is_table, asked, certainty = request.mimetype in csv_npy.MEDIA_TYPES, None, None
        if name is not None or is_table:
            # Before the body is read: an unknown model is reported at once. JSON may name a version.
            record.served = served = self._registry.find(name, version, at_least=at_least if is_table else 0)
        if is_table:
            _check_top_k(served, top_k)
            asked = read_explain_parameters(explain, served)
            certainty = read_asked_answers(levels, served.model) if levels else None
            sent = read_body(request, max_bytes)
            max_rows = served.row_limit.max_rows(top_k, receipt=receipt)
            if request.mimetype == csv_npy.CSV:
                content_type = request.headers["Content-Type"]
                g.sent_csv = batch = csv_npy.parse_csv_rows(
                    sent, served, content_type, max_rows=max_rows, max_bytes=max_bytes
                )
                g.sent_rows = batch.rows
                try:
                    encoded = encode_rows(served, batch.rows, "rows", top_k, receipt=receipt)
                except InputError as e:
                    raise batch.with_lines(e) from e
            elif request.mimetype in csv_npy.IMAGES:
                encoded = csv_npy.encode_image(sent, served)
            else:
                encoded = csv_npy.encode_npy(sent, served, max_rows)
            if asked is not None:
                served.row_limit.check_explained("rows", len(encoded.inputs))
            if certainty is not None:
                served.row_limit.check_ranges("rows", len(encoded.inputs), certainty.values_per_output)
        else:
            check_json_content_type(request, csv_npy.MEDIA_TYPES)
            sent = read_body(request, max_bytes)
            body = parse_json(sent, max_bytes, accepts_csv=True)
            if not isinstance(body, dict):
                raise not_an_object_error(body)
            body.pop(ignored_key, None)
            wanted = body.pop("explain", None)
            levels = {**levels, **{key: body.pop(key) for key in KEYS if key in body}}
            model = body.get("model")
            g.requested_model, g.sent_rows = model if isinstance(model, str) else "", body.get("instances")
            found, faults = self._parser.find_version(body, name, version, at_least)
            record.served = found
            if found is not None:
                _check_top_k(found, top_k)
                asked = _read_explain(wanted, explain, found, body.get("instances"), faults)
                certainty = _read_levels(levels, found, body.get("instances"), faults)
            served, encoded = self._parser.encode(body, found, faults, top_k, receipt=receipt)
        outputs = self._inference(record, served, encoded.inputs)
        location = "rows" if is_table else "instances"
        signature, ranges, explanations = served.model.signature, None, None
        if certainty is not None:
            signature, ranges = certainty.signature(served.model), range_blocks(certainty, served.model, outputs)
        if asked is not None:
            explanations = self._explain(served, encoded.inputs, outputs, asked, location, signature)
        predictions = prediction_blocks(signature, outputs, top_k)
        return PredictResult(
            served, sent, encoded.inputs, predictions, encoded.warnings, g.get("sent_csv"), explanations, ranges
        )

    def _explain(
        self, served: LoadedVersion, inputs: Array, outputs: Array, asked: Asked, location: str, signature: Signature
    ) -> list[dict[str, Any]]:
        """Return the explanations of the current request. InputError at a row, or a line of CSV, that has none."""
        try:
            found = self._inference.explain(
                g.request_record, served, inputs, outputs, asked, location, signature=signature
            )
            return found.as_json()
        except InputError as e:
            batch = g.get("sent_csv")
            raise e if batch is None else batch.with_lines(e) from e


def create_blueprint(predictor: Predictor) -> Blueprint:
    blueprint = Blueprint("predict", __name__)

    @blueprint.post("/predict")
    @blueprint.post("/models/<name>/predict")
    @blueprint.post("/models/<name>/versions/<version>/predict")
    def predict(name: str | None = None, version: str | None = None) -> Response:
        asked = _query_parameters()
        try:
            result = predictor(
                name, version, top_k=asked.top_k, receipt=asked.receipt, explain=asked.explain, levels=asked.levels
            )
        except TooManyRowsError as e:
            if not asked.receipt:
                raise
            raise e.with_receipt() from e
        served = result.served
        predictions, predictions_hash = result.predictions, PredictionsHash()
        if asked.receipt:  # of the same objects that are rendered: each block is made once
            predictions = ListInBlocks(partial(_hashed_blocks, predictions, predictions_hash))
        response = predict_response(served, predictions, result.locate(result.warnings), result.explanations)
        response |= result.ranges or {}
        if asked.warnings:
            found = result.locate([*result.warnings, *range_warnings(served, result.inputs)])
            response["warnings"] = [warning.as_dict() for warning in found]
        if asked.receipt:
            response["receipt"] = partial(  # called when the predictions before it are rendered
                make_receipt, served.name, served.number, served.digest, result.body, predictions_hash, asked.top_k,
                asked.levels.get("threshold"),
            )  # fmt: skip
        return json_response_in_pieces(response, {MODEL_VERSION_HEADER: str(served.number)})

    return blueprint


def _hashed_blocks(predictions: ListInBlocks, found: PredictionsHash) -> Iterator[list[Any] | dict[str, Any]]:
    for block in predictions.blocks():
        found.update(block)
        yield block


@dataclass(frozen=True)
class QueryParameters:
    """What a request asks for in its URL."""

    warnings: bool
    receipt: bool
    top_k: int | None
    explain: dict[str, Any]  # parameters of an explanation
    levels: dict[str, float]  # of intervals or sets, and a threshold


_BOOLEANS = {"true": True, "false": False}
_TOP_K = re.compile(r"[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")  # of at least 0


def _query_parameters() -> QueryParameters:
    """Return the query parameters. Raises InputError for unknown, repeated or malformed ones.

    The error does not repeat the value of an unknown parameter, which may be a secret.
    """
    faults = FaultCollector()
    for name, values in request.args.lists():
        found, fix = values[0], f"?{name}={QUERY_PARAMETERS.get(name)}"
        if name not in QUERY_PARAMETERS:
            location = name if len(name) <= 100 else name[:97] + "..."
            faults.add(location, "unknown query parameter", partial(_fix_parameter, name))
        elif len(values) > 1:
            faults.add(name, f"expected once, found {len(values)} times", f"send it once: {fix}")
        elif name == "top_k" and not _TOP_K.fullmatch(found):
            problem = f"expected a whole number of labels, 1 or more; found {found[:100]!r}"
            faults.add(name, problem, f"send {fix}")
        elif name in {"warnings", "receipt", "explain"} and found not in _BOOLEANS:
            faults.add(name, f"expected true or false, found {found[:100]!r}", f"send {fix}")
        elif name in KEYS and not (_NUMBER.fullmatch(found) and 0 < float(found) < 1):
            faults.add(name, f"expected a number between 0 and 1, found {found[:100]!r}", f"send {fix}")
    faults.raise_if_any()
    warnings, receipt = (_BOOLEANS[request.args.get(name, "false")] for name in ("warnings", "receipt"))
    explain: dict[str, Any] = {name: request.args[name] for name in EXPLAIN_PARAMETERS if name in request.args}
    if "explain" in explain:
        explain["explain"] = _BOOLEANS[explain["explain"]]
    levels = {name: float(request.args[name]) for name in KEYS if name in request.args}
    return QueryParameters(warnings, receipt, request.args.get("top_k", type=int), explain, levels)


def _fix_parameter(name: str) -> str:
    return did_you_mean(name, tuple(QUERY_PARAMETERS)) or f"the parameters are {', '.join(QUERY_PARAMETERS)}"


def _read_explain(
    wanted: Any, parameters: Mapping[str, Any] | None, served: LoadedVersion, rows: Any, faults: list[Fault]
) -> Asked | None:
    """Return what the body's key `explain`, or else the URL, asks for. Faults are added to those of the rest."""
    try:
        asked = read_explain(wanted, served) if wanted is not None else read_explain_parameters(parameters, served)
    except InputError as error:
        faults += error.faults
        return None
    if asked is not None and isinstance(rows, list):
        served.row_limit.check_explained("instances", len(rows))
    return asked


def _read_levels(
    levels: Mapping[str, Any], served: LoadedVersion, rows: Any, faults: list[Fault]
) -> AskedAnswers | None:
    """Return what the body's keys ask for beside predictions. Their faults are added to those of the rest of it."""
    if not levels:
        return None
    try:
        asked = read_asked_answers(levels, served.model)
    except InputError as error:
        faults += error.faults
        return None
    if isinstance(rows, list):
        served.row_limit.check_ranges("instances", len(rows), asked.values_per_output)
    return asked


def _check_top_k(served: LoadedVersion, top_k: int | None) -> None:
    if top_k is not None and isinstance(served.model.signature.output, RegressionOutput):
        problem = f"expected a model that predicts classes, found {served.name}, which predicts numbers"
        raise InputError([Fault("top_k", problem, "leave it out")])
