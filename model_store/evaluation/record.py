"""The training record of a manifest: history, metrics and diagnostics, each part validated before it is shown.

Manifests come from other people and from other releases. A part that is missing or has another form becomes None, and
the report leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from model_store.artifact.conformal import METHODS
from model_store.evaluation.diagnostics_schema import (
    LOSS_METRICS,
    Calibration,
    Costs,
    Importance,
    LabelRoc,
    PrecisionRecall,
    Residuals,
    Roc,
    Slices,
    WeakSpots,
    WorstRows,
)
from model_store.evaluation.record_fields import (
    ByName,
    Count,
    Label,
    ListField,
    Number,
    PerClass,
    Section,
    Share,
    load_or_none,
)
from model_store.evaluation.search_record import Search

# Metrics by the last part of their names.
HIGHER_IS_BETTER = {
    *("accuracy", "precision", "recall", "f1", "r2", "roc_auc", "d2"),
    *("exact_match", "micro_f1", "macro_f1"),
}
LOWER_IS_BETTER = {"rmse", "mae", "log_loss", "error_rate", "calibration_error", "hamming_loss", *LOSS_METRICS}
_MAX_NOTE_LENGTH = 10_000  # characters


class _Epoch(Section):
    epoch = Count()
    loss = Number()
    validation_loss = Number(required=False, load_default=None, allow_none=True)


class _History(Section):
    history = ListField(fields.Nested(_Epoch), required=True)
    epochs = Count()
    best_epoch = Count()


class _ClassMetrics(Section):
    precision = Share()
    recall = Share()
    f1 = Share()
    support = Count()


class _Confusion(Section):
    true = Label()
    answered = Label()
    rows = Count()


class _Classification(Section):
    rows = Count(validate=validate.Range(1, 2**53))
    of = fields.String(required=True)
    weight = fields.String(load_default=None, allow_none=True)
    accuracy = Share()
    classes = ByName(_ClassMetrics)
    mistakes = fields.List(fields.Nested(_Confusion), load_default=list, validate=validate.Length(max=100))
    confusion = PerClass(PerClass(Count()), load_default=None)

    @validates_schema(skip_on_field_errors=True)
    def _confusion_is_square(self, data: dict[str, Any], **_: Any) -> None:
        if data["confusion"] and any(
            len(row) != len(data["classes"]) for row in [data["confusion"], *data["confusion"]]
        ):
            raise ValidationError("expected a row and a column for each class", "confusion")


class _LabelMetrics(_ClassMetrics):
    roc_auc = Share(allow_none=True)
    log_loss = Number()


class _LabelOverall(Section):
    exact_match = Share()
    hamming_loss = Share()
    micro_f1 = Share()
    macro_f1 = Share()
    log_loss = Number()


OVERALL_LABEL_METRICS = ("exact_match", "hamming_loss", "micro_f1", "macro_f1", "log_loss")  # of all labels together


class _MultiLabel(_LabelOverall):
    rows = Count(validate=validate.Range(1, 2**53))
    of = fields.String(required=True)
    weight = fields.String(load_default=None, allow_none=True)
    roc_auc = Share(allow_none=True)
    labels = ByName(_LabelMetrics)


class _LabelBaseline(_LabelOverall):
    answer = fields.List(fields.String(), required=True, validate=validate.Length(max=10_000))


def _optional_number() -> fields.Float:
    return Number(required=False, allow_none=True)


class _TargetMetrics(Section):
    rmse = Number(allow_none=True)
    mae = Number(allow_none=True)
    r2 = Number(allow_none=True)
    poisson_deviance = _optional_number()
    gamma_deviance = _optional_number()
    pinball_loss = _optional_number()
    d2 = _optional_number()
    coverage = Share(required=False, allow_none=True)


TARGET_METRICS = tuple(_TargetMetrics().fields)  # in the order of a comparison


def main_metric(target: Mapping[str, Any]) -> str:
    """Return which metric of a target says how good the model is: that of its loss, else the RMSE."""
    return next((name for name in LOSS_METRICS if target.get(name) is not None), "rmse")


class _Regression(Section):
    rows = Count(validate=validate.Range(1, 2**53))
    of = fields.String(required=True)
    weight = fields.String(load_default=None, allow_none=True)
    quantile = Share(required=False, load_default=None, allow_none=True)
    targets = ByName(_TargetMetrics)


class _ClassificationBaseline(Section):
    answer = Label()
    accuracy = Share()


class _RegressionBaseline(Section):
    targets = ByName(_TargetMetrics)


class _LinearClassifier(Section):
    accuracy = Share()
    log_loss = Number()


_OTHER_MODELS: dict[type[Section], tuple[type[Section], type[Section]]] = {  # the baseline and the linear model
    _Classification: (_ClassificationBaseline, _LinearClassifier),
    _MultiLabel: (_LabelBaseline, _LabelOverall),
    _Regression: (_RegressionBaseline, _RegressionBaseline),
}


class _LogLosses(Section):
    before = Number()
    after = Number()


class _Temperature(Section):
    """The number that the logits were divided by, and the log loss of rows that it was not fitted on."""

    value = Number(validate=validate.Range(1e-3, 1e3))
    rows = Count()
    log_loss = fields.Nested(_LogLosses, required=True)


class _Threshold(Section):
    """The decision threshold of two classes: by what it was chosen, with the score on so many rows."""

    value = Number(validate=validate.Range(0, 1))
    by = fields.String(required=True, validate=validate.Length(max=100))
    score = Number(allow_none=True)
    rows = Count()


class _CoveredPart(Section):
    rows = Count()
    covered = Share()
    size = Number()
    name = fields.String(load_default=None)
    low = Number(required=False, load_default=None)
    high = Number(required=False, load_default=None)

    @validates_schema(skip_on_field_errors=True)
    def _has_a_name(self, data: dict[str, Any], **_: Any) -> None:
        if data["name"] is None and None in (data["low"], data["high"]):
            raise ValidationError("expected a name, or low and high")


class _CoveredLevel(Section):
    level = Share()
    covered = Share()
    size = Number()


class _CoverageGroups(Section):
    level = Share()
    parts = ListField(fields.Nested(_CoveredPart), required=True)


class _Coverage(Section):
    """How often conformal intervals or sets hold the truth of the evaluation rows, by level and by group."""

    rows = Count(validate=validate.Range(1, 2**53))
    calibration_rows = Count()
    method = fields.String(required=True, validate=validate.OneOf(METHODS))
    levels = ListField(fields.Nested(_CoveredLevel), required=True)
    groups = fields.Nested(_CoverageGroups, load_default=None)


class _Notes(Section):
    notes = ListField(fields.String(validate=validate.Length(max=_MAX_NOTE_LENGTH)), required=True)


@dataclass(frozen=True)
class TrainingRecord:
    """The valid parts of a training record. Of `classification`, `multi_label` and `regression` at most one is set."""

    history: dict[str, Any] | None
    classification: dict[str, Any] | None
    multi_label: dict[str, Any] | None
    regression: dict[str, Any] | None
    baseline: dict[str, Any] | None
    linear: dict[str, Any] | None
    calibration: dict[str, Any] | None
    uncalibrated: dict[str, Any] | None
    temperature: dict[str, Any] | None
    threshold: dict[str, Any] | None
    coverage: dict[str, Any] | None
    roc: dict[str, Any] | None
    label_roc: dict[str, Any] | None
    precision_recall: dict[str, Any] | None
    costs: dict[str, Any] | None
    residuals: dict[str, Any] | None
    importance: dict[str, Any] | None
    worst_rows: list[dict[str, Any]]
    slices: dict[str, Any] | None
    weak_spots: dict[str, Any] | None
    search: dict[str, Any] | None
    notes: list[str]

    @classmethod
    def parse(cls, training: Mapping[str, Any]) -> TrainingRecord:
        metrics, diagnostics = training.get("metrics"), training.get("diagnostics")
        diagnostics = diagnostics if isinstance(diagnostics, dict) else {}
        found: dict[type[Section], dict[str, Any] | None] = dict.fromkeys((_Classification, _MultiLabel, _Regression))
        task: type[Section] = _Regression
        for one in found:
            if loaded := load_or_none(one, metrics):
                task, found[one] = one, loaded
                break
        baseline, linear = _OTHER_MODELS[task]
        return cls(
            load_or_none(_History, training),
            found[_Classification],
            found[_MultiLabel],
            found[_Regression],
            load_or_none(baseline, training.get("baseline")),
            load_or_none(linear, training.get("linear")),
            load_or_none(Calibration, diagnostics.get("calibration")),
            load_or_none(Calibration, diagnostics.get("uncalibrated")),
            load_or_none(_Temperature, training.get("temperature")),
            load_or_none(_Threshold, training.get("threshold")),
            load_or_none(_Coverage, training.get("coverage")),
            load_or_none(Roc, diagnostics.get("roc")),
            load_or_none(LabelRoc, diagnostics.get("label_roc")),
            load_or_none(PrecisionRecall, diagnostics.get("precision_recall")),
            load_or_none(Costs, diagnostics.get("costs")),
            load_or_none(Residuals, diagnostics.get("residuals")),
            load_or_none(Importance, diagnostics.get("importance")),
            (load_or_none(WorstRows, diagnostics) or {"worst_rows": []})["worst_rows"],
            load_or_none(Slices, diagnostics.get("slices")),
            load_or_none(WeakSpots, diagnostics.get("weak_spots")),
            load_or_none(Search, training.get("search")),
            (load_or_none(_Notes, training) or {"notes": []})["notes"],
        )


class _Statistics(Section):
    """Statistics of a column of numbers, categories or arrays."""

    min = Number(required=False, load_default=None, allow_none=True)
    max = Number(required=False, load_default=None, allow_none=True)
    mean = Number(required=False, load_default=None, allow_none=True)
    std = Number(required=False, load_default=None, allow_none=True)
    deciles = fields.List(Number(), load_default=None, allow_none=True, validate=validate.Length(equal=11))
    frequencies = fields.Dict(keys=fields.String(), values=Count(), load_default=dict)

    @validates_schema(skip_on_field_errors=True)
    def _is_ascending(self, data: dict[str, Any], **_: Any) -> None:
        values = [value for value in (data["min"], *(data["deciles"] or ()), data["max"]) if value is not None]
        if values != sorted(values):
            raise ValidationError("expected min, deciles and max to ascend")


def validate_statistics(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated statistics of a column. ValidationError if they are invalid."""
    return dict(_Statistics().load(statistics))
