"""The command `serve`: serve the models of a store over HTTP, and gRPC if asked."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from flask import Flask

from model_store.cli import common
from model_store.cli.common import exit_codes, store_option, verbosity_option, version_option
from model_store.utils.extras import install_command
from service import key_commands
from service.app import create_app, file_faults
from service.config import Settings, SettingsError, unknown_variables
from service.server.gunicorn_app import GrpcListener, GunicornApplication, bind_listeners
from service.telemetry.logging import log_to_stderr

log = logging.getLogger("service")


@click.group(
    cls=common.CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 stopped, 2 invalid settings or address in use, 3 no worker could start, 5 unusable store.",
)
@click.pass_context
@store_option
@click.option("--host", metavar="ADDRESS", help="IP address or host name to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one.  [default: 8000]")
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="Port of the Open Inference Protocol over gRPC; needs the extra grpc.  [default: none]",
)
@click.option("--workers", type=click.IntRange(1, 1024), help="Worker processes.  [default: one per CPU]")
@verbosity_option
@version_option
@exit_codes({SettingsError: 2})
def main(
    context: click.Context,
    store: str,
    host: str | None,
    port: int | None,
    grpc_port: int | None,
    workers: int | None,
) -> None:
    """Serve the models of a store over HTTP.

    New versions and moved aliases take effect without a restart. Other settings are environment variables: see
    docs/operations.md. On SIGTERM and Ctrl-C, requests in progress finish first.
    """
    if context.invoked_subcommand is not None:
        return
    level = "debug" if common.verbosity() > 0 else "warning" if common.verbosity() < 0 else None
    # Until gunicorn sets its handlers: process 1 of a container ignores SIGTERM by default.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = _read_settings(store=store, host=host, port=port, grpc_port=grpc_port, workers=workers, log_level=level)
    log_to_stderr(settings.log_level, settings.log_format)
    for fault in unknown_variables(os.environ):
        log.warning("%s", fault)
    listeners = _bind_listeners(settings.host, settings.port, "--host or --port")
    if settings.admin_port:
        admin = "SERVE_ADMIN_HOST or SERVE_ADMIN_PORT"
        listeners += _bind_listeners(settings.admin_host, settings.admin_port, admin)
    grpc_listeners = _bind_grpc_listeners(settings)
    app = create_app(settings, forks=True)
    bound = [listener.detach() for listener in listeners]
    GunicornApplication(
        app, settings, bound, lambda server: _print_startup(app, settings, server), grpc_listeners
    ).run()


main.add_command(key_commands.add, "keygen")
main.add_command(key_commands.keys)


def _read_settings(**options: Any) -> Settings:
    """Return all settings. SettingsError lists every fault, also of the files that they name."""
    faults: list[str] = []
    try:
        settings = Settings.from_environ(os.environ, **options)
    except SettingsError as e:
        if e.valid is None:
            raise
        settings, faults = e.valid, e.faults
    faults = [*faults, *file_faults(settings), *_tracing_faults(settings), *_grpc_faults(settings)]
    if faults:
        raise SettingsError(faults)
    return settings


def _tracing_faults(settings: Settings) -> list[str]:
    if settings.otlp_endpoint and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        fix = f"{install_command('otel')}, or unset it"
        return [f"OTEL_EXPORTER_OTLP_ENDPOINT: expected the extra otel, found it not installed; {fix}"]
    return []


def _grpc_faults(settings: Settings) -> list[str]:
    if settings.grpc_port and not (_is_installed("grpc") and _is_installed("grpc_health")):
        fix = f"{install_command('grpc')}, or unset it"
        return [f"SERVE_GRPC_PORT: expected the extra grpc, found it not installed; {fix}"]
    return []


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def _bind_grpc_listeners(settings: Settings) -> list[GrpcListener]:
    found = []
    if settings.grpc_port:
        choice = "--host or --grpc-port"
        sockets = _bind_listeners(settings.host, settings.grpc_port, choice, reuse_port=True)
        found.append(GrpcListener(sockets, has_repository=False))
    if settings.grpc_admin_port:
        choice = "SERVE_ADMIN_HOST or SERVE_GRPC_ADMIN_PORT"
        sockets = _bind_listeners(settings.admin_host, settings.grpc_admin_port, choice, reuse_port=True)
        found.append(GrpcListener(sockets, has_repository=True))
    return found


def _bind_listeners(host: str, port: int, choice: str, *, reuse_port: bool = False) -> list[socket.socket]:
    try:
        return bind_listeners(host, port, reuse_port=reuse_port)
    except OSError as e:
        fixes = {
            errno.EADDRINUSE: f"another program uses this port; stop it, or choose another {choice}",
            errno.EACCES: f"ports below 1024 need privileges; choose another {choice}",
            errno.EADDRNOTAVAIL: f"this machine does not have this IP address; choose another {choice}",
        }
        fix = fixes.get(e.errno or 0, f"choose another {choice}")
        common.fail(f"cannot listen on {host}:{port}: {e.strerror or e}; {fix}", 2)


def _print_startup(app: Flask, settings: Settings, server: Any) -> None:
    """Print the models and URLs once the service listens."""
    # A host name may have several addresses: the first is shown.
    admins = [listener for listener in server.LISTENERS if listener.getsockname()[1] == settings.admin_port]
    base, more = _url(server.LISTENERS[0]), [_url(listener) for listener in admins[:1]]
    snapshot = app.extensions["registry"].snapshot
    models: dict[str, list[str]] = {}
    for entry in snapshot.entries.values():
        if entry.default is not None:
            models.setdefault(entry.why_default, []).append(f"{entry.name}/{entry.default.number}")
    if models:
        shown = ", ".join(f"{', '.join(names)} ({why})" for why, names in models.items())
        found = f"Serving {shown} from {settings.store}"
    elif "://" in settings.store:  # only the workers read it: see `create_app`
        found = f"Serving {settings.store}"
    elif snapshot.entries:
        found = f"No model in {settings.store} can be served: requests return 503. See the errors above"
    elif _is_missing(settings.store):
        fix = f"To make it, run: train examples/penguins.toml --store {shlex.quote(settings.store)}"
        found = f"The directory {settings.store} does not exist: requests return 503. {fix}"
    else:
        found = f"No model in {settings.store} yet: requests return 503. To make one, run: train examples/penguins.toml"
    workers = f"{settings.worker_count} worker{'s' * (settings.worker_count > 1)}"
    if settings.log_format == "json":  # every line of the log must be JSON
        log.info("%s at %s, with %s", found, base, workers)
        return
    common.print_note(found)
    common.print_note(f"  predict  {base}/predict")
    if settings.pages:
        common.print_note(f"  pages    {base}/")
    if settings.grpc_port:
        common.print_note(f"  gRPC     {base.removeprefix('http://').rpartition(':')[0]}:{settings.grpc_port}")
    for admin in more:
        common.print_note(f"  metrics  {admin}/metrics{' and ' + admin + '/v2/repository' if settings.admin else ''}")
    common.print_note(f"  {workers}; Ctrl-C to stop")


def _is_missing(directory: str) -> bool:
    try:
        Path(directory).expanduser().stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _url(listener: Any) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
