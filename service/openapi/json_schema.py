"""JSON Schema in a line: the pieces that the OpenAPI document is put together from."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

STRING: Json = {"type": "string"}
VERSION: Json = {"type": ["integer", "string", "null"]}
OCTET_STREAM = "application/octet-stream"  # JSON, and then the bytes of tensors
PARAMETERS: Json = {"type": ["object", "null"]}


def object_schema(required: str | list[str] = "", **properties: Json) -> Json:
    """`required`: names, with blanks between them where it is a text."""
    required = required.split() if isinstance(required, str) else required
    return {"type": "object", "required": required, "properties": properties}


def array_schema(items: Json) -> Json:
    return {"type": "array", "items": items}


def response_header(name: str, text: str) -> Json:
    """A header of an answer."""
    return {"headers": {name: {"schema": STRING, "description": text}}}


RETRY_AFTER = response_header("Retry-After", "Seconds after which it may be worth another try.")


def add_media_types(body: Json, *media_types: str) -> Json:
    """A body that may come in other types as well, of which a schema says nothing more."""
    body["content"] |= {media_type: {"schema": STRING} for media_type in media_types}
    return body


def json_content(schema: Any, example: Json | None = None) -> Json:
    """A body of JSON, asked for or answered; `schema` may be one of marshmallow's."""
    shown = {} if example is None else {"examples": {"real": {"value": example}}}
    return {"content": {"application/json": {"schema": schema, **shown}}}
