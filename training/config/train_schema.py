"""The schema of a job file's `[train]`: how the network learns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from model_store.errors import Fault, did_you_mean
from training.config.defaults import OPTIMIZER_KEYS, SCHEDULE_KEYS
from training.config.fields import (
    Base,
    Choice,
    Section,
    Setting,
    faulty,
    is_number,
    named,
    number,
    shown,
    whole,
    whole_number,
)
from training.config.settings import EarlyStoppingSection, ScheduleSection, TrainSection
from training.losses import LOSSES
from training.optim.lr_schedulers import SCHEDULES
from training.optim.optimizers import OPTIMIZERS


def _above_0() -> Setting:
    return number("a number above 0", lambda value: value > 0)


def _at_least_0() -> Setting:
    return number("a number of at least 0", lambda value: value >= 0)


def _below_1() -> Setting:
    return number("a number from 0 to below 1", lambda value: 0 <= value < 1)


def _share() -> Setting:
    return number("a number from 0 to 1", lambda value: 0 <= value <= 1)


def _part() -> Setting:
    return number("a number above 0, below 1", lambda value: 0 < value < 1)


def _misplaced(data: Mapping[str, Any], kind: str, chosen: str, keys: Mapping[str, Sequence[str]]) -> None:
    """Faults for keys of other optimizers or schedules than the one that was `chosen`."""
    wrong = {}
    for key in data:
        owners = [name for name, theirs in keys.items() if key in theirs]
        if owners and chosen not in owners:
            wrong[key] = [Fault("", f"belongs to {named(owners)}; found the {kind} '{chosen}'", "leave it out")]
    if wrong:
        raise ValidationError(wrong)


class EarlyStoppingSchema(Base):
    section = EarlyStoppingSection
    patience = whole_number(1, 2**53)
    min_delta = _at_least_0()


class ScheduleSchema(Base):
    section = ScheduleSection
    name = Choice(tuple(SCHEDULES), required=True)
    warm_up = _above_0()
    epochs = whole_number(1, 2**53)
    decay = _part()
    lowest = _share()
    rise = _part()
    first = number("a number above 0, at most 1", lambda value: 0 < value <= 1)
    last = _share()
    patience = whole_number(0, 2**53)
    threshold = _below_1()
    cooldown = whole_number(0, 2**53)

    @validates_schema
    def _own_keys(self, data: dict[str, Any], **_: Any) -> None:
        _misplaced(data, "schedule", data["name"], SCHEDULE_KEYS)


class Schedule(Section):
    """A table, or the name alone of a schedule that needs no more."""

    def _deserialize(self, value: Any, *arguments: Any, **options: Any) -> Any:
        return super()._deserialize({"name": value} if isinstance(value, str) else value, *arguments, **options)


class ClassWeights(fields.Field[Any]):
    """`"balanced"`, or a table of weights by label."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> str | dict[str, float]:
        if value == "balanced":
            return "balanced"
        if not isinstance(value, dict) or not value:
            fix = did_you_mean(value, ["balanced"]) if isinstance(value, str) else ""
            raise faulty(f"expected 'balanced' or a table such as {{ rare = 5 }}; found {shown(value)}", fix)
        wrong: dict[str, list[Fault]] = {
            label: [Fault("", f"expected a number above 0; found {shown(weight)}")]
            for label, weight in value.items()
            if not is_number(weight) or not 0 < weight < math.inf
        }
        if wrong:
            raise ValidationError(wrong)
        return value


class TrainSchema(Base):
    section = TrainSection
    loss = Choice(tuple(LOSSES))
    class_weights = ClassWeights()
    optimizer = Choice(tuple(OPTIMIZERS))
    learning_rate = _above_0()
    momentum = _below_1()
    nesterov = Setting("true or false", lambda value: isinstance(value, bool))
    beta1 = _below_1()
    beta2 = _below_1()
    smoothing = _below_1()
    epsilon = _above_0()
    weight_decay = _at_least_0()
    clip_norm = _above_0()
    clip_value = _above_0()
    schedule = Schedule(ScheduleSchema)
    epochs = whole_number(1, 2**53)
    batch_size = Setting("a whole number of at least 1, or 'all'", lambda size: size == "all" or whole(size, 1, 2**53))
    seed = whole_number(0, 2**63)
    threads = whole_number(1, 1024)
    early_stopping = Section(EarlyStoppingSchema)

    @validates_schema
    def _own_keys(self, data: dict[str, Any], **_: Any) -> None:
        _misplaced(data, "optimizer", data.get("optimizer", "sgd"), OPTIMIZER_KEYS)
        if data.get("nesterov") and data.get("momentum") == 0:
            raise faulty("expected a momentum above 0 to go with it; found 0", key="nesterov")
