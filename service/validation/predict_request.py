"""What comes in and goes out over HTTP, as marshmallow schemas.

A request is checked by `PredictSchema`, made once for every version in memory; its `Instances` field converts and
checks a whole batch by the model's signature. The other schemas say what answers look like, for the OpenAPI document.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from itertools import chain, islice
from typing import Any

from marshmallow import Schema, ValidationError, fields

from model_store.artifact.model import Model
from model_store.errors import Fault, InputError, did_you_mean
from model_store.nn import Array
from model_store.schema.columns import shown


class ModelName(fields.Field[str]):
    """The name of the model that answers, which the catalog has already found."""

    served: str | None = None

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise _refusal("model", f"expected the name of a model, found {shown(value)}", "send its name as a string")
        if self.served not in {None, value}:
            problem = f"expected {self.served!r}, which the address names; found {value!r}"
            raise _refusal("model", problem, "leave it out, or send the request to another address")
        return value


class VersionRef(fields.Field[int | str]):
    """A version's number, or the alias that names it."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int | str:
        if not is_version_ref(value):
            fix = 'send a number such as 3 or an alias such as "champion"'
            raise _refusal("version", f"expected a version or an alias, found {shown(value)}", fix)
        ref: int | str = value
        return ref


class Instances(fields.Field[Array | None]):
    """Rows in, the network's input out.

    A schema and its fields refer to each other, so they go when garbage is collected, which may be hours later. The
    model's map of its file must not wait for that: whoever serves it holds it, and this only points to it.
    """

    model: weakref.ref[Model] | None = None
    most = 0

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        found = "null" if key == "null" else "none"
        return _refusal("instances", f"expected a list of rows, found {found}", 'send {"instances": [row, ...]}')

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Array | None:
        if not isinstance(value, list):
            fix = "put the row into a list: [row]" if isinstance(value, dict) else "send a list of rows"
            raise _refusal("instances", f"expected a list of rows, found {shown(value)}", fix)
        if not value:
            raise _refusal("instances", "expected at least one row, found none", "send [row, ...]")
        if len(value) > self.most:
            problem = f"expected at most {self.most} rows, found {len(value)}"
            raise _refusal("instances", problem, "send them in several requests")
        if self.model is None:
            return None
        model = self.model()
        if model is None:
            raise ReferenceError("a schema was used longer than its model was held")
        try:
            return model.encode(value)
        except InputError as e:
            raise ValidationError([e.with_traceback(None)]) from None


class PredictSchema(Schema):
    """The body of a request for predictions."""

    model = ModelName(
        allow_none=True,
        metadata={"type": "string", "description": "Which model; may be left out when there is one."},
    )
    version = VersionRef(
        allow_none=True,
        metadata={
            "type": ["integer", "string"],
            "description": "Number or alias; left out, the default answers.",
        },
    )
    instances = Instances(
        required=True,
        metadata={
            "type": "array",
            "items": {},
            "minItems": 1,
            "description": "Rows: objects by column name, lists in column order, or arrays.",
        },
    )

    def __init__(self, max_instances: int, name: str | None = None, model: Model | None = None) -> None:
        super().__init__()
        for field in self.fields.values():  # a schema has copies of its own of the class's fields
            if isinstance(field, Instances):
                field.model, field.most = None if model is None else weakref.ref(model), max_instances
            elif isinstance(field, ModelName):
                field.served = name

    def inputs(self, body: Mapping[str, Any]) -> Array | None:
        """What goes into the network; None of a schema without a model. InputError with every fault of the body."""
        faults: list[Fault] = []
        known = {key: body[key] for key in self.fields if key in body}
        total = len(body) - len(known)
        if total:  # marshmallow would take 2 s to merge its errors of 500,000 unknown keys
            unknown = islice((key for key in body if key not in known), InputError.LIMIT)
            faults += [self._unknown(key) for key in unknown]
        try:
            encoded: Array | None = self.load(known)["instances"]
        except ValidationError as e:
            # The frame that raised it holds it, and all frames below hold the body: a cycle, until a collection.
            e.with_traceback(None)
            for refusal in chain.from_iterable(e.messages_dict.values()):
                faults += refusal.faults if isinstance(refusal, InputError) else [refusal]
                total += refusal.total if isinstance(refusal, InputError) else 1
        if faults:
            raise InputError(faults, total)
        return encoded

    def _unknown(self, key: str) -> Fault:
        fix = did_you_mean(key, self.fields) or f"the keys are {', '.join(self.fields)}"
        return Fault(key if len(key) <= 100 else key[:97] + "...", "expected no such key", fix)


def is_version_ref(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def not_an_object(body: Any) -> InputError:
    fix = 'send {"instances": [row, ...]}'
    return InputError([Fault("body", f"expected an object, found {shown(body)}", fix)])


def _refusal(location: str, problem: str, fix: str) -> ValidationError:
    faults: list[Any] = [Fault(location, problem, fix)]  # marshmallow passes on whatever a list of messages holds
    return ValidationError(faults)


class FaultSchema(Schema):
    """One thing that is wrong with a request."""

    location = fields.String(required=True, metadata={"description": "Where, such as `instances.2.island`."})
    problem = fields.String(required=True, metadata={"description": "What was expected there, and what was found."})
    fix = fields.String(required=True, metadata={"description": "What to do about it; may be empty."})


class ErrorExampleSchema(Schema):
    """A request that works."""

    body = fields.Dict(
        keys=fields.String(), values=fields.Raw(), metadata={"description": "Left out where it is long."}
    )
    curl = fields.String(required=True, metadata={"description": "The line for a shell that sends it."})


class ErrorBodySchema(Schema):
    code = fields.String(required=True, metadata={"description": "For programs, such as `unknown_model`."})
    message = fields.String(required=True, metadata={"description": "For people."})
    faults = fields.List(
        fields.Nested(FaultSchema), required=True, metadata={"description": "Every fault at once, up to a hundred."}
    )
    example = fields.Nested(ErrorExampleSchema)


class ErrorSchema(Schema):
    """The one shape of every answer that is not a success."""

    error = fields.Nested(ErrorBodySchema, required=True)
    request_id = fields.String(required=True, metadata={"description": "The same as the header X-Request-Id."})


class ReceiptSchema(Schema):
    """What was asked, what was answered, and which model did it."""

    model = fields.String(required=True)
    version = fields.Integer(required=True)
    digest = fields.String(required=True, metadata={"description": "Of the model."})
    input_sha256 = fields.String(required=True, metadata={"description": "Of the body, inflated."})
    predictions_sha256 = fields.String(required=True, metadata={"description": "Of the predictions as compact JSON."})


class AnswerSchema(Schema):
    """Predictions, one for each instance and in their order."""

    model = fields.String(required=True)
    version = fields.Integer(required=True)
    predictions = fields.List(fields.Raw(), required=True)
    warnings = fields.List(
        fields.Nested(FaultSchema), metadata={"description": "When asked for: values beyond what training saw."}
    )
    receipt = fields.Nested(ReceiptSchema, metadata={"description": "When asked for: what `models replay` takes."})


class ModelLineSchema(Schema):
    """A model in the list of models."""

    name = fields.String(required=True)
    description = fields.String(required=True)
    version = fields.Integer(required=True, allow_none=True, metadata={"description": "What answers by default."})
    versions = fields.List(fields.Integer(), required=True)
    aliases = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class ModelsSchema(Schema):
    models = fields.List(fields.Nested(ModelLineSchema), required=True)


class ModelSchema(ModelLineSchema):
    """A version of a model: what goes in and out, and how well it did on rows it had not seen."""

    digest = fields.String(required=True, metadata={"description": "SHA-256 of the artifact's manifest."})
    inputs = fields.List(fields.Dict(keys=fields.String(), values=fields.Raw()), required=True)
    output = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)
    training = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)
    example = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)


class ExampleSchema(Schema):
    """A body that is answered."""

    model = fields.String(required=True)
    instances = fields.List(fields.Raw(), required=True)


class HealthSchema(Schema):
    status = fields.String(required=True)


class ReadySchema(Schema):
    """Whether there is a model to answer, and everything that is amiss."""

    status = fields.String(required=True, metadata={"description": "ready, degraded or unavailable"})
    # Who has no key, where one is needed, is told the status alone.
    models = fields.Dict(keys=fields.String(), values=fields.Integer(allow_none=True))
    problems = fields.List(fields.Nested(FaultSchema))
