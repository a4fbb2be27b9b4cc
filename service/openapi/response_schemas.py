"""What answers look like, as marshmallow schemas for the OpenAPI document."""

from __future__ import annotations

from marshmallow import Schema, fields


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


class PredictResponseSchema(Schema):
    """Predictions, one for each instance and in their order."""

    model = fields.String(required=True)
    version = fields.Integer(required=True)
    predictions = fields.List(fields.Raw(), required=True)
    warnings = fields.List(
        fields.Nested(FaultSchema), metadata={"description": "When asked for: values beyond what training saw."}
    )
    receipt = fields.Nested(ReceiptSchema, metadata={"description": "When asked for: what `models replay` takes."})


class ModelSummarySchema(Schema):
    """A model in the list of models."""

    name = fields.String(required=True)
    description = fields.String(required=True)
    version = fields.Integer(required=True, allow_none=True, metadata={"description": "What answers by default."})
    versions = fields.List(fields.Integer(), required=True)
    aliases = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class ModelListSchema(Schema):
    models = fields.List(fields.Nested(ModelSummarySchema), required=True)


class ModelSchema(ModelSummarySchema):
    """A version of a model: what goes in and out, and how well it did on rows it had not seen."""

    digest = fields.String(required=True, metadata={"description": "SHA-256 of the artifact's manifest."})
    inputs = fields.List(fields.Dict(keys=fields.String(), values=fields.Raw()), required=True)
    output = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)
    training = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)
    example = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)


class ExampleRequestSchema(Schema):
    """A body that is answered."""

    model = fields.String(required=True)
    instances = fields.List(fields.Raw(), required=True)


class HealthSchema(Schema):
    status = fields.String(required=True)


class ReadinessSchema(Schema):
    """Whether there is a model to answer, and everything that is amiss."""

    status = fields.String(required=True, metadata={"description": "ready, degraded or unavailable"})
    # Without a required API key the response has only the status.
    models = fields.Dict(keys=fields.String(), values=fields.Integer(allow_none=True))
    problems = fields.List(fields.Nested(FaultSchema))
