"""The schemas of a model's diagnostics; training/evaluation/diagnostics.py describes them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from model_store.evaluation.record_fields import FINITE_RANGE, ByName, Count, Label, ListField, Number, Section, Share

LOSS_METRICS = ("poisson_deviance", "gamma_deviance", "pinball_loss")  # of a regression that is trained with this loss
IMPORTANCE_MEASURES = ("log_loss", "squared_error", *LOSS_METRICS, "accuracy", "rmse")
SLICE_MEASURES = ("error_rate", "rmse", "relative_rmse", *LOSS_METRICS)
SPOT_MEASURES = ("error_rate", "mae", "relative_error", *LOSS_METRICS)

MAX_SLICE_CANDIDATES = 50  # columns, the most important ones, in which training looks for slices


class _CalibrationBin(Section):
    low = Share()
    high = Share()
    rows = Count(validate=validate.Range(1, 2**53))
    said = Share()
    found = Share()


class Calibration(Section):
    of = fields.String(required=True, allow_none=True)
    rows = Count()
    expected_error = Share()
    log_loss = Number()
    bins = ListField(fields.Nested(_CalibrationBin), required=True)


class Roc(Section):
    of = fields.String(required=True)
    area = Share()
    points = ListField(fields.Tuple((Share(), Share())), required=True)


class LabelRoc(Section):
    left_out = Count()
    curves = ListField(fields.Nested(Roc), required=True)


class PrecisionRecall(Section):
    of = fields.String(required=True)
    average = Share()
    points = ListField(fields.Tuple((Share(), Share())), required=True)


def _amount() -> fields.Float:
    """Return a field for a number of rows, a sum of weights if they have any."""
    return Number(validate=validate.Range(0, 2**53))


class _CostOption(Section):
    cost_ratio = Number(validate=validate.Range(1e-6, 1e6))
    threshold = Share()
    false_positives = _amount()
    false_negatives = _amount()


class Costs(Section):
    of = fields.String(required=True)
    rows = Count(validate=validate.Range(1, 2**53))
    positives = _amount()
    options = ListField(fields.Nested(_CostOption), required=True)


class _TargetResiduals(Section):
    rows = Count()
    bias = Number()
    median = Number()
    p90 = Number()
    points = ListField(fields.Tuple((Number(), Number())), required=True)
    step = Number(required=False, load_default=None, allow_none=True)
    edges = ListField(Number(), required=True)
    counts = ListField(Count(), required=True)
    outside = Count()

    @validates_schema(skip_on_field_errors=True)
    def _edges_ascend(self, data: dict[str, Any], **_: Any) -> None:
        edges = data["edges"]
        if len(edges) != len(data["counts"]) + 1 or any(high <= low for low, high in pairwise(edges)):
            raise ValidationError("expected ascending edges, one more than counts", "edges")


class Residuals(Section):
    left_out = Count()
    targets = ByName(_TargetResiduals)


class _ImportancePart(Section):
    """A cost with its 95 % interval; models of older releases have its standard deviation over the shuffles."""

    name = fields.String(required=True)
    cost = Number(allow_none=True)
    deviation = Number(required=False, load_default=None, allow_none=True)
    low = Number(required=False, load_default=None, allow_none=True)
    high = Number(required=False, load_default=None, allow_none=True)

    @post_load
    def _interval(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        deviation = data.pop("deviation")
        if data["cost"] is not None and None in (data["low"], data["high"]):
            data["low"], data["high"] = data["cost"] - (deviation or 0.0), data["cost"] + (deviation or 0.0)
        return data


class Importance(Section):
    """Models of older releases have the loss of accuracy or the increase of the RMSE."""

    measure = fields.String(required=True, validate=validate.OneOf(IMPORTANCE_MEASURES))
    score = Number(allow_none=True)
    rows = Count()
    repeats = Count()
    left_out = Count(required=False, load_default=0)
    grid = fields.Tuple((Count(), Count()), load_default=None)
    patch = fields.Tuple((Count(), Count()), load_default=None)
    parts = ListField(fields.Nested(_ImportancePart), required=True)

    @validates_schema(skip_on_field_errors=True)
    def _grid_has_all_parts(self, data: dict[str, Any], **_: Any) -> None:
        grid = data["grid"]
        if grid and (grid[0] * grid[1] != len(data["parts"]) or not data["patch"]):
            raise ValidationError("expected a part for each patch", "grid")


class _WorstRow(Section):
    """A wrong row of a classifier, or the error of a row of a regression."""

    row = fields.String(required=True)
    true = Label(required=False, load_default=None)
    predicted = Label(required=False, load_default=None)
    probability = Share(required=False, load_default=None)
    target = fields.String(load_default=None)
    error = Number(required=False, load_default=None, allow_none=True)


class WorstRows(Section):
    worst_rows = ListField(fields.Nested(_WorstRow), required=True)


class _Interval(Section):
    value = Number()
    low = Number()
    high = Number()


def _check_slice_value(value: Any) -> None:
    if not isinstance(value, str):
        FINITE_RANGE(Number().deserialize(value))


class _SliceWords(Section):
    """Rows with one value, or a range of numbers, or so many other categories, or none."""

    value = fields.Raw(load_default=None, validate=_check_slice_value)
    low = Number(required=False, load_default=None)
    high = Number(required=False, load_default=None)
    others = Count(required=False, load_default=None)
    missing = fields.Boolean(load_default=False)

    @validates_schema(skip_on_field_errors=True)
    def _has_a_kind(self, data: dict[str, Any], **_: Any) -> None:
        is_range = data["low"] is not None and data["high"] is not None
        if not (is_range or data["missing"] or data["others"] or data["value"] is not None):
            raise ValidationError("expected a value, low and high, others or missing")


class _Slice(_SliceWords):
    rows = Count()
    error = fields.Nested(_Interval, required=True)
    bias = Number(required=False, load_default=None, allow_none=True)


class _SlicedColumn(Section):
    column = fields.String(required=True)
    slices = ListField(fields.Nested(_Slice), required=True)


class Slices(Section):
    measure = fields.String(required=True, validate=validate.OneOf(SLICE_MEASURES))
    error = Number()
    columns = ListField(fields.Nested(_SlicedColumn), required=True)


class _SpotPart(_SliceWords):
    column = fields.String(required=True)


class _WeakSpot(Section):
    where = ListField(fields.Nested(_SpotPart), required=True)
    rows = Count()
    error = Number()
    elsewhere = Number()
    p = Share()


class WeakSpots(Section):
    measure = fields.String(required=True, validate=validate.OneOf(SPOT_MEASURES))
    test = fields.String(required=True, validate=validate.OneOf(("fisher_exact", "rank_sum")))
    rows = Count()
    tried = Count()
    spots = fields.List(fields.Nested(_WeakSpot), required=True, validate=validate.Length(max=100))


class _MeasuredSlice(_SliceWords):
    rows = Count()


class _MeasuredColumn(Section):
    column = fields.String(required=True)
    slices = ListField(fields.Nested(_MeasuredSlice), required=True)
    metrics = fields.Dict(
        keys=fields.String(),
        values=fields.List(Number(allow_none=True), validate=validate.Length(max=100)),
        required=True,
        validate=validate.Length(max=1000),
    )

    @validates_schema(skip_on_field_errors=True)
    def _has_a_value_for_each_slice(self, data: dict[str, Any], **_: Any) -> None:
        if any(len(values) != len(data["slices"]) for values in data["metrics"].values()):
            raise ValidationError("expected a value for each slice", "metrics")


class SliceMetrics(Section):
    slice_metrics = ListField(fields.Nested(_MeasuredColumn), required=True)
