"""The record: what a manifest says of its training, each part of it checked before it is drawn.

Manifests come from other people, and from other releases. A part that is not there, or not in the form that is drawn
here, is None, and the report goes without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

_MOST = 10_000  # items of any list: counted first, since a look at each of millions takes seconds
_DRAWABLE = validate.Range(-1e100, 1e100)

_Number = partial(fields.Float, required=True, validate=_DRAWABLE)
_Count = partial(fields.Integer, required=True, strict=True, validate=validate.Range(0, 2**53))
_Share = partial(fields.Float, required=True, validate=validate.Range(0, 1))
_Word = partial(fields.Raw, required=True, validate=lambda value: isinstance(value, (str, int)))


class _List(fields.List[Any]):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= _MOST:
            raise ValidationError(f"expected a list of 1 to {_MOST} items")
        return super()._deserialize(value, attr, data, **kwargs)


class _Named(fields.Dict):
    """An object of like parts by name."""

    def __init__(self, part: type[Schema]) -> None:
        super().__init__(keys=fields.String(), values=fields.Nested(part), required=True)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict) or not 1 <= len(value) <= _MOST:
            raise ValidationError(f"expected an object of 1 to {_MOST} parts")
        return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]


class _Part(Schema):
    class Meta:
        unknown = EXCLUDE


class _Epoch(_Part):
    epoch = _Count()
    loss = _Number()
    validation_loss = _Number(required=False, load_default=None, allow_none=True)


class _History(_Part):
    history = _List(fields.Nested(_Epoch), required=True)
    epochs = _Count()
    best_epoch = _Count()


class _Class(_Part):
    precision = _Share()
    recall = _Share()
    f1 = _Share()
    support = _Count()


class _Mistake(_Part):
    true = _Word()
    answered = _Word()
    rows = _Count()


class _Classification(_Part):
    rows = _Count(validate=validate.Range(1, 2**53))
    of = fields.String(required=True)
    accuracy = _Share()
    classes = _Named(_Class)
    mistakes = fields.List(fields.Nested(_Mistake), load_default=list, validate=validate.Length(max=100))
    confusion = _List(_List(_Count()), load_default=None)

    @validates_schema(skip_on_field_errors=True)
    def _square(self, data: dict[str, Any], **_: Any) -> None:
        if data["confusion"] and any(
            len(row) != len(data["classes"]) for row in [data["confusion"], *data["confusion"]]
        ):
            raise ValidationError("expected a row and a column for each class", "confusion")


class _Target(_Part):
    rmse = _Number(allow_none=True)
    mae = _Number(allow_none=True)
    r2 = _Number(allow_none=True)


class _Regression(_Part):
    rows = _Count(validate=validate.Range(1, 2**53))
    of = fields.String(required=True)
    targets = _Named(_Target)


class _ClassBaseline(_Part):
    answer = _Word()
    accuracy = _Share()


class _ValueBaseline(_Part):
    targets = _Named(_Target)


class _Bin(_Part):
    low = _Share()
    high = _Share()
    rows = _Count(validate=validate.Range(1, 2**53))
    said = _Share()
    found = _Share()


class _Calibration(_Part):
    of = fields.String(required=True, allow_none=True)
    rows = _Count()
    expected_error = _Share()
    log_loss = _Number()
    bins = _List(fields.Nested(_Bin), required=True)


class _Roc(_Part):
    of = fields.String(required=True)
    area = _Share()
    points = _List(fields.Tuple((_Share(), _Share())), required=True)


class _Residuals(_Part):
    rows = _Count()
    bias = _Number()
    median = _Number()
    p90 = _Number()
    points = _List(fields.Tuple((_Number(), _Number())), required=True)
    edges = _List(_Number(), required=True)
    counts = _List(_Count(), required=True)
    outside = _Count()

    @validates_schema(skip_on_field_errors=True)
    def _ascending(self, data: dict[str, Any], **_: Any) -> None:
        edges = data["edges"]
        if len(edges) != len(data["counts"]) + 1 or any(high <= low for low, high in pairwise(edges)):
            raise ValidationError("expected ascending edges, one more than counts", "edges")


class _AllResiduals(_Part):
    left_out = _Count()
    targets = _Named(_Residuals)


class _Shuffled(_Part):
    name = fields.String(required=True)
    cost = _Number(allow_none=True)
    deviation = _Number(allow_none=True)


class _Importance(_Part):
    measure = fields.String(required=True, validate=validate.OneOf(["accuracy", "log_loss", "rmse"]))
    score = _Number(allow_none=True)
    rows = _Count()
    repeats = _Count()
    left_out = _Count(required=False, load_default=0)
    grid = fields.Tuple((_Count(), _Count()), load_default=None)
    patch = fields.Tuple((_Count(), _Count()), load_default=None)
    parts = _List(fields.Nested(_Shuffled), required=True)

    @validates_schema(skip_on_field_errors=True)
    def _gridded(self, data: dict[str, Any], **_: Any) -> None:
        grid = data["grid"]
        if grid and (grid[0] * grid[1] != len(data["parts"]) or not data["patch"]):
            raise ValidationError("expected a part for each patch", "grid")


_NO: dict[str, Any] = {}


@dataclass(frozen=True)
class Record:
    """The parts that are there; `classification` or `regression` are the metrics, of one task alone."""

    history: dict[str, Any] | None
    classification: dict[str, Any] | None
    regression: dict[str, Any] | None
    baseline: dict[str, Any] | None
    calibration: dict[str, Any] | None
    roc: dict[str, Any] | None
    residuals: dict[str, Any] | None
    importance: dict[str, Any] | None

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> Record:
        metrics, diagnostics = training.get("metrics"), training.get("diagnostics")
        diagnostics = diagnostics if isinstance(diagnostics, dict) else _NO
        classification = _checked(_Classification, metrics)
        return cls(
            _checked(_History, training),
            classification,
            None if classification else _checked(_Regression, metrics),
            _checked(_ClassBaseline if classification else _ValueBaseline, training.get("baseline")),
            _checked(_Calibration, diagnostics.get("calibration")),
            _checked(_Roc, diagnostics.get("roc")),
            _checked(_AllResiduals, diagnostics.get("residuals")),
            _checked(_Importance, diagnostics.get("importance")),
        )


def _checked(schema: type[Schema], value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    try:
        return dict(schema().load(value))
    except (ValidationError, OverflowError):  # an integer beyond float64
        return None


class _Statistics(_Part):
    """Of a column: of numbers, of categories or of arrays."""

    min = _Number(required=False, load_default=None, allow_none=True)
    max = _Number(required=False, load_default=None, allow_none=True)
    mean = _Number(required=False, load_default=None, allow_none=True)
    std = _Number(required=False, load_default=None, allow_none=True)
    deciles = fields.List(_Number(), load_default=None, allow_none=True, validate=validate.Length(equal=11))
    frequencies = fields.Dict(keys=fields.String(), values=_Count(), load_default=dict)

    @validates_schema(skip_on_field_errors=True)
    def _ordered(self, data: dict[str, Any], **_: Any) -> None:
        values = [value for value in (data["min"], *(data["deciles"] or ()), data["max"]) if value is not None]
        if values != sorted(values):
            raise ValidationError("expected min, deciles and max to ascend")


def statistics(found: Mapping[str, Any]) -> dict[str, Any]:
    """A column's statistics. ValidationError where they are none."""
    return dict(_Statistics().load(found))
