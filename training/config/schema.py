"""The job file's schema: which sections and keys there are, what each may hold, and a fault for everything else.

A fault says where it is (`train.learning_rate`), what was expected, what was found and how to mend it. All faults of a
job are reported at once. docs/jobs.md explains the keys to the user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from model_store.errors import Fault, did_you_mean
from model_store.nn import INITIALIZERS
from training.config.fields import (
    SECTIONS,
    Base,
    Choice,
    Section,
    Setting,
    faulty,
    number,
    one_of,
    shown,
    text,
)
from training.config.layer_spec import OUTPUTS, Layers
from training.config.settings import DataSection, ModelSection, NetworkSection, PublishSection, Settings, SplitSection
from training.config.train_schema import TrainSchema

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


# Fields --------------------------------------------------------------------------------------------------------------


class Kinds(fields.Field[dict[str, str]]):
    """Kinds of columns by name: a table."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> dict[str, str]:
        kinds = ("number", "category")
        if not isinstance(value, dict):
            raise faulty(f"expected a table such as {{ year = 'category' }}; found {shown(value)}")
        wrong = {
            column: [Fault("", f"expected {one_of(kinds)}; found {shown(kind)}", did_you_mean(kind, kinds))]
            for column, kind in value.items()
            if kind not in kinds
        }
        if wrong:
            raise ValidationError(wrong)
        return value


def _file() -> Setting:
    return Setting("the path of a file, relative to the job file", lambda value: isinstance(value, str) and value != "")


def _column_names(expected: str, single: bool) -> Setting:
    def accept(value: Any) -> bool:
        if isinstance(value, str):
            return single and value != ""
        return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)

    return Setting(expected, accept)


TABLES = (".csv", ".parquet")


# Schemas -------------------------------------------------------------------------------------------------------------


class ModelSchema(Base):
    section = ModelSection
    expected = "a name of letters, digits, '.', '_' and '-' that starts with a letter or digit, at most 100 characters"
    name = Setting(expected, lambda value: isinstance(value, str) and bool(NAME.fullmatch(value)), required=True)
    description = text()


class DataSchema(Base):
    section = DataSection
    path = _file()
    images = _file()
    labels = _file()
    target = _column_names("a column's name, or a list of them", single=True)
    task = Choice(("classification", "regression"))
    columns = _column_names("a list of columns' names", single=False)
    kinds = Kinds()
    missing = Choice(("impute", "refuse"))
    unknown = Choice(("refuse", "bucket"))  # type: ignore[assignment]  # fields are no attributes once collected
    scale = Choice(("standard", "none"))
    stream = Setting("true or false", lambda value: isinstance(value, bool))

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _files(self, data: dict[str, Any], original_data: Any, **_: Any) -> None:
        if not isinstance(original_data, Mapping):
            return
        data = {**original_data, **data}  # a wrong value has its own fault, and is there all the same
        path, images, labels = data.get("path"), data.get("images"), data.get("labels")
        if path is None:
            if images is None and labels is None:
                raise faulty("missing; expected the path of a .csv, .parquet or .npz file", key="path")
            for key, other in (("images", "labels"), ("labels", "images")):
                if data.get(key) is None:
                    raise faulty(f"missing; expected the IDX file that goes with '{other}'", key=key)
        elif images is not None or labels is not None:
            raise faulty("expected either path, or images and labels; found both", "leave one out", key="path")
        elif not isinstance(path, str):
            return
        elif not path.lower().endswith((*TABLES, ".npz")):
            fix = "save a table as CSV or Parquet; for IDX files write images = ... and labels = ..."
            raise faulty(f"expected a .csv, .parquet or .npz file; found {shown(path)}", fix, key="path")
        elif path.lower().endswith(TABLES) and "target" not in data:
            raise faulty("missing; expected the column to predict", key="target")
        elif path.lower().endswith(".parquet") and data.get("stream") is False:
            raise faulty("Parquet is always streamed", "leave it out", key="stream")

    @validates_schema(skip_on_field_errors=False)
    def _tables_only(self, data: dict[str, Any], **_: Any) -> None:
        if not str(data.get("path", ".csv")).lower().endswith(TABLES) or "images" in data:
            fault = Fault("", "only tables have named columns", "leave it out")
            if wrong := {key: [fault] for key in ("columns", "kinds") if key in data}:
                raise ValidationError(wrong)

    @validates_schema(skip_on_field_errors=False)
    def _columns(self, data: dict[str, Any], **_: Any) -> None:
        target = data.get("target", [])
        targets = target if isinstance(target, list) else [target]
        for key, names in (("target", targets), ("columns", data.get("columns", []))):
            if double := next((name for i, name in enumerate(names) if name in names[:i]), None):
                raise faulty(f"'{double}' is there twice", "name each column once", key=key)
        if both := next((name for name in data.get("columns", []) if name in targets), None):
            raise faulty(f"'{both}' is the target", "leave it out of the columns", key="columns")
        if len(targets) > 1 and data.get("task") == "classification":
            raise faulty(f"expected one column for a classification; found {len(targets)}", key="target")


class SplitSchema(Base):
    section = SplitSection
    test = number("a share of the rows from 0 to below 1", lambda share: 0 <= share < 1)
    validation = number("a share of the rows from 0 to below 1", lambda share: 0 <= share < 1)

    @validates_schema
    def _rest(self, data: dict[str, Any], **_: Any) -> None:
        split = SplitSection(**data)
        if split.test + split.validation >= 1:
            problem = f"expected test + validation below 1; found {split.test} + {split.validation}"
            raise faulty(problem, "the rest is what the network learns from", key="validation")


class NetworkSchema(Base):
    section = NetworkSection
    layers = Layers()
    output = Choice(tuple(OUTPUTS))
    initializer = Choice(tuple(INITIALIZERS))
    dtype = Choice(("float32", "float64"))


class PublishSchema(Base):
    section = PublishSection
    alias = Setting(
        "a name of letters, digits, '.', '_' and '-' that is neither a number nor 'latest'",
        lambda value: (
            isinstance(value, str) and bool(NAME.fullmatch(value)) and not value.isdigit() and value != "latest"
        ),
    )


class JobSchema(Base):
    section = Settings
    model = Section(ModelSchema, required=True)
    data = Section(DataSchema, required=True)
    split = Section(SplitSchema)
    network = Section(NetworkSchema)
    train = Section(TrainSchema)
    publish = Section(PublishSchema)


SECTIONS.update(
    model=ModelSchema,
    data=DataSchema,
    split=SplitSchema,
    network=NetworkSchema,
    train=TrainSchema,
    publish=PublishSchema,
)


def validate(job: Mapping[str, Any]) -> Settings | list[Fault]:
    """The settings of a job, or all its faults, in the order of the file where it has the key."""
    try:
        settings: Settings = JobSchema().load(job)
    except ValidationError as error:
        order = list(_places(job))
        faults = list(_faults(error.messages, ""))
        return sorted(faults, key=lambda fault: order.index(fault.location) if fault.location in order else len(order))
    return settings


def _faults(messages: Any, location: str) -> list[Fault]:
    """marshmallow's nested messages as a flat list."""
    if isinstance(messages, dict):
        return [
            fault
            for key, inner in messages.items()
            for fault in _faults(inner, location if key == "_schema" else f"{location}.{key}".removeprefix("."))
        ]
    return [
        replace(found, location=location) if isinstance(found, Fault) else Fault(location, str(found))
        for found in messages
    ]


def _places(value: Any, location: str = "") -> list[str]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    locations = [location] if location else []
    for key, inner in items:
        locations += _places(inner, f"{location}.{key}".removeprefix("."))
    return locations
