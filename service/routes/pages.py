"""The pages: the OpenAPI document, and a reference that people read, both made from what is served right now."""

from __future__ import annotations

import shlex
from typing import Any

import orjson
from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response

from service import describe
from service.catalog import Catalog, Snapshot
from service.openapi import document
from service.settings import Settings


def routes(catalog: Catalog, settings: Settings) -> Blueprint:
    blueprint = Blueprint("pages", __name__)
    latest: list[tuple[Snapshot, bytes]] = []  # the document of the snapshot that was last asked about

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        snapshot = catalog.snapshot
        if not latest or latest[0][0] is not snapshot:
            latest[:] = [(snapshot, orjson.dumps(document(snapshot)))]
        return Response(latest[0][1], content_type="application/json")

    @blueprint.get("/docs")
    def docs() -> str:
        snapshot = catalog.snapshot
        cards = [describe.card(snapshot.entries[served.name], served) for served in snapshot.answering]
        return render_template(
            "docs.html",
            cards=[_page_card(card, request.host_url) for card in cards],
            problems=snapshot.problems,
            base=request.host_url,
            settings=settings,
        )

    return blueprint


def _page_card(card: dict[str, Any], base: str) -> dict[str, Any]:
    """A card with its example as text: a line for the shell, and the answer to it."""
    example = card["example"]
    row = orjson.dumps({"instances": example["instances"]}).decode()
    address = shlex.quote(f"{base}models/{card['name']}/predict")
    return card | {
        "curl": f"curl {address} -d {shlex.quote(row)}",
        "request": _pretty(example["instances"][0]),
        "answer": _pretty({"model": card["name"], "version": card["version"], "predictions": example["predictions"]}),
        "schema": orjson.dumps(card["inputs"]).decode(),
    }


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
