"""The native protocol: `{"model"?, "version"?, "instances"}` in, `{"model", "version", "predictions"}` out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model_store.errors import Fault, InputError
from service.registry.errors import UnavailableError, UnknownModelError
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.validation.predict_request import EncodedRows, PredictSchema, is_version_ref


class PredictParser:
    """Validates the body of a predict request and encodes its rows."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._schema_without_model = PredictSchema()

    def parse(
        self, body: dict[str, Any], name: str | None, version: str | None, at_least: int = 0
    ) -> tuple[LoadedVersion, EncodedRows]:
        """Return the version that predicts and the encoded rows. Raises InputError with all errors of the body."""
        served, faults = self.find_version(body, name, version, at_least)
        return self.encode(body, served, faults)

    def find_version(
        self, body: dict[str, Any], name: str | None, version: str | None, at_least: int = 0
    ) -> tuple[LoadedVersion | None, list[Fault]]:
        """Find the version that the URL (`name`, `version`) and the body select, or None and why it is not clear which.

        `at_least`: the oldest version that the client accepts, unless it asks for one by number.
        Raises UnknownModelError or UnavailableError if the request is well-formed and no such version can predict.
        """
        model, ref = body.get("model"), body.get("version")
        well_formed = isinstance(model, str | None) and (ref is None or is_version_ref(ref))
        faults: list[Fault] = []
        served = None
        try:
            served = self._registry.find(
                name if name is not None else model if isinstance(model, str) else None,
                version if version is not None else ref if is_version_ref(ref) else None,
                at_least=at_least,
            )
        except (InputError, UnknownModelError, UnavailableError) as e:
            # The schema reports a malformed model or version in the body; a missing model name is reported here.
            if well_formed and not isinstance(e, InputError):
                raise
            faults += e.faults if well_formed and isinstance(e, InputError) else []
        if version is not None and is_version_ref(ref) and str(ref) != version:
            problem = f"expected {version!r}, as in the URL; found {ref!r}"
            faults.append(Fault("version", problem, "leave it out, or use the URL of the other version"))
        return served, faults

    def encode(
        self,
        body: dict[str, Any],
        served: LoadedVersion | None,
        faults: list[Fault],
        top_k: int | None = None,
        *,
        receipt: bool = False,
    ) -> tuple[LoadedVersion, EncodedRows]:
        """Encode the rows of the body for what `find_version` returned. Raises InputError with the errors of both,
        or RowLimitError.
        """
        total = len(faults)
        try:
            if served is None:
                encoded = self._schema_without_model.encode(body)
            else:
                rows = body.get("instances")
                if isinstance(rows, list):
                    served.row_limit.check_rows("instances", rows, top_k, receipt=receipt)
                if len(body) == 1 and isinstance(rows, list) and rows:  # else the schema finds what is wrong
                    warnings: list[Fault] = []
                    encoded = EncodedRows(served.model.encode(rows, warnings=warnings), warnings)
                else:
                    encoded = served.schema.encode(body)
        except InputError as e:
            faults += e.faults
            total += e.total
        if faults or served is None or encoded is None:
            raise InputError(faults, total)
        return served, encoded


def predict_response(
    served: LoadedVersion,
    predictions: Any,
    warnings: Sequence[Fault] = (),
    explanations: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    response = {"model": served.name, "version": served.number, "predictions": predictions}
    if explanations is not None:
        response["explanations"] = explanations
    return with_warnings(response, warnings) if warnings else response


def with_warnings(response: dict[str, Any], warnings: Sequence[Fault]) -> dict[str, Any]:
    """Return a JSON response that names the missing values that were filled in, if there are any."""
    return response | {"warnings": [warning.as_dict() for warning in warnings]} if warnings else response
