"""Helpers that build JSON Schema and OpenAPI objects."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

STRING: Json = {"type": "string"}
VERSION: Json = {"type": ["integer", "string", "null"]}
OCTET_STREAM = "application/octet-stream"  # JSON followed by the bytes of tensors
# In words, as client generators know no such bodies.
TABLE_BODIES = (
    "The body may also be CSV (text/csv), an array as numpy.save writes it (application/x-npy), or, for models that "
    "take images, a PNG or JPEG file (image/png, image/jpeg)."
)
PARAMETERS: Json = {"type": ["object", "null"]}


def object_schema(required: str | list[str] = "", **properties: Json) -> Json:
    """Return an object's schema. `required`: names, as a list or separated by blanks."""
    required = required.split() if isinstance(required, str) else required
    return {"type": "object", "required": required, "properties": properties}


def array_schema(items: Json) -> Json:
    return {"type": "array", "items": items}


def ref(name: str) -> Json:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def response_header(name: str, text: str) -> Json:
    """Return the description of a response header."""
    return {"headers": {name: {"schema": STRING, "description": text}}}


RETRY_AFTER = response_header("Retry-After", "Seconds to wait before a retry.")


def add_octet_stream(body: Json) -> None:
    """Allow JSON followed by the bytes of tensors for a body."""
    body["content"][OCTET_STREAM] = {"schema": STRING | {"format": "binary"}}


def json_content(schema: Any, example: Json | None = None) -> Json:
    """Return a JSON body of a request or response. `schema` may be a marshmallow schema."""
    shown = {} if example is None else {"examples": {"real": {"value": example}}}
    return {"content": {"application/json": {"schema": schema, **shown}}}
