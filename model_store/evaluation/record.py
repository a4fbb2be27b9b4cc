"""The training record of a manifest: history, metrics and diagnostics, each part validated before it is shown.

Manifests come from other people and from other releases. A part that is missing or has another form becomes None, and
the report leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

# Metrics by the last part of their names.
HIGHER_IS_BETTER = {"accuracy", "precision", "recall", "f1", "r2", "roc_auc"}
LOWER_IS_BETTER = {"rmse", "mae", "log_loss", "calibration_error"}
_MAX_ITEMS = 10_000  # of any list; checked first, because validating millions of items takes seconds
_MAX_NOTE_LENGTH = 10_000  # characters
_FINITE_RANGE = validate.Range(-1e100, 1e100)

_Number = partial(fields.Float, required=True, validate=_FINITE_RANGE)
_Count = partial(fields.Integer, required=True, strict=True, validate=validate.Range(0, 2**53))
_Share = partial(fields.Float, required=True, validate=validate.Range(0, 1))
_Label = partial(fields.Raw, required=True, validate=lambda value: isinstance(value, (str, int)))


class _List(fields.List[Any]):
    max_items = _MAX_ITEMS

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= self.max_items:
            raise ValidationError(f"expected a list of 1 to {self.max_items} items")
        return super()._deserialize(value, attr, data, **kwargs)


class _PerClass(_List):
    """One item for each of at most 100 classes: training keeps no larger confusion matrix."""

    max_items = 100


class _ByName(fields.Dict):
    """An object whose values all have the same schema."""

    def __init__(self, part: type[Schema]) -> None:
        super().__init__(keys=fields.String(), values=fields.Nested(part), required=True)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict) or not 1 <= len(value) <= _MAX_ITEMS:
            raise ValidationError(f"expected an object of 1 to {_MAX_ITEMS} parts")
        return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]


class _Section(Schema):
    class Meta:
        unknown = EXCLUDE


class _Epoch(_Section):
    epoch = _Count()
    loss = _Number()
    validation_loss = _Number(required=False, load_default=None, allow_none=True)


class _History(_Section):
    history = _List(fields.Nested(_Epoch), required=True)
    epochs = _Count()
    best_epoch = _Count()


class _ClassMetrics(_Section):
    precision = _Share()
    recall = _Share()
    f1 = _Share()
    support = _Count()


class _Confusion(_Section):
    true = _Label()
    answered = _Label()
    rows = _Count()


class _Classification(_Section):
    rows = _Count(validate=validate.Range(1, 2**53))
    of = fields.String(required=True)
    accuracy = _Share()
    classes = _ByName(_ClassMetrics)
    mistakes = fields.List(fields.Nested(_Confusion), load_default=list, validate=validate.Length(max=100))
    confusion = _PerClass(_PerClass(_Count()), load_default=None)

    @validates_schema(skip_on_field_errors=True)
    def _confusion_is_square(self, data: dict[str, Any], **_: Any) -> None:
        if data["confusion"] and any(
            len(row) != len(data["classes"]) for row in [data["confusion"], *data["confusion"]]
        ):
            raise ValidationError("expected a row and a column for each class", "confusion")


class _TargetMetrics(_Section):
    rmse = _Number(allow_none=True)
    mae = _Number(allow_none=True)
    r2 = _Number(allow_none=True)


TARGET_METRICS = tuple(_TargetMetrics().fields)  # in the order of a comparison


class _Regression(_Section):
    rows = _Count(validate=validate.Range(1, 2**53))
    of = fields.String(required=True)
    targets = _ByName(_TargetMetrics)


class _ClassificationBaseline(_Section):
    answer = _Label()
    accuracy = _Share()


class _RegressionBaseline(_Section):
    targets = _ByName(_TargetMetrics)


class _CalibrationBin(_Section):
    low = _Share()
    high = _Share()
    rows = _Count(validate=validate.Range(1, 2**53))
    said = _Share()
    found = _Share()


class _Calibration(_Section):
    of = fields.String(required=True, allow_none=True)
    rows = _Count()
    expected_error = _Share()
    log_loss = _Number()
    bins = _List(fields.Nested(_CalibrationBin), required=True)


class _Roc(_Section):
    of = fields.String(required=True)
    area = _Share()
    points = _List(fields.Tuple((_Share(), _Share())), required=True)


class _TargetResiduals(_Section):
    rows = _Count()
    bias = _Number()
    median = _Number()
    p90 = _Number()
    points = _List(fields.Tuple((_Number(), _Number())), required=True)
    step = _Number(required=False, load_default=None, allow_none=True)
    edges = _List(_Number(), required=True)
    counts = _List(_Count(), required=True)
    outside = _Count()

    @validates_schema(skip_on_field_errors=True)
    def _edges_ascend(self, data: dict[str, Any], **_: Any) -> None:
        edges = data["edges"]
        if len(edges) != len(data["counts"]) + 1 or any(high <= low for low, high in pairwise(edges)):
            raise ValidationError("expected ascending edges, one more than counts", "edges")


class _Residuals(_Section):
    left_out = _Count()
    targets = _ByName(_TargetResiduals)


class _ImportancePart(_Section):
    name = fields.String(required=True)
    cost = _Number(allow_none=True)
    deviation = _Number(allow_none=True)


class _Importance(_Section):
    measure = fields.String(required=True, validate=validate.OneOf(["accuracy", "log_loss", "rmse"]))
    score = _Number(allow_none=True)
    rows = _Count()
    repeats = _Count()
    left_out = _Count(required=False, load_default=0)
    grid = fields.Tuple((_Count(), _Count()), load_default=None)
    patch = fields.Tuple((_Count(), _Count()), load_default=None)
    parts = _List(fields.Nested(_ImportancePart), required=True)

    @validates_schema(skip_on_field_errors=True)
    def _grid_has_all_parts(self, data: dict[str, Any], **_: Any) -> None:
        grid = data["grid"]
        if grid and (grid[0] * grid[1] != len(data["parts"]) or not data["patch"]):
            raise ValidationError("expected a part for each patch", "grid")


class _Notes(_Section):
    notes = _List(fields.String(validate=validate.Length(max=_MAX_NOTE_LENGTH)), required=True)


@dataclass(frozen=True)
class TrainingRecord:
    """The valid parts of a training record. Of `classification` and `regression`, the metrics, at most one is set."""

    history: dict[str, Any] | None
    classification: dict[str, Any] | None
    regression: dict[str, Any] | None
    baseline: dict[str, Any] | None
    calibration: dict[str, Any] | None
    roc: dict[str, Any] | None
    residuals: dict[str, Any] | None
    importance: dict[str, Any] | None
    notes: list[str]

    @classmethod
    def parse(cls, training: Mapping[str, Any]) -> TrainingRecord:
        metrics, diagnostics = training.get("metrics"), training.get("diagnostics")
        diagnostics = diagnostics if isinstance(diagnostics, dict) else {}
        classification = _load_or_none(_Classification, metrics)
        return cls(
            _load_or_none(_History, training),
            classification,
            None if classification else _load_or_none(_Regression, metrics),
            _load_or_none(_ClassificationBaseline if classification else _RegressionBaseline, training.get("baseline")),
            _load_or_none(_Calibration, diagnostics.get("calibration")),
            _load_or_none(_Roc, diagnostics.get("roc")),
            _load_or_none(_Residuals, diagnostics.get("residuals")),
            _load_or_none(_Importance, diagnostics.get("importance")),
            (_load_or_none(_Notes, training) or {"notes": []})["notes"],
        )


def _load_or_none(schema: type[Schema], value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    try:
        return dict(schema().load(value))
    except (ValidationError, OverflowError):  # an integer that does not fit into float64
        return None


class _Statistics(_Section):
    """Statistics of a column of numbers, categories or arrays."""

    min = _Number(required=False, load_default=None, allow_none=True)
    max = _Number(required=False, load_default=None, allow_none=True)
    mean = _Number(required=False, load_default=None, allow_none=True)
    std = _Number(required=False, load_default=None, allow_none=True)
    deciles = fields.List(_Number(), load_default=None, allow_none=True, validate=validate.Length(equal=11))
    frequencies = fields.Dict(keys=fields.String(), values=_Count(), load_default=dict)

    @validates_schema(skip_on_field_errors=True)
    def _is_ascending(self, data: dict[str, Any], **_: Any) -> None:
        values = [value for value in (data["min"], *(data["deciles"] or ()), data["max"]) if value is not None]
        if values != sorted(values):
            raise ValidationError("expected min, deciles and max to ascend")


def validate_statistics(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated statistics of a column. ValidationError if they are invalid."""
    return dict(_Statistics().load(statistics))
