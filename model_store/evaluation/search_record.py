"""The record of a search in a manifest: its parameters, and the trials that a report draws."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from model_store.evaluation.record_fields import Count, ListField, Number, Section, Share

MAX_SEARCH_TRIALS = 300  # of a record: all of a usual search; of a larger one the best, and an even sample
MAX_SEARCH_PARAMETERS = 50
MAX_SEARCH_OPTIONS = 100  # of a parameter
MAX_OPTION_LENGTH = 100  # characters
TRIAL_STATES = ("complete", "pruned", "failed")


class _Parameter(Section):
    """A parameter: a range with `low` and `high`, or `options`, of which trials record the index."""

    name = fields.String(required=True, validate=validate.Length(1, 500))
    low = Number(required=False, load_default=None, allow_none=True)
    high = Number(required=False, load_default=None, allow_none=True)
    log = fields.Boolean(load_default=False)
    options = fields.List(fields.String(), load_default=None, validate=validate.Length(2, MAX_SEARCH_OPTIONS))
    importance = Share(required=False, load_default=None, allow_none=True)

    @validates_schema(skip_on_field_errors=True)
    def _is_range_or_choice(self, data: dict[str, Any], **_: Any) -> None:
        if data["options"] is not None:
            return
        if data["low"] is None or data["high"] is None or not data["low"] < data["high"]:
            raise ValidationError("expected options, or a low below a high")
        if data["log"] and data["low"] <= 0:
            raise ValidationError("expected a low above 0")


class _Parameters(ListField):
    max_items = MAX_SEARCH_PARAMETERS


class _Trial(Section):
    number = Count()
    state = fields.String(required=True, validate=validate.OneOf(TRIAL_STATES))
    value = Number(required=False, load_default=None, allow_none=True)
    values = fields.List(Number(), required=True, validate=validate.Length(max=MAX_SEARCH_PARAMETERS))


class _Trials(ListField):
    max_items = MAX_SEARCH_TRIALS


class Search(Section):
    """The search that chose a model's settings. Each trial has a value for each parameter, in their order."""

    metric = fields.String(required=True, validate=validate.Length(1, 100))
    higher_is_better = fields.Boolean(required=True)
    pruning = fields.String(required=True, validate=validate.Length(1, 100))
    complete = Count()
    pruned = Count()
    failed = Count()
    best = Count()
    parameters = _Parameters(fields.Nested(_Parameter), required=True)
    trials = _Trials(fields.Nested(_Trial), required=True)

    @validates_schema(skip_on_field_errors=True)
    def _fits(self, data: dict[str, Any], **_: Any) -> None:
        parameters = data["parameters"]
        if not any(trial["number"] == data["best"] and trial["value"] is not None for trial in data["trials"]):
            raise ValidationError("expected the best trial among the trials, with a value", "best")
        for trial in data["trials"]:
            if len(trial["values"]) != len(parameters):
                raise ValidationError("expected a value for each parameter", "trials")
            for parameter, value in zip(parameters, trial["values"], strict=True):
                if parameter["options"] is not None and value not in range(len(parameter["options"])):
                    raise ValidationError("expected the index of an option", "trials")
                if parameter["options"] is None and not parameter["low"] <= value <= parameter["high"]:
                    raise ValidationError("expected a value in the range of its parameter", "trials")
