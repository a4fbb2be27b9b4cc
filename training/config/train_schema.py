"""The schema of a job file's `[train]` section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validates_schema

from model_store.errors import Fault, did_you_mean
from model_store.nn.average import MAX_MEMBERS
from model_store.utils.values import describe_value, is_finite_number
from training.config.defaults import METRIC_DIRECTIONS, OPTIMIZER_KEYS, SCHEDULE_KEYS
from training.config.fields import (
    CheckedField,
    ChoiceField,
    SectionField,
    SectionSchema,
    integer_field,
    is_integer_between,
    number_field,
    quoted,
    validation_error,
)
from training.config.settings import AugmentSection, EarlyStoppingSection, ScheduleSection, TrainSection
from training.losses import LOSSES
from training.optim.lr_schedulers import SCHEDULES
from training.optim.optimizers import OPTIMIZERS
from training.optim.parameter_groups import PARAMETER_GROUPS


def _above_0() -> CheckedField:
    return number_field("a number above 0", lambda value: value > 0)


def _at_least_0() -> CheckedField:
    return number_field("a number of at least 0", lambda value: value >= 0)


def _from_0_to_below_1() -> CheckedField:
    return number_field("a number from 0 to below 1", lambda value: 0 <= value < 1)


def _from_0_to_1() -> CheckedField:
    return number_field("a number from 0 to 1", lambda value: 0 <= value <= 1)


def _between_0_and_1() -> CheckedField:
    return number_field("a number above 0, below 1", lambda value: 0 < value < 1)


def _reject_foreign_keys(data: Mapping[str, Any], kind: str, chosen: str, keys: Mapping[str, Sequence[str]]) -> None:
    """Raise ValidationError for keys that belong to other optimizers or schedules than the `chosen` one."""
    faults = {}
    for key in data:
        owners = [name for name, own_keys in keys.items() if key in own_keys]
        if owners and chosen not in owners:
            faults[key] = [Fault("", f"only for {quoted(owners)}, found the {kind} '{chosen}'", "remove it")]
    if faults:
        raise ValidationError(faults)


class EarlyStoppingSchema(SectionSchema):
    settings_class = EarlyStoppingSection
    patience = integer_field(1, 2**53)
    min_delta = _at_least_0()
    metric = ChoiceField(("loss", *METRIC_DIRECTIONS))


class AugmentSchema(SectionSchema):
    settings_class = AugmentSection
    flip = ChoiceField(("horizontal", "vertical", "both"))
    shift = number_field("a share of the sides, from 0 to 0.5", lambda value: 0 <= value <= 0.5)
    rotate = number_field("degrees from 0 to 180", lambda value: 0 <= value <= 180)


class ScheduleSchema(SectionSchema):
    settings_class = ScheduleSection
    renamed_keys: ClassVar[Mapping[str, str]] = {
        "rest": "cooldown",
        "lowest": "min_factor",
        "rise": "rise_fraction",
        "first": "initial_factor",
        "last": "final_factor",
    }
    name = ChoiceField(tuple(SCHEDULES), required=True)
    warm_up = _above_0()
    epochs = integer_field(1, 2**53)
    decay = _between_0_and_1()
    min_factor = _from_0_to_1()
    rise_fraction = _between_0_and_1()
    initial_factor = number_field("a number above 0, at most 1", lambda value: 0 < value <= 1)
    final_factor = _from_0_to_1()
    patience = integer_field(0, 2**53)
    threshold = _from_0_to_below_1()
    cooldown = integer_field(0, 2**53)

    @validates_schema
    def _check_keys(self, data: dict[str, Any], **_: Any) -> None:
        _reject_foreign_keys(data, "schedule", data["name"], SCHEDULE_KEYS)


class ScheduleField(SectionField):
    """A table, or only the name of a schedule without settings."""

    def _deserialize(self, value: Any, *arguments: Any, **options: Any) -> Any:
        return super()._deserialize({"name": value} if isinstance(value, str) else value, *arguments, **options)


class FactorsField(fields.Field[dict[str, float]]):
    """A table of factors by parameter group."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> dict[str, float]:
        if not isinstance(value, dict) or not value:
            raise validation_error(f"expected a table such as {{ bias = 0.1 }}, found {describe_value(value)}")
        faults: dict[str, list[Fault]] = {}
        for group, factor in value.items():
            if group not in PARAMETER_GROUPS:
                fix = did_you_mean(group, PARAMETER_GROUPS) or f"the groups are {', '.join(PARAMETER_GROUPS)}"
                faults[group] = [Fault("", "unknown parameter group", fix)]
            elif not is_finite_number(factor) or factor < 0:
                faults[group] = [Fault("", f"expected a number of at least 0, found {describe_value(factor)}")]
        if faults:
            raise ValidationError(faults)
        return value


class ClassWeightsField(fields.Field[Any]):
    """`"balanced"`, or a table of weights by label."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> str | dict[str, float]:
        if value == "balanced":
            return "balanced"
        if not isinstance(value, dict) or not value:
            fix = did_you_mean(value, ["balanced"]) if isinstance(value, str) else ""
            problem = f"expected 'balanced' or a table such as {{ rare = 5 }}, found {describe_value(value)}"
            raise validation_error(problem, fix)
        faults: dict[str, list[Fault]] = {
            label: [Fault("", f"expected a number above 0, found {describe_value(weight)}")]
            for label, weight in value.items()
            if not is_finite_number(weight) or weight <= 0
        }
        if faults:
            raise ValidationError(faults)
        return value


class TrainSchema(SectionSchema):
    settings_class = TrainSection
    loss = ChoiceField(tuple(LOSSES))
    quantile = _between_0_and_1()
    label_smoothing = _from_0_to_below_1()
    class_weights = ClassWeightsField()
    optimizer = ChoiceField(tuple(OPTIMIZERS))
    learning_rate = _above_0()
    momentum = _from_0_to_below_1()
    nesterov = CheckedField("true or false", lambda value: isinstance(value, bool))
    beta1 = _from_0_to_below_1()
    beta2 = _from_0_to_below_1()
    smoothing = _from_0_to_below_1()
    epsilon = _above_0()
    weight_decay = _at_least_0()
    rate_factors = FactorsField()
    decay_factors = FactorsField()
    clip_norm = _above_0()
    clip_value = _above_0()
    schedule = ScheduleField(ScheduleSchema)
    regularization_schedule = ScheduleField(ScheduleSchema)
    ensemble = integer_field(2, MAX_MEMBERS)
    epochs = integer_field(1, 2**53)
    batch_size = CheckedField(
        "an integer of at least 1, or 'all'", lambda size: size == "all" or is_integer_between(size, 1, 2**53)
    )
    seed = integer_field(0, 2**63)
    threads = integer_field(1, 1024)
    reduce = ChoiceField(("exact", "fast"))
    early_stopping = SectionField(EarlyStoppingSchema)
    augment = SectionField(AugmentSchema)

    @validates_schema
    def _check_keys(self, data: dict[str, Any], **_: Any) -> None:
        _reject_foreign_keys(data, "optimizer", data.get("optimizer", "sgd"), OPTIMIZER_KEYS)
        if "quantile" in data and data.get("loss") != "pinball":
            raise validation_error(
                "only for the loss 'pinball'", "remove it, or write loss = 'pinball'", key="quantile"
            )
        if data.get("nesterov") and data.get("momentum") == 0:
            raise validation_error("expected a momentum above 0 with it, found 0", key="nesterov")
        regularization = data.get("regularization_schedule")
        if regularization is not None and regularization.name == "plateau":
            problem = "'plateau' is only for the learning rate"
            raise validation_error(problem, "use 'flat_cos', for example", key="regularization_schedule")
