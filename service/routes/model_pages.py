"""What the page of a model fetches: the comparison of two versions, and the model as JavaScript.

The page itself is at `/models/<name>`, as is the model's metadata in JSON: see models.py.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response

from model_store.errors import ArtifactError, NotFoundError
from model_store.export.base import ExportSource
from model_store.export.javascript.target import TARGET, runtime_module
from model_store.registry.store import Store
from service.http.exceptions import error_at
from service.pages import model_page
from service.pages.recent_texts import RecentTexts
from service.registry.registry import ModelRegistry
from service.routes.page_frame import page_view, render_page, require_pages

_JAVASCRIPT = "text/javascript; charset=utf-8"
_MAX_COMPARISONS, _MAX_COMPARISON_BYTES = 20, 2 << 20  # that are kept; one takes 10 to 60 kB
_MAX_MODULES, _MAX_MODULE_BYTES = 20, 16 << 20  # that are kept; one of 4 MiB of weights takes 5.6 MB


def create_blueprint(registry: ModelRegistry, store: Store) -> Blueprint:
    blueprint = Blueprint("model_pages", __name__)
    compared = RecentTexts(_MAX_COMPARISONS, _MAX_COMPARISON_BYTES)
    exported = RecentTexts(_MAX_MODULES, _MAX_MODULE_BYTES)

    @blueprint.get("/models/<name>/compare")
    @page_view("predict")
    def compare(name: str) -> str:
        require_pages()
        registry.find(name)
        known = registry.snapshot.entries[name].versions
        references = [request.args.get(key, "") for key in ("first", "second")]
        registry.check_may_wait()
        try:
            numbers = [store.resolve(name, reference or None) for reference in references]
            body = comparison_body(name, numbers)
        except NotFoundError as e:
            fix = f"choose two of {', '.join(map(str, known))}"
            raise error_at(404, "unknown_version", "version", "expected a version of this model", fix) from e
        except ArtifactError as e:
            raise error_at(422, "invalid_request", "version", str(e), "choose another version") from e
        return render_page("comparison.html", "overview", script="", name=name, numbers=numbers, body=body)

    def comparison_body(name: str, numbers: list[int]) -> str:
        """Return the comparison of two versions as HTML. If it is kept and both are in memory, no manifest is read."""
        loaded = [served for number in numbers if (served := registry.loaded_version(name, number))]
        digests = [served.digest for served in loaded]
        if len(loaded) == 2 and (known := compared.get((name, *numbers, *digests))) is not None:
            return known
        read = {number: store.manifest(name, number) for number in set(numbers)}
        stored = [read[number][0].digest for number in numbers]
        key = name, *numbers, *stored
        if (body := compared.get(key)) is None:
            first, second = ((f"{name}/{number}", read[number][1]) for number in numbers)
            signatures = (loaded[0].model.signature, loaded[1].model.signature) if digests == stored else None
            comparison = model_page.describe_comparison(first, second, signatures)
            compared.put(key, body := render_template("comparison_body.html", **comparison))
        return body

    @blueprint.get("/models/<name>/versions/<version>/model.js")
    def module(name: str, version: str) -> Response:
        """Return a version as `models export --to javascript` writes it; 304 if the client has this one."""
        require_pages()
        served = registry.find(name, version)
        if not model_page.is_exportable(served.model):
            problem = f"expected weights and texts of at most {model_page.MAX_EXPORT_BYTES} bytes, found more"
            fix = f"export it with models export {name}/{served.number} --to javascript"
            raise error_at(404, "not_found", f"{name}/{served.number}", problem, fix)
        key = served.name, served.number, served.digest
        if (text := exported.get(key)) is None:
            registry.check_may_wait()
            (content,) = TARGET.files(ExportSource(*key, served.model)).values()
            exported.put(key, text := content.decode())
        response = Response(text, content_type=_JAVASCRIPT)
        response.headers["Cache-Control"] = "private, no-cache"
        response.set_etag(served.digest)
        return response.make_conditional(request)

    @blueprint.get("/static/runtime.js")
    def runtime() -> Response:
        require_pages()
        return Response(_runtime(), content_type=_JAVASCRIPT)

    @blueprint.get("/static/charts.css")
    def chart_styles() -> Response:
        require_pages()
        return Response(_chart_styles(), content_type="text/css; charset=utf-8")

    return blueprint


@cache
def _runtime() -> bytes:
    return runtime_module().encode()


@cache
def _chart_styles() -> bytes:
    return files("model_store.report").joinpath("charts.css").read_bytes()
