"""The application: settings in, a Flask application out.

    app = create_app()                                       # settings from the environment
    app = create_app(Settings(store="./models", port=9000))  # as a test would

Models that the store has are loaded before it returns, so that workers forked afterwards share their memory. (The
weights, by far the most of it, are shared by all who map the same copy.)
"""

from __future__ import annotations

import logging
import os
import re
import time
import uuid

from flask import Flask, g, request
from werkzeug.wrappers import Response

from model_store.store import open_store
from service import errors
from service.catalog import Catalog
from service.inference import Inference
from service.metrics import Metrics
from service.routes import health, hosted, models, open_inference, pages, predict, tensorflow_serving
from service.settings import Settings
from service.trust import voucher
from service.wire import add_headers
from service.withdrawals import Withdrawals

access = logging.getLogger("service.access")

_SANE_ID = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")
_QUIET = {
    "health.alive",
    "health.ready",
    "health.exposition",
    "open_inference.health",
}  # asked every few seconds, and nobody reads it


def create_app(settings: Settings | None = None, *, forks: bool = False) -> Flask:
    """`forks`: workers will be forked from this process, and a store that does not survive it is left to them."""
    settings = settings or Settings.from_environ(os.environ)
    metrics = Metrics()
    cache_dir = settings.cache_path(os.environ)
    store = open_store(settings.store, cache_dir)
    catalog = Catalog(
        store,
        cache_dir,
        metrics,
        max_instances=settings.max_instances,
        max_extra_versions=settings.max_extra_versions,
        withdrawn=Withdrawals(cache_dir / f"unloaded-{os.getpid()}") if settings.admin else None,
        vouch=voucher(settings.trusted_keys, store),
    )
    if store.objects.survives_fork or not forks:
        catalog.refresh()
    inference = Inference(metrics)

    app = Flask(__name__)
    app.url_map.strict_slashes = False
    app.url_map.converters["noun"] = tensorflow_serving.Noun
    app.extensions["catalog"] = catalog
    app.extensions["metrics"] = metrics
    errors.register(app)
    predictor = predict.Predictor(catalog, inference, settings)
    app.register_blueprint(predict.routes(predictor))
    app.register_blueprint(hosted.routes(catalog, predictor, settings))
    app.register_blueprint(tensorflow_serving.routes(catalog, inference, settings))
    app.register_blueprint(open_inference.routes(catalog, inference, metrics, settings))
    app.register_blueprint(models.routes(catalog))
    app.register_blueprint(health.routes(catalog, metrics))
    app.register_blueprint(pages.routes(catalog, settings))

    @app.before_request
    def begin() -> None:
        g.started = time.perf_counter()
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        g.served = g.error_code = None
        g.rows = 0
        metrics.in_progress.inc()
        catalog.follow(settings.poll_seconds)  # a thread does not survive the fork that made this worker

    @app.after_request
    def end(response: Response) -> Response:
        add_headers(response, g.request_id)
        _count(metrics, response.status_code)
        return response

    return app


def _count(metrics: Metrics, status: int) -> None:
    """Metrics and the access log: one line a request, with the id that the caller was given."""
    seconds = time.perf_counter() - g.started
    metrics.in_progress.dec()
    served = g.served
    model, version = (served.name, str(served.number)) if served else ("", "")
    rule = request.url_rule.rule if request.url_rule else "none"
    metrics.requests.labels(rule, model, version, status).inc()
    if request.endpoint not in _QUIET:
        metrics.seconds.labels(rule, model).observe(seconds)
    if g.error_code:
        metrics.errors.labels(g.error_code).inc()
    level = logging.DEBUG if request.endpoint in _QUIET and status < 400 else logging.INFO
    if access.isEnabledFor(level):
        answer = f" {model}/{version} rows={g.rows}" if served else ""
        fault = f" error={g.error_code}" if g.error_code else ""
        access.log(
            level,
            "%s %s %d %.1fms%s%s id=%s from=%s",
            request.method,
            request.full_path.rstrip("?").encode("unicode_escape").decode(),
            status,
            1000 * seconds,
            answer,
            fault,
            g.request_id,
            request.remote_addr,
        )
