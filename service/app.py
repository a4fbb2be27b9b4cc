"""Build the Flask application from the settings.

    app = create_app()                                       # settings from the environment
    app = create_app(Settings(store="./models", port=9000))  # in a test

The models of the store are loaded before it returns, so that workers forked later share their memory. (The weights, by
far the largest part, are shared by every process that maps the same copy.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, g, request
from werkzeug.wrappers import Response

from model_store.registry.store import open_store
from model_store.storage.artifact_cache import check_cache, store_cache_dir
from model_store.utils.printable import printable
from service.config import Settings, SettingsError
from service.http.compression import PageCompressor
from service.http.cross_origin import CrossOrigin, Headers
from service.http.cross_site import check_no_foreign_page
from service.http.request_head import ForwardedPrefix, HostPolicy, check_host, drop_invalid_dates
from service.http.responses import add_response_headers
from service.inference.drift import DriftMonitor
from service.inference.runner import InferenceRunner
from service.pages.traffic_monitor import TrafficMonitor
from service.protocols.native import PredictParser
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.registry.shared_names import SharedNames
from service.registry.signature_policy import read_trusted_keys, signature_check
from service.registry.switch_barrier import SwitchBarrier
from service.routes import (
    aliases,
    docs,
    error_handlers,
    health,
    model_pages,
    models,
    network,
    open_inference,
    pages,
    predict,
    sagemaker_vertex,
    tensorflow_serving,
)
from service.security.access_control import AccessControl
from service.security.api_keys import ApiKeys, KeyFileError
from service.server.fast_path import FastPath
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecorder
from service.validation.row_limits import RowLimits

if TYPE_CHECKING:
    from service.grpc.server import GrpcServer

# The blueprints of pages and of what their scripts ask for, without predictions.
_COMPRESSED = frozenset({"pages", "models", "model_pages", "network", "docs"})


def create_app(settings: Settings | None = None, *, forks: bool = False) -> Flask:
    """`forks`: workers will be forked from this process.

    Then they switch versions together, and a store whose connections do not survive a fork is read only by them.
    """
    settings = settings or Settings.from_environ(os.environ)
    metrics = _open_metrics(settings)
    recorder = RequestRecorder(metrics, settings.health_route)
    store = open_store(settings.store, settings.cache_path(os.environ))
    cache_dir = store_cache_dir(settings.cache_path(os.environ), store.storage.location)
    check_cache(cache_dir, store.storage.location)
    keys = _read_keys(settings)
    access = AccessControl(keys, settings.admin_port)
    cross_origin = CrossOrigin(settings.cors_origins)
    hosts = HostPolicy(settings.trusted_hosts)
    registry = ModelRegistry(
        store,
        cache_dir,
        metrics,
        row_limits=RowLimits(
            settings.max_instances,
            settings.max_output_values,
            settings.max_operations,
            settings.max_text_characters,
            settings.max_cells,
            settings.max_image_pixels,
            settings.max_explained_rows,
        ),
        max_extra_versions=settings.max_extra_versions,
        follow=settings.follow,
        unloaded_models=SharedNames(metrics.counters.directory / "unloaded") if settings.admin else None,
        checked_digests=SharedNames(metrics.counters.directory / "checked"),
        check_signature=signature_check(settings.trusted_keys, store),
        barrier=SwitchBarrier(shared=forks),
    )
    if store.storage.fork_safe or not forks:
        registry.refresh()

    def is_pinned(served: LoadedVersion) -> bool:
        return registry.snapshot.is_pinned(served)

    drift = DriftMonitor(metrics.counters, is_pinned)
    for served in registry.snapshot.default_versions:
        drift.window(served)  # before the first request, which would wait for it
    inference = InferenceRunner(metrics, drift)
    monitor = TrafficMonitor(metrics.counters, recorder, lambda: registry.snapshot if registry.has_joined else None)

    def served_at(path: str, authorization: str | None) -> LoadedVersion | None:
        return registry.version_at(path) if keys.has_scope(authorization, "predict") else None

    recorder.served_at = served_at
    app = Flask(__name__, static_folder="static" if settings.pages else None)
    app.jinja_options = {"finalize": _printable_on_page}
    app.wsgi_app = ForwardedPrefix(app.wsgi_app, settings.forwarded_allow_ips)  # type: ignore[method-assign]
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # else // in a path is redirected, by a page of HTML
    app.url_map.converters["segment"] = tensorflow_serving.SegmentConverter
    app.extensions["registry"] = registry
    app.extensions["keys"] = keys
    app.extensions["access"] = access
    app.extensions["settings"] = settings
    app.extensions["recorder"] = recorder
    app.extensions["traffic_monitor"] = monitor
    app.extensions["cross_origin"] = cross_origin
    app.extensions["hosts"] = hosts
    error_handlers.register(app)
    parser = PredictParser(registry)
    predictor = predict.Predictor(registry, parser, inference, settings)
    app.extensions["fast_path"] = partial(
        FastPath, registry, parser, inference, recorder, access, cross_origin, hosts, settings
    )
    app.extensions["grpc_server"] = partial(_grpc_server, registry, inference, recorder, access, settings)
    # First: its configurable routes may equal one of ours.
    app.register_blueprint(sagemaker_vertex.create_blueprint(registry, predictor, settings))
    app.register_blueprint(predict.create_blueprint(predictor))
    app.register_blueprint(tensorflow_serving.create_blueprint(registry, inference, settings))
    app.register_blueprint(open_inference.create_blueprint(registry, inference, metrics, settings))
    app.register_blueprint(models.create_blueprint(registry, settings, access))
    app.register_blueprint(model_pages.create_blueprint(registry, store))
    app.register_blueprint(aliases.create_blueprint(registry, store, settings))
    app.register_blueprint(health.create_blueprint(registry, metrics, drift, keys, hosts))
    app.register_blueprint(pages.create_blueprint(registry, store, metrics, drift, monitor, settings))
    app.register_blueprint(network.create_blueprint(registry, parser, settings))
    app.register_blueprint(docs.create_blueprint(registry, settings))

    compressor = PageCompressor()

    @app.before_request
    def start_request() -> Response | None:
        environ = request.environ
        drop_invalid_dates(environ)
        g.request_record = recorder.begin(
            request.method,
            environ.get("RAW_URI") or request.full_path.rstrip("?"),
            request_id=environ.get("HTTP_X_REQUEST_ID", ""),
            traceparent=environ.get("HTTP_TRACEPARENT", ""),
            tracestate=environ.get("HTTP_TRACESTATE", ""),
            client=request.remote_addr or "",
            arrived_at=environ.get("forward_pass.arrived_at", 0.0),
        )
        registry.start_sync(settings.poll_seconds)  # here, as threads do not survive the fork of a worker
        if is_for_pages() and (headers := preflight_headers()):  # without a key: browsers send none
            return Response(status=204, headers=headers)
        authorization = environ.get("HTTP_AUTHORIZATION")
        g.request_record.key_name = access.check(request.endpoint or "", authorization, environ["SERVER_PORT"])
        check_host(environ.get("HTTP_HOST"), environ["SERVER_PROTOCOL"])
        if not access.is_public(request.endpoint or ""):  # probes send an IP address
            hosts.check(environ.get("HTTP_HOST"))
        if access.required_scope(request.endpoint or "") == "admin":
            check_no_foreign_page(environ)
        return None

    def is_for_pages() -> bool:
        """True if pages of other origins may use the endpoint, unlike metrics and the repository."""
        return access.required_scope(request.endpoint or "") == "predict"

    def preflight_headers() -> Headers:
        asked = request.headers.get("Access-Control-Request-Method")
        return cross_origin.preflight_headers(request.method, request.headers.get("Origin"), asked)

    @app.after_request
    def finish_request(response: Response) -> Response:
        if request.endpoint == "static" or request.blueprint in _COMPRESSED:
            compressor.compress(request, response)
        add_response_headers(response)
        if is_for_pages():
            response.headers.extend(cross_origin.headers(request.headers.get("Origin")))
        response.headers.extend(recorder.response_headers(g.request_record))
        asked = request.environ.get("forward_pass.request")
        if asked is not None and asked.abandoned:
            recorder.discard()
        else:
            route = request.url_rule.rule if request.url_rule else "none"
            recorder.finish(g.request_record, route=route, status=response.status_code)
        return response

    return app


def _grpc_server(
    registry: ModelRegistry,
    inference: InferenceRunner,
    recorder: RequestRecorder,
    access: AccessControl,
    settings: Settings,
    listeners: Iterable[tuple[bool, Sequence[str]]],
    is_alive: Callable[[], bool],
) -> GrpcServer:
    """Return the gRPC server of a worker. `listeners`: whether each has the repository calls, and its addresses."""
    from service.grpc.calls import GrpcService  # noqa: PLC0415 - the extra grpc, which does not survive a fork
    from service.grpc.server import GrpcServer  # noqa: PLC0415

    services = [
        (GrpcService(registry, inference, recorder, access, settings, has_repository=has_repository), addresses)
        for has_repository, addresses in listeners
    ]
    return GrpcServer(services, settings, is_alive)


def file_faults(settings: Settings) -> list[str]:
    """Return all faults of the files and directories that the settings name, before one of them stops the start."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: _read_keys(settings),
        lambda: read_trusted_keys(settings.trusted_keys),
        lambda: settings.cache_path(os.environ),
    )
    faults: list[str] = []
    for check in checks:
        try:
            check()
        except SettingsError as e:
            faults += e.faults
    return faults


def _printable_on_page(value: Any) -> Any:
    return printable(value, keep="\n\t") if type(value) is str else value


def _open_metrics(settings: Settings) -> Metrics:
    try:
        if settings.metrics_dir:
            Path(settings.metrics_dir).mkdir(parents=True, exist_ok=True)
        return Metrics(settings.metrics_dir)
    except OSError as e:
        fault = f"PROMETHEUS_MULTIPROC_DIR: expected a writable directory, found {settings.metrics_dir!r}: {e.strerror}"
        raise SettingsError([fault]) from e


def _read_keys(settings: Settings) -> ApiKeys:
    """Read SERVE_KEYS_FILE. SettingsError lists every fault in it."""
    try:
        return ApiKeys(Path(settings.keys_file) if settings.keys_file else None)
    except KeyFileError as e:
        raise SettingsError([f"SERVE_KEYS_FILE: {fault}" for fault in e.faults]) from e
