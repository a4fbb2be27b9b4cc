"""The pages of the article: a model's network at work, and the training of XOR in the browser."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from flask import Blueprint, g, request
from werkzeug.wrappers import Response

from model_store.errors import Fault, InputError
from service.config import Settings
from service.http.model_version import MODEL_VERSION_HEADER
from service.http.request_body import check_json_content_type, parse_json, read_body
from service.http.responses import json_response
from service.pages.activations import describe_activations, read_asked
from service.pages.network import count_members, describe_network
from service.protocols.native import PredictParser, predict_response
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.routes.page_frame import page_view, render_page, require_pages, wants_page
from service.validation.predict_request import not_an_object_error


def create_blueprint(registry: ModelRegistry, parser: PredictParser, settings: Settings) -> Blueprint:
    blueprint = Blueprint("network", __name__)
    # The last description of each version: one of 16 million weights takes a second.
    described: WeakKeyDictionary[LoadedVersion, dict[str, Any]] = WeakKeyDictionary()

    @blueprint.get("/xor")
    @page_view("predict")
    def xor() -> str:
        """Return the page that trains the article's network for XOR, whatever models there are."""
        require_pages()
        return render_page("xor.html", "xor", script="xor/page")

    @blueprint.get("/models/<name>/network")
    @blueprint.get("/models/<name>/versions/<version>/network")
    @page_view("predict")
    def network(name: str, version: str | None = None) -> Response:
        """Return the page of a network to a browser; to others its layers and weights, reduced where they are many."""
        require_pages()
        served = registry.find(name, version)
        model = served.model
        members = count_members(model.network)
        member = _read_member(members)
        headers = {"Vary": "Accept"}
        if not wants_page():
            layers = described.get(served)
            if layers is None or layers["member"] != member:
                described[served] = layers = describe_network(model.network, model.signature, member)
            found = {"model": served.name, "version": served.number, **layers}
            return json_response(found, headers=headers | {MODEL_VERSION_HEADER: str(served.number)})
        page = render_page(
            "network.html",
            "network",
            script="network/page",
            served=served,
            members=members,
            member=member,
            example=None if served.example is None else served.example.instance,
            columns=[column.form_field() for column in model.signature.inputs],
            names=[column.name for column in model.signature.inputs],
        )
        return Response(page, headers=headers, content_type="text/html; charset=utf-8")

    @blueprint.post("/models/<name>/activations")
    @blueprint.post("/models/<name>/versions/<version>/activations")
    def activations(name: str, version: str | None = None) -> Response:
        """Return the output of each layer for one row, with the bits of /predict, and the formula of a neuron."""
        require_pages()
        g.request_record.served = served = registry.find(name, version)
        check_json_content_type(request)
        body = parse_json(read_body(request, settings.max_body_bytes), settings.max_body_bytes)
        if not isinstance(body, dict):
            raise not_an_object_error(body)
        found, faults = parser.find_version(body, name, version)
        model = (found or served).model
        asked = read_asked(body, model.network)
        served, encoded = parser.encode(body, found, faults)
        outputs, described = describe_activations(model.network, model.signature, encoded.inputs, asked)
        response = predict_response(served, model.signature.decode(outputs), encoded.warnings) | described
        return json_response(response, headers={MODEL_VERSION_HEADER: str(served.number)})

    return blueprint


def _read_member(members: int) -> int:
    """Return the network of an ensemble that ?member= asks for, from 0. InputError if there is no such one."""
    text = request.args.get("member", "0")
    if not (text.isdecimal() and text.isascii() and len(text) < 4 and int(text) < members):
        problem = f"expected a whole number from 0 to {members - 1}, found {text[:20]!r}"
        raise InputError([Fault("member", problem, "send ?member=0")])
    return int(text)
