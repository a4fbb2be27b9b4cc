"""Fields of the parts of a training record. A part is untrusted: it is validated, and left out if it is invalid."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

_MAX_ITEMS = 10_000  # of any list; checked first, because validating millions of items takes seconds
FINITE_RANGE = validate.Range(-1e100, 1e100)

Number = partial(fields.Float, required=True, validate=FINITE_RANGE)
Count = partial(fields.Integer, required=True, strict=True, validate=validate.Range(0, 2**53))
Share = partial(fields.Float, required=True, validate=validate.Range(0, 1))


def _check_label(value: Any) -> None:
    if not isinstance(value, (str, int)):
        raise ValidationError("expected a text or an integer")


Label = partial(fields.Raw, required=True, validate=_check_label)


class ListField(fields.List[Any]):
    max_items = _MAX_ITEMS

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= self.max_items:
            raise ValidationError(f"expected a list of 1 to {self.max_items} items")
        return super()._deserialize(value, attr, data, **kwargs)


class PerClass(ListField):
    """One item for each of at most 100 classes: training keeps no larger confusion matrix."""

    max_items = 100


class ByName(fields.Dict):
    """An object whose values all have the same schema."""

    def __init__(self, part: type[Schema]) -> None:
        super().__init__(keys=fields.String(), values=fields.Nested(part), required=True)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict) or not 1 <= len(value) <= _MAX_ITEMS:
            raise ValidationError(f"expected an object of 1 to {_MAX_ITEMS} parts")
        return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]


class Section(Schema):
    class Meta:
        unknown = EXCLUDE


def load_or_none(schema: type[Schema], value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    try:
        return dict(schema().load(value))
    except (ValidationError, OverflowError):  # an integer that does not fit into float64
        return None
