"""The bodies of the native protocol as marshmallow schemas, for the OpenAPI document."""

from __future__ import annotations

from marshmallow import Schema, fields

from service.validation.predict_request import PredictSchema


class FaultSchema(Schema):
    """One error in a request."""

    location = fields.String(
        required=True, metadata={"description": "Where the error is, such as `instances.2.island`."}
    )
    problem = fields.String(required=True, metadata={"description": "What was expected and what was found."})
    fix = fields.String(required=True, metadata={"description": "How to fix it."})


class ErrorExampleSchema(Schema):
    """An example of a valid request."""

    body = fields.Dict(
        keys=fields.String(), values=fields.Raw(), metadata={"description": "The request body. Left out if it is long."}
    )
    curl = fields.String(required=True, metadata={"description": "The shell command that sends the request."})


class ErrorBodySchema(Schema):
    code = fields.String(required=True, metadata={"description": "Error code for programs, such as `unknown_model`."})
    message = fields.String(required=True, metadata={"description": "Error message for people."})
    faults = fields.List(
        fields.Nested(FaultSchema), required=True, metadata={"description": "All errors of the request, up to 100."}
    )
    example = fields.Nested(ErrorExampleSchema)


class ErrorSchema(Schema):
    """The format of every error response."""

    error = fields.Nested(ErrorBodySchema, required=True)
    request_id = fields.String(required=True, metadata={"description": "Equal to the header X-Request-Id."})


class ReceiptSchema(Schema):
    """Hashes of the request and the predictions, and the model version that made them."""

    model = fields.String(required=True)
    version = fields.Integer(required=True)
    digest = fields.String(required=True, metadata={"description": "Digest of the model version."})
    input_sha256 = fields.String(
        required=True, metadata={"description": "SHA-256 of the request body after decompression."}
    )
    predictions_sha256 = fields.String(
        required=True, metadata={"description": "SHA-256 of the predictions in the canonical form of RFC 8785."}
    )
    top_k = fields.Integer(metadata={"description": "As in the request. Left out if it had none."})
    threshold = fields.Float(metadata={"description": "As in the URL of the request. Left out if it had none."})


class PredictBodySchema(PredictSchema):
    """The body of a predict request, with what the service takes out of it before it checks the rows."""

    explain = fields.Raw(
        allow_none=True,
        metadata={
            "type": ["boolean", "object"],
            "description": "Explain each prediction: true, or an object with `label` or `target`, and `baseline`.",
        },
    )

    interval = fields.Float(
        allow_none=True,
        metadata={"description": "Add intervals that hold the true value as often as this level, such as 0.9."},
    )
    # `set` would hide the builtin, so the field has another name here.
    label_set = fields.Float(
        data_key="set",
        allow_none=True,
        metadata={"description": "Add sets of labels that hold the true one as often as this level, such as 0.9."},
    )
    threshold = fields.Float(
        allow_none=True,
        metadata={"description": "Predict the second of two labels from this probability on."},
    )


class ExplanationSchema(Schema):
    """What each column contributed to the difference between the answer and the baseline."""

    label = fields.Raw(metadata={"description": "Of a classifier: the label whose probability is explained."})
    target = fields.String(metadata={"description": "Of several targets: the explained one."})
    baseline = fields.Float(required=True, metadata={"description": "The answer for the baseline row."})
    answer = fields.Float(required=True)
    contributions = fields.Dict(
        keys=fields.String(), values=fields.Raw(), required=True, metadata={"description": "By column."}
    )
    residual = fields.Float(
        required=True, metadata={"description": "What the sum of the contributions lacks, by rounding."}
    )


class PredictResponseSchema(Schema):
    """Predictions, one for each row and in the same order."""

    model = fields.String(required=True)
    version = fields.Integer(required=True)
    predictions = fields.List(fields.Raw(), required=True)
    explanations = fields.List(
        fields.Nested(ExplanationSchema), metadata={"description": "With `explain`: one for each row."}
    )
    intervals = fields.List(
        fields.Raw(),
        metadata={"description": "With `interval`: [low, high] for each row; of several targets an object by name."},
    )
    sets = fields.List(
        fields.List(fields.Raw()),
        metadata={"description": "With `set`: the labels of the set of each row, the most probable one first."},
    )
    warnings = fields.List(
        fields.Nested(FaultSchema),
        metadata={
            "description": "Missing values that were filled in, and unknown categories; with `?warnings=true` also "
            "values outside the range of the training data."
        },
    )
    receipt = fields.Nested(
        ReceiptSchema, metadata={"description": "With `?receipt=true`: the receipt that `models replay` verifies."}
    )


class PublicationSchema(Schema):
    """Who published a version, and when. It is not signed."""

    who = fields.String(required=True, allow_none=True, metadata={"description": "null if there is no record."})
    when = fields.DateTime(required=True)
    recorded = fields.Boolean(
        required=True, metadata={"description": "If false, there is no record, and `when` is the date of the artifact."}
    )


class ModelSummarySchema(Schema):
    """A model in the list of models."""

    name = fields.String(required=True)
    description = fields.String(required=True)
    version = fields.Integer(required=True, allow_none=True, metadata={"description": "The default version."})
    published = fields.Nested(PublicationSchema, required=True, allow_none=True)
    versions = fields.List(fields.Integer(), required=True)
    aliases = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class ModelListSchema(Schema):
    models = fields.List(fields.Nested(ModelSummarySchema), required=True)


class InputColumnSchema(Schema):
    """An input column of a model. Which of the optional keys it has depends on its kind."""

    name = fields.String(required=True)
    kind = fields.String(required=True, metadata={"description": "number, date, text, category or array"})
    required = fields.Boolean(required=True)
    fill = fields.Raw(metadata={"description": "Replaces a missing value."})
    seen = fields.Dict(
        keys=fields.String(),
        values=fields.Raw(),
        metadata={"description": "Range of the training data: numbers, or dates in ISO 8601."},
    )
    format = fields.Dict(metadata={"description": "How texts spell numbers or dates."})
    categories = fields.List(fields.String())
    # `Schema` has an attribute `unknown`, so the field has another name here.
    bucket = fields.String(
        data_key="unknown", metadata={"description": "refuse, or bucket: unknown categories share a feature."}
    )
    shape = fields.List(fields.Integer())
    low = fields.Float(allow_none=True)
    high = fields.Float(allow_none=True)


class OutputSchema(Schema):
    """The output of a model: one of several classes, any of several labels, or values by name."""

    kind = fields.String(required=True, metadata={"description": "classes, labels or values"})
    name = fields.String(metadata={"description": "Of classes and labels: the name of the target."})
    labels = fields.List(fields.Raw(), metadata={"description": "Of classes and labels."})
    threshold = fields.Float(
        metadata={
            "description": "Of labels: the least probability of a predicted one. Of two classes: the least probability "
            "of the second one for it to be predicted; left out if the most probable one is."
        }
    )
    separator = fields.String(
        allow_none=True, metadata={"description": "Of labels: what separates them in the target column, if it is one."}
    )
    names = fields.List(fields.String(), metadata={"description": "Of values."})


class PredictedExampleSchema(Schema):
    """Rows, and the model's predictions for them."""

    instances = fields.List(fields.Raw(), required=True)
    predictions = fields.List(fields.Raw(), required=True)


class ExplainLimitsSchema(Schema):
    """Whether the answers of a model are explained."""

    max_rows = fields.Integer(required=True, metadata={"description": "The most rows of a request; 0 if none are."})
    baseline = fields.Boolean(
        required=True, metadata={"description": "If false, a request must give the row to compare with."}
    )


class ConformalSchema(Schema):
    """What levels of intervals or sets of labels a version can promise."""

    method = fields.String(required=True, metadata={"description": "absolute, normalized, aps or raps"})
    rows = fields.Integer(required=True, metadata={"description": "Scores of calibration rows in the model."})
    max_level = fields.Float(required=True, metadata={"description": "The largest level of a request."})


class ModelSchema(ModelSummarySchema):
    """A version of a model: inputs, output, metrics on held-out rows, and an example."""

    digest = fields.String(required=True, metadata={"description": "SHA-256 of the artifact's manifest."})
    inputs = fields.List(fields.Nested(InputColumnSchema), required=True)
    output = fields.Nested(OutputSchema, required=True)
    max_rows = fields.Integer(required=True, metadata={"description": "The most rows of a request without `top_k`."})
    explain = fields.Nested(ExplainLimitsSchema, required=True)
    conformal = fields.Nested(
        ConformalSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null if the model was trained without calibration rows."},
    )
    training = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)
    example = fields.Nested(
        PredictedExampleSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null if a row is too large for an example."},
    )


class ExampleRequestSchema(Schema):
    """A valid request body."""

    model = fields.String(required=True)
    instances = fields.List(fields.Raw(), required=True)


class HealthSchema(Schema):
    status = fields.String(required=True)


class ReadinessSchema(Schema):
    """Whether the service can predict, and its current problems."""

    status = fields.String(required=True, metadata={"description": "ready, degraded or unavailable"})
    # Without a required API key the response has only the status.
    models = fields.Dict(keys=fields.String(), values=fields.Integer(allow_none=True))
    problems = fields.List(fields.Nested(FaultSchema))
