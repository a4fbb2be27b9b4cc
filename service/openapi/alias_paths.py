"""The aliases of a model in the OpenAPI document: their moves, and the requests that move them."""

from __future__ import annotations

from apispec import APISpec

from service.openapi.json_schema import RETRY_AFTER, STRING, Json, array_schema, json_content, object_schema, ref
from service.openapi.parameters import NAME_PARAMETER
from service.openapi.response_schemas import ErrorSchema

_NUMBER: Json = {"type": "integer", "minimum": 1}
_BOOLEAN: Json = {"type": "boolean"}
_WHY: Json = STRING | {"minLength": 1, "maxLength": 1000, "description": "Recorded in the history."}
_FORCE = _BOOLEAN | {"description": "Move a protected alias."}
_VERSION: Json = {"type": ["integer", "string"], "description": "A version number, an alias or `latest`."}
_REVISION = "alias number version who when why rollback protected"
_COMPONENTS: dict[str, Json] = {
    "AliasMove": object_schema(
        _REVISION,
        alias=STRING,
        number=_NUMBER | {"description": "Of the move among those of the alias."},
        version=_NUMBER,
        who=STRING,
        when=STRING | {"format": "date-time"},
        why=STRING,
        rollback=_BOOLEAN,
        protected=_BOOLEAN,
    ),
    "Alias": object_schema(
        "version is_set protected rollback_to history",
        version=_NUMBER,
        is_set=_BOOLEAN | {"description": "If false, requests without a version get the newest one."},
        protected=_BOOLEAN,
        rollback_to={"type": ["integer", "null"], "description": "null if unknown, or if there is no such version."},
        history=array_schema(ref("AliasMove")) | {"description": "The newest moves, the last one first."},
    ),
    "Aliases": object_schema(
        "model versions aliases",
        model=STRING,
        versions=array_schema(_NUMBER),
        aliases={"type": "object", "additionalProperties": ref("Alias")},
        move=ref("AliasMove") | {"description": "Of a request that moved an alias: its move."},
    ),
    "MoveAlias": object_schema(
        "version why",
        version=_VERSION,
        why=_WHY,
        gates=array_schema(STRING) | {"description": "Conditions such as `accuracy>=default`, as of `models promote`."},
        expected={"type": ["integer", "null"], "description": "409 unless the alias points there; null: is not set."},
        force=_FORCE,
    ),
    "RollBackAlias": object_schema("why", why=_WHY, force=_FORCE),
    "ProtectAlias": object_schema("protected why", protected=_BOOLEAN, why=_WHY),
}
_ALIAS_PARAMETER = {"in": "path", "name": "alias", "required": True, "schema": STRING, "description": "Alias."}
_MOVES = (
    ("move_alias", "", "Move an alias, or promote a version by gates", "MoveAlias"),
    ("roll_back_alias", "/rollback", "Point an alias to its previous version", "RollBackAlias"),
    ("protect_alias", "/protection", "Protect an alias, or end its protection", "ProtectAlias"),
)


def add_alias_paths(spec: APISpec) -> None:
    for name, schema in _COMPONENTS.items():
        spec.components.schema(name, schema)
    found: Json = {"200": {"description": "The aliases.", **json_content(ref("Aliases"))}}
    unreachable: Json = {
        "description": "The model store cannot be read or written.",
        **RETRY_AFTER,
        **json_content(ErrorSchema),
    }
    conflict = {"description": "The alias has changed, is protected, or a gate failed.", **json_content(ErrorSchema)}
    operation: Json = {
        "tags": ["general"],
        "summary": "Aliases of a model, and their moves",
        "operationId": "get_aliases",
        "parameters": [NAME_PARAMETER],
        "responses": {**found, "404": "E404", "503": unreachable},
    }
    spec.path("/models/{name}/aliases", operations={"get": operation})
    for operation_id, path, summary, request in _MOVES:
        operation = {
            "tags": ["general"],
            "summary": f"{summary} (requires SERVE_ADMIN)",
            "operationId": operation_id,
            "parameters": [NAME_PARAMETER, _ALIAS_PARAMETER],
            "requestBody": {"required": True, **json_content(ref(request))},
            "responses": {
                **found,
                **{status: f"E{status}" for status in ("400", "404", "413", "415", "422")},
                "409": conflict,
                "503": unreachable,
            },
        }
        spec.path(f"/models/{{name}}/aliases/{{alias}}{path}", operations={"post": operation})
