"""Helpers that build JSON Schema and OpenAPI objects."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

STRING: Json = {"type": "string"}
VERSION: Json = {"type": ["integer", "string", "null"]}
OCTET_STREAM = "application/octet-stream"  # JSON followed by the bytes of tensors
PARAMETERS: Json = {"type": ["object", "null"]}


def object_schema(required: str | list[str] = "", **properties: Json) -> Json:
    """Return an object's schema. `required`: names, as a list or separated by blanks."""
    required = required.split() if isinstance(required, str) else required
    return {"type": "object", "required": required, "properties": properties}


def array_schema(items: Json) -> Json:
    return {"type": "array", "items": items}


def response_header(name: str, text: str) -> Json:
    """Return the description of a response header."""
    return {"headers": {name: {"schema": STRING, "description": text}}}


RETRY_AFTER = response_header("Retry-After", "Seconds to wait before a retry.")


def add_media_types(body: Json, *media_types: str) -> Json:
    """Allow other media types for a body, without a schema."""
    body["content"] |= {media_type: {"schema": STRING} for media_type in media_types}
    return body


def json_content(schema: Any, example: Json | None = None) -> Json:
    """Return a JSON body of a request or response. `schema` may be a marshmallow schema."""
    shown = {} if example is None else {"examples": {"real": {"value": example}}}
    return {"content": {"application/json": {"schema": schema, **shown}}}
