"""The pages of the article: a model's network at work, and the training of XOR in the browser."""

from __future__ import annotations

from flask import Blueprint

from service.routes.page_frame import page_view, render_page, require_pages


def create_blueprint() -> Blueprint:
    blueprint = Blueprint("network", __name__)

    @blueprint.get("/xor")
    @page_view("predict")
    def xor() -> str:
        """Return the page that trains the article's network for XOR, whatever models there are."""
        require_pages()
        return render_page("xor.html", "xor", script="xor_page")

    return blueprint
