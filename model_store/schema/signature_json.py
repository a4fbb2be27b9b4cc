"""Reads a signature back from JSON that nobody vouches for: marshmallow schemas, one for each kind of column."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, post_load, validate

from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)

_NAME = validate.Length(min=1, max=1000)


def _finite_number_field(validate: Callable[[Any], None] | None = None, **options: Any) -> fields.Field[Any]:
    """A field for a finite number that is written as one: no text, no booleans."""
    return fields.Raw(validate=validate or _is_real, **options)


def _is_real(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValidationError("expected a finite number")


def _is_scale(value: Any) -> None:
    _is_real(value)
    if value <= 0:
        raise ValidationError("expected a number above 0")


def _is_label(value: Any) -> None:
    if type(value) not in (str, int):
        raise ValidationError("expected text or a whole number")


class _Part(Schema):
    makes: type[Any]

    class Meta:
        unknown = RAISE

    kind = fields.String(required=True)

    @post_load
    def make(self, data: dict[str, Any], **_: Any) -> Any:
        return self.makes(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


class _Column(_Part):
    name = fields.String(required=True, validate=_NAME)
    statistics = fields.Dict(keys=fields.String(), required=True)


class _Number(_Column):
    makes = NumberColumn
    offset = _finite_number_field(required=True)
    scale = _finite_number_field(_is_scale, required=True)
    fill = _finite_number_field(required=True, allow_none=True)


class _Category(_Column):
    makes = CategoryColumn
    # `unknown` is a word of Schema's own, so the field goes by another name inside
    bucket = fields.String(
        required=True, data_key="unknown", attribute="unknown", validate=validate.OneOf(["refuse", "bucket"])
    )
    categories = fields.List(fields.String(), required=True, validate=validate.Length(min=1))
    fill = fields.String(required=True, allow_none=True)


class _Array(_Column):
    makes = ArrayColumn
    shape = fields.List(
        fields.Integer(strict=True, validate=validate.Range(1, 2**31)), required=True, validate=validate.Length(1, 8)
    )
    offset = _finite_number_field(required=True)
    scale = _finite_number_field(_is_scale, required=True)
    low = _finite_number_field(required=True, allow_none=True)
    high = _finite_number_field(required=True, allow_none=True)


class _Classes(_Part):
    makes = ClassificationOutput
    name = fields.String(required=True, validate=_NAME)
    labels = fields.List(fields.Raw(validate=_is_label), required=True, validate=validate.Length(min=2))


class _Values(_Part):
    makes = RegressionOutput
    names = fields.List(fields.String(validate=_NAME), required=True, validate=validate.Length(min=1))
    offset = fields.List(_finite_number_field(), required=True)
    scale = fields.List(_finite_number_field(_is_scale), required=True)


_INPUTS: dict[str, type[_Part]] = {"number": _Number, "category": _Category, "array": _Array}
_OUTPUTS: dict[str, type[_Part]] = {"classes": _Classes, "values": _Values}


def read_signature(config: Any) -> Signature:
    """The signature of `Signature.config()`; ValueError naming place and fault for anything else."""
    if not isinstance(config, dict) or config.keys() != {"inputs", "output"}:
        raise ValueError("signature: expected an object with inputs and output")
    if not isinstance(config["inputs"], list) or not config["inputs"]:
        raise ValueError("signature.inputs: expected a list of at least one column")
    inputs = tuple(_part(part, _INPUTS, f"signature.inputs.{i}") for i, part in enumerate(config["inputs"]))
    output = _part(config["output"], _OUTPUTS, "signature.output")
    names = [column.name for column in inputs]
    if len(set(names)) != len(names):
        raise ValueError("signature.inputs: expected names that differ")
    if len(inputs) > 1 and any(isinstance(column, ArrayColumn) for column in inputs):
        raise ValueError("signature.inputs: expected an array to be the only input")
    for i, column in enumerate(inputs):
        if isinstance(column, CategoryColumn):
            if len(set(column.categories)) != len(column.categories):
                raise ValueError(f"signature.inputs.{i}.categories: expected categories that differ")
            if column.fill is not None and column.fill not in column.categories and column.unknown == "refuse":
                raise ValueError(f"signature.inputs.{i}.fill: expected one of the categories")
    if isinstance(output, ClassificationOutput) and len(set(map(str, output.labels))) != len(output.labels):
        raise ValueError("signature.output.labels: expected labels that differ")
    if isinstance(output, RegressionOutput) and not len(output.names) == len(output.offset) == len(output.scale):
        raise ValueError("signature.output: expected as many offsets and scales as names")
    return Signature(inputs, output)


def _part(config: Any, kinds: Mapping[str, type[_Part]], location: str) -> Any:
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{location}.kind: expected one of {', '.join(kinds)}; found {kind!r}")
    try:
        return kinds[kind]().load(config)
    except ValidationError as e:
        raise ValueError(f"{location}: {e.messages}") from e
