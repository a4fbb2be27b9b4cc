"""The aliases of a model: where they point and how they moved, and with the scope `admin` their moves.

    GET  /models/penguins/aliases
    POST /models/penguins/aliases/default             {"version": 3, "why": "better", "gates": ["accuracy>=default"]}
    POST /models/penguins/aliases/default/rollback    {"why": "confuses Chinstraps"}
    POST /models/penguins/aliases/default/protection  {"protected": true, "why": "moves only by a gate"}

Each move is a revision in the store's alias log, as one by the command `models` is, in the name of the API key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, g, request
from marshmallow import Schema, ValidationError, fields, validate
from werkzeug.wrappers import Response

from model_store.errors import ConflictError, Fault, InputError, NotFoundError, StoreError
from model_store.registry import promotion
from model_store.registry.alias_log import DEFAULT_ALIAS, AliasRevision, rollback_stack
from model_store.registry.index import check_name
from model_store.registry.store import Store
from service.config import Settings
from service.http.exceptions import ApiError, error_at
from service.http.request_body import read_json
from service.http.responses import json_response
from service.registry.errors import UnknownModelError
from service.registry.registry import ModelRegistry

MAX_SHOWN_MOVES = 50  # of each alias
_MAX_BODY_BYTES = 16_384
_RECENT_SECONDS, _MAX_RECENT = 1.0, 100
_WITHOUT_KEY = "service, without an API key"  # `who` of a move where no keys are required


class _ReasonSchema(Schema):
    why = fields.String(required=True, validate=validate.Length(1, 1000))
    force = fields.Raw(load_default=False, validate=validate.OneOf([True, False], error="expected true or false"))


class _MoveSchema(_ReasonSchema):
    version = fields.Raw(required=True)
    gates = fields.List(
        fields.String(validate=validate.Length(1, 200)), load_default=[], validate=validate.Length(0, 20)
    )
    expected = fields.Integer(strict=True, allow_none=True)


class _ProtectionSchema(_ReasonSchema):
    class Meta:
        exclude = ("force",)

    protected = fields.Raw(required=True, validate=validate.OneOf([True, False], error="expected true or false"))


def create_blueprint(registry: ModelRegistry, store: Store, settings: Settings) -> Blueprint:
    blueprint = Blueprint("aliases", __name__)
    recent: dict[str, tuple[float, dict[str, Any]]] = {}  # reads the store at most every `_RECENT_SECONDS` for a model

    @blueprint.get("/models/<name>/aliases")
    def history(name: str) -> Response:
        registry.find_entry(name)  # the store would list all its models for an unknown one
        read_at, found = recent.get(name, (-_RECENT_SECONDS, {}))
        if time.monotonic() - read_at > _RECENT_SECONDS:
            registry.check_may_wait()
            with _store_errors():
                try:
                    found = _describe(store, name)
                except NotFoundError as e:  # removed after the last sync; the text of `e` has the store's path
                    raise UnknownModelError(
                        "model", name, [known for known in registry.snapshot.entries if known != name]
                    ) from e
            if len(recent) >= _MAX_RECENT:
                recent.clear()
            recent[name] = time.monotonic(), found
        return json_response(found)

    @blueprint.post("/models/<name>/aliases/<alias>")
    def move(name: str, alias: str) -> Response:
        def make(body: Mapping[str, Any], who: str, when: datetime) -> AliasRevision:
            version = body["version"]
            if type(version) not in (int, str):
                problem, fix = "expected a version number or an alias, found another value", 'send {"version": 3}'
                raise InputError([Fault("version", problem, fix)])
            if not body["gates"]:
                expected = {"expected": body["expected"]} if "expected" in body else {}
                return store.set_alias(
                    name, alias, version, who=who, why=body["why"], when=when, force=body["force"], **expected
                )
            gates = [promotion.parse_gate(text) for text in body["gates"]]
            revision, results = promotion.promote(
                store, name, version, alias, gates, who=who, why=body["why"], when=when
            )
            if revision is None:
                failed = [
                    Fault("gates", str(result), "choose another version") for result in results if not result.passed
                ]
                raise ApiError(409, "gate_failed", f"{name}/{alias} was not moved: {failed[0].problem}", failed)
            return revision

        return change(name, alias, _MoveSchema(), make)

    @blueprint.post("/models/<name>/aliases/<alias>/rollback")
    def rollback(name: str, alias: str) -> Response:
        def make(body: Mapping[str, Any], who: str, when: datetime) -> AliasRevision:
            return store.rollback(name, alias, who=who, why=body["why"], when=when, force=body["force"])

        return change(name, alias, _ReasonSchema(), make)

    @blueprint.post("/models/<name>/aliases/<alias>/protection")
    def protect(name: str, alias: str) -> Response:
        def make(body: Mapping[str, Any], who: str, when: datetime) -> AliasRevision:
            return store.protect(name, alias, protected=body["protected"], who=who, why=body["why"], when=when)

        return change(name, alias, _ProtectionSchema(), make)

    def change(
        name: str, alias: str, schema: Schema, make: Callable[[Mapping[str, Any], str, datetime], AliasRevision]
    ) -> Response:
        """Make a move from the body of the request, and return it with the aliases after it."""
        if not settings.admin:
            fix = "set SERVE_ADMIN=true to enable moves on SERVE_ADMIN_PORT"
            raise error_at(404, "not_found", "URL", "moves of aliases are disabled", fix)
        registry.check_may_wait()
        body = _parse(schema, read_json(request, min(settings.max_body_bytes, _MAX_BODY_BYTES)))
        with _store_errors(alias):
            revision = make(body, g.request_record.key_name or _WITHOUT_KEY, datetime.now(UTC))
            registry.request_sync()
            recent.pop(name, None)
            return json_response({"move": _revision(revision), **_describe(store, name)})

    return blueprint


def _parse(schema: Schema, body: Any) -> Mapping[str, Any]:
    try:
        parsed: Mapping[str, Any] = schema.load(body)
    except ValidationError as e:
        found = e.messages_dict
        keys = ", ".join(schema.fields)
        raise InputError(
            [
                Fault(str(key).replace("_schema", "body"), _first_text(texts), f"the keys are {keys}")
                for key, texts in found.items()
            ]
        ) from e
    return parsed


def _first_text(messages: Any) -> str:
    """Return the first message of marshmallow's, which nests those of lists."""
    while isinstance(messages, dict | list):
        messages = next(iter(messages.values() if isinstance(messages, dict) else messages))
    return str(messages)


def _describe(store: Store, name: str) -> dict[str, Any]:
    """Return the versions of a model, its aliases, and their newest moves, the last one first."""
    versions, moves = store.versions(name), store.recent_moves(name, MAX_SHOWN_MOVES)
    known = frozenset(versions)
    if DEFAULT_ALIAS not in moves:  # requests without a version get the newest one, and a rollback leaves it
        moves = {DEFAULT_ALIAS: [], **moves}
    return {
        "model": name,
        "versions": versions,
        "aliases": {
            alias: {
                "version": history[-1].version if history else versions[-1],
                "is_set": bool(history),
                "protected": bool(history) and history[-1].protected,
                "rollback_to": _rollback_to(history, versions, known),
                "history": [_revision(revision) for revision in reversed(history)],
            }
            for alias, history in moves.items()
        },
    }


def _rollback_to(history: list[AliasRevision], versions: list[int], known: frozenset[int]) -> int | None:
    """Return the version that a rollback leads to, None if there is none, or it depends on moves that are not read."""
    if len(history) >= MAX_SHOWN_MOVES:
        return None
    _, *before = reversed(rollback_stack(history, versions))
    return next((number for number in before if number in known), None)


def _revision(revision: AliasRevision) -> dict[str, Any]:
    return {**vars(revision), "when": revision.when.astimezone(UTC).isoformat()}


@contextmanager
def _store_errors(alias: str | None = None) -> Iterator[None]:
    """Raise the errors of a store as ApiError: 404, 409, 422 for an invalid name of an alias, else 503."""
    try:
        if alias is not None:
            try:
                check_name("alias", alias)
            except StoreError as e:
                raise InputError([Fault("alias", str(e), "choose another name")]) from e
        yield
    except UnknownModelError:
        raise
    except NotFoundError as e:
        raise ApiError(404, "not_found", str(e), [Fault("URL", str(e), "GET /models lists the models")]) from e
    except ConflictError as e:
        fix = "look at the aliases again, or send force"
        raise ApiError(409, "conflict", str(e), [Fault("alias", str(e), fix)]) from e
    except StoreError as e:
        fault = Fault("store", str(e), "see the service's log and docs/operations.md")
        raise ApiError(503, "store_unavailable", str(e), [fault], {"Retry-After": "5"}) from e
