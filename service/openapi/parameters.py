"""The parameters and errors that operations of the OpenAPI document share."""

from __future__ import annotations

from service.http.model_version import AT_LEAST_HEADER

NAME_PARAMETER = {
    "in": "path",
    "name": "name",
    "required": True,
    "schema": {"type": "string"},
    "description": "Model name.",
}
VERSION_PARAMETER = {
    "in": "path",
    "name": "version",
    "required": True,
    "schema": {"type": "string"},
    "description": "Version number, alias, or `latest`.",
}
REQUEST_ID_PARAMETER = {
    "in": "header",
    "name": "X-Request-Id",
    "required": False,
    "schema": {"type": "string"},
    "description": "Returned in the response and written to the log. Generated if missing or longer than 128.",
}
AT_LEAST_PARAMETER = {
    "in": "header",
    "name": AT_LEAST_HEADER,
    "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "description": "The oldest acceptable version, unless a version is asked for by number. 503 if all are older.",
}
QUERY_PARAMETERS = [
    {
        "in": "query",
        "name": name,
        "required": False,
        "schema": {"type": "string", "enum": ["true", "false"]},
        "description": text,
    }
    for name, text in (
        ("warnings", "Add warnings about values outside the range of the training data."),
        (
            "receipt",
            "Add a receipt, with which `models replay` can verify the predictions later. Fewer rows fit.",
        ),
    )
]
EXPLAIN_PARAMETERS: list[dict[str, object]] = [
    {"in": "query", "name": name, "required": False, "schema": schema, "description": text}
    for name, schema, text in (
        (
            "explain",
            {"type": "string", "enum": ["true", "false"]},
            "Add what each column contributed to each prediction. `explain` in a JSON body overrides it.",
        ),
        ("explain_label", {"type": "string"}, "Classifiers only: the label to explain, in place of the predicted one."),
        ("explain_target", {"type": "string"}, "Regressions only: the target to explain, in place of the first one."),
    )
]
LEVEL_PARAMETERS: dict[str, dict[str, object]] = {
    name: {
        "in": "query",
        "name": name,
        "required": False,
        "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "description": f"{text} `{name}` in a JSON body overrides it.",
    }
    for name, text in (
        ("interval", "Regressions only: add intervals that hold the true value as often as this level."),
        ("set", "Classifiers only: add sets of labels that hold the true one as often as this level."),
        ("threshold", "Two labels only: predict the second one from this probability on."),
    )
}
TOP_K_PARAMETER = {
    "in": "query",
    "name": "top_k",
    "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "description": "Classifiers only: return the probabilities of this many labels, the most probable first.",
}
ERROR_DESCRIPTIONS = {
    "400": "The body is incomplete or not valid JSON.",
    "404": "The model or version does not exist. The response lists those that do.",
    "413": "The body is too large, or has more rows or characters of text than the model's limit.",
    "415": "The Content-Type is not supported.",
    "422": "The request is invalid. The response lists every error with its location and a fix.",
    "503": "No version of the model can predict now.",
}
