"""Validation of a predict request's body with a marshmallow schema.

There is one `PredictSchema` for each version in memory. Its `InstancesField` checks and encodes the whole batch by the
model's signature. Everything that relies on how marshmallow handles errors is in this module.
"""

from __future__ import annotations

import difflib
import weakref
from collections.abc import Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

from marshmallow import Schema, ValidationError, fields

from model_store.artifact.asked_answers import KEYS
from model_store.artifact.model import Model
from model_store.errors import Fault, InputError, did_you_mean
from model_store.nn import Array
from model_store.utils.values import describe_value

QUERY_PARAMETERS = {  # with a value that is valid
    "warnings": "true",
    "receipt": "true",
    "top_k": "5",
    "explain": "true",
    "explain_label": "NAME",
    "explain_target": "NAME",
    "interval": "0.9",
    "set": "0.9",
    "threshold": "0.3",
}


class EncodedRows(NamedTuple):
    """The network's input for the rows of a request (n, features), and the missing values that were filled in."""

    inputs: Array
    warnings: list[Fault]


class ModelNameField(fields.Field[str]):
    """The model's name. If the URL names a model too, both must agree."""

    expected_name: str | None = None

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise _validation_error(
                "model", f"expected the name of a model, found {describe_value(value)}", "send its name as a string"
            )
        if self.expected_name not in {None, value}:
            problem = f"expected {self.expected_name!r}, as in the URL; found {describe_value(value)}"
            raise _validation_error("model", problem, "leave it out, or use the URL of the other model")
        return value


class VersionRefField(fields.Field[int | str]):
    """A version number or an alias."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int | str:
        if not is_version_ref(value):
            fix = 'send a number such as 3 or an alias such as "candidate"'
            raise _validation_error("version", f"expected a version or an alias, found {describe_value(value)}", fix)
        ref: int | str = value
        return ref


class InstancesField(fields.Field[EncodedRows | None]):
    """Encode a list of rows as the network's input.

    A schema and its fields form a reference cycle, so the garbage collector may free them hours later. The field holds
    only a weak reference to the model: the memory map of a replaced version must be released at once.
    """

    model: weakref.ref[Model] | None = None

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        found = "null" if key == "null" else "none"
        return _validation_error(
            "instances", f"expected a list of rows, found {found}", 'send {"instances": [row, ...]}'
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> EncodedRows | None:
        if not isinstance(value, list):
            fix = "put the row into a list: [row]" if isinstance(value, dict) else "send a list of rows"
            raise _validation_error("instances", f"expected a list of rows, found {describe_value(value)}", fix)
        if not value:
            raise _validation_error("instances", "expected at least one row, found none", "send [row, ...]")
        if self.model is None:
            return None
        model = self.model()
        if model is None:
            raise ReferenceError("a schema was used longer than its model was held")
        warnings: list[Fault] = []
        try:
            return EncodedRows(model.encode(value, warnings=warnings), warnings)
        except InputError as e:
            raise ValidationError([e.with_traceback(None)]) from None


class PredictSchema(Schema):
    """The body of a predict request."""

    model = ModelNameField(
        allow_none=True,
        metadata={"type": "string", "description": "Model name. Optional if the service has only one model."},
    )
    version = VersionRefField(
        allow_none=True,
        metadata={
            "type": ["integer", "string"],
            "description": "Version number or alias. Without it: the model's default version.",
        },
    )
    instances = InstancesField(
        required=True,
        metadata={
            "type": "array",
            "items": {},
            "minItems": 1,
            "description": "Rows: objects by column name, lists in column order, or arrays.",
        },
    )

    def __init__(self, name: str | None = None, model: Model | None = None) -> None:
        super().__init__()
        for field in self.fields.values():  # each schema instance has its own copies of the fields
            if isinstance(field, InstancesField):
                field.model = None if model is None else weakref.ref(model)
            elif isinstance(field, ModelNameField):
                field.expected_name = name

    def encode(self, body: Mapping[str, Any]) -> EncodedRows | None:
        """Return the encoded rows, or None if the schema has no model. Raises InputError with all errors."""
        faults: list[Fault] = []
        known = {key: body[key] for key in self.fields if key in body}
        total = len(body) - len(known)
        if total and "instances" not in body and self._is_row(body):
            fix = 'put the row into a list: {"instances": [row]}'
            raise InputError([Fault("instances", "expected a list of rows, found one row alone", fix)])
        if total:  # marshmallow takes 2 s to merge its errors for 500,000 unknown keys
            unknown = islice((key for key in body if key not in known), InputError.MAX_FAULTS)
            faults += [self._unknown_key(key, body[key]) for key in unknown]
        try:
            encoded: EncodedRows | None = self.load(known)["instances"]
        except ValidationError as e:
            # The traceback refers to the frames, and they to the exception and the body: a reference cycle.
            e.with_traceback(None)
            for error in chain.from_iterable(e.messages_dict.values()):
                faults += error.faults if isinstance(error, InputError) else [error]
                total += error.total if isinstance(error, InputError) else 1
        if faults:
            raise InputError(faults, total)
        return encoded

    def _is_row(self, body: Mapping[str, Any]) -> bool:
        """Return whether the body is a row, without the list around it."""
        field = self.fields["instances"]
        model = field.model() if isinstance(field, InstancesField) and field.model is not None else None
        return model is not None and any(name in body for name in model.signature.names)

    def _unknown_key(self, key: str, value: Any) -> Fault:
        # A column such as "island" resembles "instances", too.
        is_near = isinstance(value, list) or difflib.get_close_matches(key[:100], ["instances"], cutoff=0.8)
        known = (*self.fields, "explain", *KEYS)
        meant = [name for name in known if name != "instances" or is_near]
        fix = did_you_mean(key, meant) or f"the keys are {', '.join(known)}"
        if key in QUERY_PARAMETERS and key not in known:
            fix = f"it is a parameter of the URL: ?{key}={QUERY_PARAMETERS[key]}"
        return Fault(key if len(key) <= 100 else key[:97] + "...", "unknown key", fix)


def is_version_ref(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def not_an_object_error(body: Any) -> InputError:
    fix = 'send {"instances": [row, ...]}'
    return InputError([Fault("body", f"expected an object, found {describe_value(body)}", fix)])


def _validation_error(location: str, problem: str, fix: str) -> ValidationError:
    faults: list[Any] = [Fault(location, problem, fix)]  # undocumented: messages in a list may be any object
    return ValidationError(faults)
