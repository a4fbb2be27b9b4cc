"""The manifest: the description of an artifact's model, as canonical JSON.

Canonical JSON has one form: keys sorted, no spaces, UTF-8 unescaped, no NaN or infinity, numbers as Python's `repr`
writes them. So equal models have equal bytes, and the SHA-256 of those bytes is the model's digest. Nothing in it
depends on the clock, the machine, or the versions of Python and NumPy.

    format       1
    producer     "forward-pass 0.1.0"
    description  text
    dtype        "float32" or "float64", of every array
    layers       [{"type": "Linear", "input_size": 4, "output_size": 3}, ...]     see nn.build
    signature    {"inputs": [...], "output": {...}}                               see signature
    training     {...}     what the training job recorded: job, data, split, metrics, baseline, diagnostics, history
    golden       null, or {"instances": [...]}; their outputs are the array "golden.outputs"
    answers      optional: {"baseline": "mean", "conformal": {...}}, either may be absent; their arrays are
                 "answers.baseline" and "answers.conformal.<name>", see answers.py
    arrays       {name: {"dtype": "<f4", "shape": [3, 4], "sha256": "..."}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate, validates_schema

from model_store.artifact.answers import BASELINE_MEMBER, KNOTS_MEMBER, SCALES_MEMBER, SCORES_MEMBER
from model_store.artifact.conformal import METHODS
from model_store.errors import ArtifactError

FORMAT = 1
PRODUCER = "forward-pass 0.1.0"
MAX_BYTES = 8 << 20
MAX_ITEMS = 10_000
DTYPES = {"float32": "<f4", "float64": "<f8"}

_LONG_INTEGER = re.compile(rb"[0-9]{19}")
_ARRAY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*\Z")


class _StrictString(fields.String):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(f"expected text, found {type(value).__name__}")
        return value


class _Object(fields.Field[dict[str, Any]]):
    """A JSON object whose content is checked elsewhere."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError(f"expected an object, found {type(value).__name__}")
        return value


class _List(fields.Field[list[Any]]):
    """A JSON list whose items are checked elsewhere. Its length is checked first: checking millions takes seconds."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_ITEMS:
            raise ValidationError(f"expected a list of 1 to {MAX_ITEMS} items")
        return value


class _Arrays(fields.Dict):
    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        if not isinstance(value, dict) or not 1 <= len(value) <= MAX_ITEMS:
            raise ValidationError(f"expected an object of 1 to {MAX_ITEMS} arrays")
        return super().deserialize(value, attr, data, **kwargs)


class _StrictSchema(Schema):
    error_messages = {  # noqa: RUF012 - marshmallow's API
        "unknown": "unknown field",
        "type": "expected an object, found something else",
    }

    class Meta:
        unknown = RAISE


class _StrictInteger(fields.Integer):
    """A JSON integer: not 1.0, "1" or true."""

    def __init__(self, error: str, valid: Callable[[int], bool], **options: Any) -> None:
        self._error, self._valid = error, valid
        super().__init__(**options)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        if type(value) is not int or not self._valid(value):
            raise ValidationError(f"{self._error}, found {value!r}")
        return value


class _Array(_StrictSchema):
    dtype = _StrictString(required=True)
    shape = fields.List(
        _StrictInteger("expected a whole number from 1 to 2³²", lambda size: 1 <= size <= 2**32),
        required=True,
        validate=validate.Length(1, 8, error="expected 1 to 8 dimensions"),
        error_messages={"invalid": "expected a list of 1 to 8 dimensions"},
    )
    sha256 = _StrictString(
        required=True, validate=validate.Regexp(r"[0-9a-f]{64}\Z", error="expected 64 hexadecimal digits")
    )


class _Golden(_StrictSchema):
    instances = _List(required=True)


class _Penalty(fields.Field[float]):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        if type(value) is not float or not 0 <= value <= 1:
            raise ValidationError("expected a number from 0 to 1")
        return value


class _Conformal(_StrictSchema):
    method = _StrictString(
        required=True, validate=validate.OneOf(METHODS, error="expected one of {choices}, found {input!r}")
    )
    penalty = _Penalty()
    rank = _StrictInteger("expected a whole number from 0 to 10000", lambda rank: 0 <= rank <= 10_000)

    @validates_schema(skip_on_field_errors=True)
    def _check_penalty(self, data: dict[str, Any], **_: Any) -> None:
        if not {"penalty", "rank"} & set(data) == ({"penalty", "rank"} if data["method"] == "raps" else set()):
            raise ValidationError("expected penalty and rank for raps, and neither for another method")


class _Answers(_StrictSchema):
    baseline = _StrictString(validate=validate.OneOf(["mean"], error="expected 'mean', found {input!r}"))
    conformal = fields.Nested(_Conformal)

    @validates_schema
    def _check_parts(self, data: dict[str, Any], **_: Any) -> None:
        if not data:
            raise ValidationError("expected baseline, conformal or both, found neither")


class _Manifest(_StrictSchema):
    format = _StrictInteger(f"expected {FORMAT}", lambda number: number == FORMAT, required=True)
    producer = _StrictString(required=True, validate=validate.Length(1, 100, error="expected 1 to 100 characters"))
    description = _StrictString(
        required=True, validate=validate.Length(max=10_000, error="expected 10000 characters at most")
    )
    dtype = _StrictString(
        required=True, validate=validate.OneOf(DTYPES, error="expected one of {choices}, found {input!r}")
    )
    layers = _List(required=True)
    signature = _Object(required=True)
    training = _Object(required=True)
    golden = fields.Nested(_Golden, required=True, allow_none=True)
    answers = fields.Nested(_Answers)
    arrays = _Arrays(
        keys=fields.String(validate=validate.Regexp(_ARRAY_NAME, error="expected letters, digits, '_' between dots")),
        values=fields.Nested(_Array),
        required=True,
    )

    @validates_schema
    def _check_consistency(self, data: dict[str, Any], **_: Any) -> None:
        """Check that all arrays have the manifest's dtype, and that the arrays beside the layers' have their fields."""
        expected = DTYPES[data["dtype"]]
        for name, array in data["arrays"].items():
            if array["dtype"] != expected:
                raise ValidationError(f"expected {expected!r}, found {array['dtype']!r}", f"arrays.{name}.dtype")
        if (data["golden"] is not None) != ("golden.outputs" in data["arrays"]):
            raise ValidationError("expected both golden.outputs and golden, or neither", "golden")
        answers = data.get("answers", {})
        scaled = answers.get("conformal", {}).get("method") == "normalized"
        for member, field, is_there in (
            (BASELINE_MEMBER, "answers.baseline", "baseline" in answers),
            (SCORES_MEMBER, "answers.conformal", "conformal" in answers),
            (KNOTS_MEMBER, "the method normalized", scaled),
            (SCALES_MEMBER, "the method normalized", scaled),
        ):
            if is_there != (member in data["arrays"]):
                raise ValidationError(f"expected both the array {member} and {field}, or neither", "answers")


_SCHEMA = _Manifest()


def to_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return the manifest as canonical JSON. ArtifactError if `from_bytes` would reject it."""
    try:
        # Encode twice: JSON turns number keys into text, which has another sort order.
        data = _canonical_json(json.loads(_canonical_json(manifest)))
    except (TypeError, ValueError, RecursionError) as e:
        raise ArtifactError(f"manifest: expected finite numbers, text, lists and objects only; {e}") from e
    from_bytes(data)
    return data


def from_bytes(data: bytes) -> dict[str, Any]:
    """Parse a manifest. ArtifactError unless it is canonical JSON and every field is valid."""
    if len(data) > MAX_BYTES:
        raise ArtifactError(f"manifest: expected {MAX_BYTES} bytes at most, found {len(data)}")
    try:
        # A hook for every integer would take a second for 2 million of them; few manifests have one that long.
        manifest = json.loads(data, parse_int=_parse_integer if _LONG_INTEGER.search(data) else None)
        canonical = _canonical_json(manifest)
    except (ValueError, RecursionError) as e:
        raise ArtifactError(f"manifest: expected JSON, found an error: {e}") from e
    if canonical != data:
        raise ArtifactError("manifest: expected canonical JSON: keys sorted and once each, no spaces, plain UTF-8")
    try:
        _SCHEMA.load(manifest)
    except ValidationError as e:
        raise ArtifactError("; ".join(list(_flatten_messages(e.messages, "manifest"))[:10])) from e
    return dict(manifest)


def _parse_integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:  # int() of a million digits takes seconds
        raise ValueError(f"expected integers of 64 bits, found {digits[:40]}")
    return int(digits)


def _canonical_json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _flatten_messages(messages: Any, location: str) -> Iterator[str]:
    """Yield the messages of marshmallow's tree, each after its location."""
    if isinstance(messages, dict):
        for key, below in messages.items():
            yield from _flatten_messages(below, location if key in ("_schema", "key", "value") else f"{location}.{key}")
    else:
        for message in messages:
            yield f"{location}: {message}"
