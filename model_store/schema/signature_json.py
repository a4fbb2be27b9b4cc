"""Parse a signature from untrusted JSON, with a marshmallow schema for each kind of column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, post_load, validate

from model_store.schema.columns import KINDS, Column
from model_store.schema.columns.scaled_numbers import check_scale, finite_number_field
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.signature import ClassificationOutput, RegressionOutput, Signature
from model_store.schema.target_transform import TargetTransform

_NAME = validate.Length(min=1, max=1000)


def _check_label(value: Any) -> None:
    if type(value) not in (str, int):
        raise ValidationError("expected text or a whole number")


def _check_threshold(value: Any) -> None:
    if type(value) is not float or not 0 < value < 1:
        raise ValidationError("expected a number between 0 and 1")


class _PartSchema(Schema):
    result_class: type[Any]

    class Meta:
        unknown = RAISE

    kind = fields.String(required=True)

    @post_load
    def make(self, data: dict[str, Any], **_: Any) -> Any:
        return self.result_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


class _ColumnSchema(_PartSchema):
    name = fields.String(required=True, validate=_NAME)
    statistics = fields.Dict(keys=fields.String(), required=True)


def _column_schema(kind: type[Column]) -> type[_PartSchema]:
    return type(f"_{kind.__name__}Schema", (_ColumnSchema,), {"result_class": kind, **kind.json_fields()})


class _ClassificationSchema(_PartSchema):
    result_class = ClassificationOutput
    name = fields.String(required=True, validate=_NAME)
    labels = fields.List(fields.Raw(validate=_check_label), required=True, validate=validate.Length(min=2))
    threshold = finite_number_field(
        _check_threshold, error_messages={"null": "expected a number between 0 and 1, found none"}
    )


class _TransformField(fields.Field[TargetTransform]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> TargetTransform:
        try:
            return TargetTransform.parse(value)
        except ValueError as e:
            raise ValidationError(str(e)) from e


class _MultiLabelSchema(_PartSchema):
    result_class = MultiLabelOutput
    name = fields.String(required=True, validate=_NAME)
    labels = fields.List(
        fields.String(validate=_NAME, error_messages={"invalid": "expected text"}),
        required=True,
        validate=validate.Length(min=2),
    )
    separator = fields.String(
        required=True, allow_none=True, validate=validate.Length(1, 10, error="expected 1 to 10 characters")
    )
    threshold = finite_number_field(_check_threshold, required=True)


class _RegressionSchema(_PartSchema):
    result_class = RegressionOutput
    names = fields.List(fields.String(validate=_NAME), required=True, validate=validate.Length(min=1))
    offset = fields.List(finite_number_field(), required=True)
    scale = fields.List(finite_number_field(check_scale), required=True)
    transform = _TransformField()


# One schema for each kind, not for each column: to make one takes longer than to check a column.
_INPUTS = {name: _column_schema(kind)() for name, kind in KINDS.items()}
_OUTPUTS: dict[str, _PartSchema] = {
    "classes": _ClassificationSchema(),
    "labels": _MultiLabelSchema(),
    "values": _RegressionSchema(),
}


def read_signature(config: Any) -> Signature:
    """Parse what `Signature.config` returned. ValueError with location and problem for anything else."""
    if not isinstance(config, dict) or config.keys() != {"inputs", "output"}:
        raise ValueError("signature: expected an object with inputs and output")
    if not isinstance(config["inputs"], list) or not config["inputs"]:
        raise ValueError("signature.inputs: expected a list of at least one column")
    inputs = tuple(_parse_part(part, _INPUTS, f"signature.inputs.{i}") for i, part in enumerate(config["inputs"]))
    output = _parse_part(config["output"], _OUTPUTS, "signature.output")
    names = [column.name for column in inputs]
    if len(set(names)) != len(names):
        raise ValueError("signature.inputs: expected unique names")
    if len(inputs) > 1 and any(column.is_whole_row for column in inputs):
        raise ValueError("signature.inputs: expected an array to be the only input")
    for i, column in enumerate(inputs):
        if problem := column.find_problem():
            raise ValueError(f"signature.inputs.{i}.{problem}")
    if isinstance(output, ClassificationOutput | MultiLabelOutput) and len(set(map(str, output.labels))) != len(
        output.labels
    ):
        raise ValueError("signature.output.labels: expected unique labels")
    if isinstance(output, RegressionOutput) and not len(output.names) == len(output.offset) == len(output.scale):
        raise ValueError("signature.output: expected as many offsets and scales as names")
    if isinstance(output, RegressionOutput) and (transform := output.transform) is not None:
        transform.check_targets(len(output.names))
    return Signature(inputs, output)


def _parse_part(config: Any, kinds: Mapping[str, _PartSchema], location: str) -> Any:
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{location}.kind: expected one of {', '.join(kinds)}; found {kind!r}")
    try:
        return kinds[kind].load(config)
    except ValidationError as e:
        raise ValueError(f"{location}: {e.messages}") from e
