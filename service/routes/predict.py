"""Predictions: POST /predict and the same below /models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, g, request
from werkzeug.wrappers import Response

from model_store.artifact.receipt import receipt
from model_store.errors import Fault, InputError, did_you_mean
from model_store.nn import Array
from service.config import Settings
from service.http.request_body import check_json_type, parse_json, read_bytes
from service.http.responses import json_response
from service.inference.range_warnings import range_warnings
from service.inference.runner import InferenceRunner
from service.protocols import csv_npy
from service.registry.registry import LoadedVersion, ModelRegistry, UnavailableError, UnknownError
from service.telemetry.request_record import RequestRecord
from service.validation.predict_request import PredictSchema, is_version_ref, not_an_object


@dataclass(frozen=True)
class Predicted:
    """Who answered, what was sent, what went into the network, and the predictions."""

    served: LoadedVersion
    sent: bytes
    inputs: Array
    predictions: list[Any]


class Predictor:
    """Reads a request for predictions, in JSON or as a table, and answers it."""

    def __init__(self, registry: ModelRegistry, inference: InferenceRunner, settings: Settings) -> None:
        self._registry, self._inference, self._settings = registry, inference, settings
        self._general = PredictSchema(settings.max_instances)

    def __call__(self, name: str | None, version: str | None, *, passed_over: str = "") -> Predicted:
        """`passed_over` is a key of the body that means nothing here."""
        record: RequestRecord = g.request_record
        if name is not None or request.mimetype in csv_npy.TYPES:
            record.served = served = self._registry.find(
                name, version
            )  # a wrong address is told before the body is read
        if request.mimetype in csv_npy.TYPES:
            sent = read_bytes(request, self._settings.max_body_bytes)
            inputs = csv_npy.read(sent, request.mimetype, served, self._settings)
        else:
            check_json_type(request)
            sent = read_bytes(request, self._settings.max_body_bytes)
            body = parse_json(sent, self._settings.max_body_bytes)
            if not isinstance(body, dict):
                raise not_an_object(body)
            body.pop(passed_over, None)
            model = body.get("model")
            g.named, g.sent = model if isinstance(model, str) else "", body.get("instances")
            served, inputs = self.checked(body, name, version, record)
        outputs = self._inference(record, served, inputs)
        return Predicted(served, sent, inputs, served.model.signature.decode(outputs))

    def checked(
        self, body: dict[str, Any], name: str | None, version: str | None, record: RequestRecord | None = None
    ) -> tuple[LoadedVersion, Array]:
        """Who answers and what goes in; InputError with every fault of the body. `record` is told who was asked."""
        model, ref = body.get("model"), body.get("version")
        intelligible = isinstance(model, str | None) and (ref is None or is_version_ref(ref))
        faults: list[Fault] = []
        served = None
        try:
            served = self._registry.find(
                name if name is not None else model if isinstance(model, str) else None,
                version if version is not None else ref if is_version_ref(ref) else None,
            )
        except (InputError, UnknownError, UnavailableError) as e:
            # What is wrong with the body's words for a model and a version, the schema says; no names at all, we do.
            if intelligible and not isinstance(e, InputError):
                raise
            faults += e.faults if intelligible and isinstance(e, InputError) else []
        if record is not None:
            record.served = served
        if version is not None and is_version_ref(ref) and str(ref) != version:
            problem = f"expected {version!r}, which the address names; found {ref!r}"
            faults.append(Fault("version", problem, "leave it out, or send the request to another address"))
        total = len(faults)
        try:
            inputs = (served.schema if served else self._general).inputs(body)
        except InputError as e:
            faults += e.faults
            total += e.total
        if faults or served is None or inputs is None:
            raise InputError(faults, total)
        return served, inputs


def routes(predictor: Predictor) -> Blueprint:
    blueprint = Blueprint("predict", __name__)

    @blueprint.post("/predict")
    @blueprint.post("/models/<name>/predict")
    @blueprint.post("/models/<name>/versions/<version>/predict")
    def predict(name: str | None = None, version: str | None = None) -> Response:
        asked = _asked()
        done = predictor(name, version)
        served = done.served
        told = answer(served, done.predictions)
        if "warnings" in asked:
            told["warnings"] = [remark.as_dict() for remark in range_warnings(served.model, done.inputs)]
        if "receipt" in asked:
            told["receipt"] = receipt(served.name, served.number, served.digest, done.sent, done.predictions)
        return json_response(told)

    return blueprint


def answer(served: LoadedVersion, predictions: list[Any]) -> dict[str, Any]:
    return {"model": served.name, "version": served.number, "predictions": predictions}


_EXTRAS = ("warnings", "receipt")


def _asked() -> set[str]:
    """The extras that the address asks for. Others than there are would be missed only once they are needed.

    What stands behind an unknown name may be a secret, and is not repeated.
    """
    faults = []
    for name, values in request.args.lists():
        found = values[0]
        if name not in _EXTRAS:
            fix = did_you_mean(name, _EXTRAS) or f"the parameters are {' and '.join(_EXTRAS)}"
            location = name if len(name) <= 100 else name[:97] + "..."
            faults.append(Fault(location, "expected no such parameter in the address", fix))
        elif len(values) > 1:
            faults.append(Fault(name, f"expected once, found {len(values)} times", f"ask for it once: ?{name}=true"))
        elif found not in {"true", "false"}:
            faults.append(Fault(name, f"expected true or false, found {found[:100]!r}", f"ask for it: ?{name}=true"))
    if faults:
        raise InputError(faults)
    return {name for name, found in request.args.items() if found == "true"}
