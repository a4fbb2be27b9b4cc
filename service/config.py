"""The settings of the service, read from environment variables into one frozen dataclass.

    settings = Settings.from_environ(os.environ)

Every field has its variable and description; docs/operations.md has the same table.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from model_store.storage.artifact_cache import default_cache_dir

WORKER_TYPES = ("event", "gthread")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
FOLLOW_RULES = ("default", "newest")
_MAX_FRAMING_BYTES = 2**20  # of a request beside its body: the head, and what is read at once of the chunks
_PREFIX = "SERVE_"
_ORIGIN = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_BOOLEANS = {
    word: on for on, words in ((True, "true yes on 1 t y"), (False, "false no off 0 f n")) for word in words.split()
}


class SettingsError(Exception):
    """Invalid settings. `faults` has one message for each, so that all can be fixed at once.

    `valid`, if known: the settings with the default of each invalid one.
    """

    def __init__(self, faults: list[str], valid: Settings | None = None) -> None:
        self.faults, self.valid = faults, valid
        super().__init__("\n  ".join(faults if len(faults) == 1 else [f"{len(faults)} invalid settings", *faults]))


def _setting(
    variable: str,
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] = (),
    check: Callable[[str], None] = lambda _: None,
) -> Any:
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices, "check": check}
    return field(default=default, metadata={"variable": variable, "description": description, **limits})


def _check_proxies(text: str) -> None:
    """Check the value as gunicorn will, whose error does not name the variable."""
    for proxy in filter(None, text.split(",")):
        try:
            if proxy.strip() != "*":
                ipaddress.ip_network(proxy.strip())
        except ValueError:
            found = proxy.strip()
            raise ValueError(f"expected comma-separated IP addresses or networks; found {found!r}") from None


def _check_origins(text: str) -> None:
    for origin in filter(None, (origin.strip() for origin in text.split(","))):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            expected = "comma-separated origins such as https://shop.example, without a path, or *"
            raise ValueError(f"expected {expected}; found {origin!r}")


def _check_hosts(text: str) -> None:
    for host in filter(None, (host.strip() for host in text.split(","))):
        if not _HOST.fullmatch(host):
            expected = "comma-separated hosts such as ml.example.com or localhost:8001, without a scheme or path"
            raise ValueError(f"expected {expected}; found {host!r}")


def _check_path(text: str) -> None:
    if not re.fullmatch(r"/[^\s<>?#]*", text):
        raise ValueError(f"expected a URL path such as /route; found {text!r}")


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs this process may use.

    A container's limit is a share of CPU time, set in its cgroup: it may see 64 CPUs and have the time of two.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroup v2, v1
        with suppress(OSError, ValueError):  # no such file, or "max": no limit
            quota, period = (int(number) for file in files for number in (cgroup / file).read_text().split())
            return min(allowed, math.ceil(quota / period)) if quota > 0 else allowed
    return allowed


@dataclass(frozen=True)
class Settings:
    """All settings. docs/operations.md documents them."""

    store: str = _setting("MODEL_STORE", "./models", "Path or URL of the model store.")
    host: str = _setting(
        "SERVE_HOST",
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 is all interfaces, localhost 127.0.0.1 and ::1.",
    )
    port: int = _setting("SERVE_PORT", 8000, "Port to listen on; 0 picks a free one.", minimum=0, maximum=65535)
    workers: int = _setting(
        "SERVE_WORKERS",
        0,
        "Worker processes; 0 means one per CPU, within the container's CPU limit.",
        minimum=0,
        maximum=1024,
    )
    worker_type: str = _setting(
        "SERVE_WORKER",
        "event",
        "event (one event loop for all connections) or gthread (gunicorn's threads).",
        choices=WORKER_TYPES,
    )
    threads: int = _setting(
        "SERVE_THREADS", 4, "Threads of a gthread worker, and so its concurrent requests.", minimum=1, maximum=1024
    )
    max_body_bytes: int = _setting(
        "SERVE_MAX_BODY_BYTES",
        8 * 2**20,
        "Largest request body; JSON, CSV and binary tensors of texts may hold at most one value per 16 bytes of this "
        "limit, columns of text one character per 4 bytes, PNG and JPEG files two pixels per byte, and the rows of any "
        "request one cell per 8 bytes, which counts also if it is left out.",
        minimum=1,
    )
    max_input_bytes: int = _setting(
        "SERVE_MAX_INPUT_BYTES",
        0,
        "Most input of a worker that waits for a response; 0 means four of the largest bodies, at least 32 MiB. A "
        "body's size and 1 MiB always fit.",
        minimum=0,
    )
    max_instances: int = _setting("SERVE_MAX_INSTANCES", 10_000, "Maximum rows per request, of any model.", minimum=1)
    max_output_values: int = _setting(
        "SERVE_MAX_OUTPUT_VALUES",
        2**20,
        "Most values in a response: its rows times the model's outputs, or times `top_k` + 1; with a receipt, a value "
        "counts as four.",
        minimum=1,
    )
    max_operations: int = _setting(
        "SERVE_MAX_OPERATIONS",
        2**34,
        "Most operations of a request, about the multiply-adds of its rows in the network.",
        minimum=1,
    )
    max_explained_rows: int = _setting(
        "SERVE_MAX_EXPLAINED_ROWS",
        100,
        "Most rows of a request whose answers are explained, of any model. SERVE_MAX_OPERATIONS allows fewer of a "
        "costly one. 0 turns explanations off.",
        minimum=0,
    )
    max_extra_versions: int = _setting(
        "SERVE_MAX_EXTRA_VERSIONS", 4, "Versions kept in memory in addition to the default and aliased ones.", minimum=1
    )
    follow: str = _setting(
        "SERVE_FOLLOW",
        "default",
        "Version for requests that name none: default (that of the alias default; the newest until it is set) or "
        "newest (always the newest).",
        choices=FOLLOW_RULES,
    )
    poll_seconds: float = _setting(
        "SERVE_POLL_SECONDS",
        1.0,
        "How often the store is checked for new versions, less often if that takes a CPU more than 5 % of the "
        "time, but at least every minute; 0 means never.",
        minimum=0,
        maximum=86400,
    )
    timeout_seconds: int = _setting(
        "SERVE_TIMEOUT_SECONDS",
        30,
        "A worker that does not respond for this long is restarted.",
        minimum=1,
        maximum=86400,
    )
    drain_seconds: int = _setting(
        "SERVE_DRAIN_SECONDS",
        25,
        "Time for requests in progress to finish when the service stops.",
        minimum=0,
        maximum=86400,
    )
    keepalive_seconds: int = _setting(
        "SERVE_KEEPALIVE_SECONDS", 75, "How long an idle connection stays open.", minimum=0, maximum=86400
    )
    forwarded_allow_ips: str = _setting(
        "SERVE_FORWARDED_ALLOW_IPS",
        "127.0.0.1,::1",
        "Proxies whose X-Forwarded-Proto and X-Forwarded-Prefix headers are trusted.",
        check=_check_proxies,
    )
    cors_origins: str = _setting(
        "SERVE_CORS_ORIGINS",
        "",
        "Comma-separated origins whose pages may call the service from a browser, or * for all; if empty, none.",
        check=_check_origins,
    )
    trusted_hosts: str = _setting(
        "SERVE_TRUSTED_HOSTS",
        "",
        "Comma-separated Host headers to accept, without a port for any port; if empty, all. Health checks accept all.",
        check=_check_hosts,
    )
    cache_dir: str = _setting(
        "SERVE_CACHE_DIR", "", "Directory for verified copies of artifacts; if empty, the user's cache."
    )
    keys_file: str = _setting(
        "SERVE_KEYS_FILE", "", "File of API keys, made by `serve keygen`; if empty, no API key is required."
    )
    admin: bool = _setting(
        "SERVE_ADMIN", False, "Allow callers to load and unload models, and to move aliases; requires SERVE_ADMIN_PORT."
    )
    admin_host: str = _setting("SERVE_ADMIN_HOST", "127.0.0.1", "Address of the admin listener, as SERVE_HOST.")
    admin_port: int = _setting(
        "SERVE_ADMIN_PORT",
        0,
        "Port of the admin listener; if set, only this port serves /metrics, /traffic, /v2/repository and alias moves.",
        minimum=0,
        maximum=65535,
    )
    grpc_port: int = _setting(
        "SERVE_GRPC_PORT",
        0,
        "Port of the Open Inference Protocol over gRPC, on SERVE_HOST; 0 means none. Requires the extra grpc.",
        minimum=0,
        maximum=65535,
    )
    grpc_admin_port: int = _setting(
        "SERVE_GRPC_ADMIN_PORT",
        0,
        "Port of a second gRPC listener, on SERVE_ADMIN_HOST, with the repository calls; requires SERVE_ADMIN.",
        minimum=0,
        maximum=65535,
    )
    trusted_keys: str = _setting(
        "SERVE_TRUSTED_KEYS",
        "",
        "Comma-separated public key files; if set, only versions signed by one of them are served.",
    )
    health_route: str = _setting(
        "AIP_HEALTH_ROUTE", "", "Additional route for `/ping`; Vertex AI sets it.", check=_check_path
    )
    predict_route: str = _setting(
        "AIP_PREDICT_ROUTE", "", "Additional route for `/invocations`; Vertex AI sets it.", check=_check_path
    )
    otlp_endpoint: str = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "Where spans are sent, by OTLP over HTTP: http://collector:4318. Requires the extra otel.",
    )
    metrics_dir: str = _setting(
        "PROMETHEUS_MULTIPROC_DIR", "", "Parent directory of the metrics' counter files; if empty, in memory."
    )
    pages: bool = _setting("SERVE_PAGES", True, "HTML pages for browsers: models, traffic, reports, API reference.")
    log_level: str = _setting("SERVE_LOG_LEVEL", "info", f"One of {', '.join(LOG_LEVELS)}.", choices=LOG_LEVELS)
    log_format: str = _setting(
        "SERVE_LOG_FORMAT", "text", "text, or json for one object per line.", choices=LOG_FORMATS
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], **overrides: Any) -> Settings:
        """Read all settings; `overrides` that are not None take precedence. SettingsError lists every invalid one."""
        environ = {**environ, **_platform_defaults(environ)}
        values: dict[str, Any] = {}
        faults = []
        for setting in fields(cls):
            variable = setting.metadata["variable"]
            text = environ.get(variable, "")
            try:
                values[setting.name] = _parse(setting, text) if text.strip() else setting.default
            except ValueError as e:
                faults.append(f"{variable}: {e}")
        values.update({name: value for name, value in overrides.items() if value is not None})
        if values.get("admin") and values.get("admin_port") == 0:
            faults.append("SERVE_ADMIN: expected an admin listener, found none; set SERVE_ADMIN_PORT")
        if values.get("port") and values["port"] == values.get("admin_port"):
            # Requests are distinguished by their port: with one port, anyone could use the admin endpoints.
            faults.append(f"SERVE_ADMIN_PORT: expected another port than SERVE_PORT, found {values['port']} for both")
        faults += _grpc_faults(values)
        if 0 < values.get("max_input_bytes", 0) < values.get("max_body_bytes", 0):
            least = f"at least SERVE_MAX_BODY_BYTES ({values['max_body_bytes']})"
            faults.append(f"SERVE_MAX_INPUT_BYTES: expected {least}, found {values['max_input_bytes']}")
        settings = cls(**values)
        if faults:
            raise SettingsError(faults, settings)
        return settings

    @property
    def worker_count(self) -> int:
        return self.workers or available_cpus()

    @property
    def max_text_characters(self) -> int:
        """The most characters in columns of text of a request: each is hashed."""
        return max(1, self.max_body_bytes // 4)

    @property
    def max_image_pixels(self) -> int:
        """The most pixels of the PNG and JPEG files of a request, before they are resized."""
        return max(1, 2 * self.max_body_bytes)

    @property
    def max_cells(self) -> int:
        """The most cells of a request, its rows times the model's columns: as many as FP64 numbers fill a body."""
        return max(1, self.max_body_bytes // 8)

    @property
    def input_limit(self) -> int:
        """The most input that may wait. The largest body fits, also one byte more: that is 413, not 503."""
        limit = self.max_input_bytes or max(32 * 2**20, 4 * self.max_body_bytes)
        return max(limit, self.max_body_bytes + _MAX_FRAMING_BYTES)

    def cache_path(self, environ: Mapping[str, str]) -> Path:
        """Return SERVE_CACHE_DIR, or the user's cache directory if it is empty."""
        if self.cache_dir:
            return Path(self.cache_dir)
        try:
            return default_cache_dir(environ)
        except FileNotFoundError as e:  # a read-only root without /tmp
            fault = "SERVE_CACHE_DIR: expected a writable directory, found none; set it, or mount a writable /tmp"
            raise SettingsError([fault]) from e


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable that begins with SERVE_ and is not a setting."""
    variables = [setting.metadata["variable"] for setting in fields(Settings)]
    ours, given = (
        [variable.removeprefix(_PREFIX) for variable in each if variable.startswith(_PREFIX)]
        for each in (variables, environ)
    )
    faults = []
    for name in sorted(set(given) - set(ours)):
        close = difflib.get_close_matches(name, ours, 1)
        fix = f"; did you mean {_PREFIX}{close[0]}?" if close else ""
        faults.append(f"unknown setting {_PREFIX}{name} is ignored{fix}")
    return faults


def _grpc_faults(values: Mapping[str, Any]) -> list[str]:
    faults = []
    if values.get("grpc_admin_port") and not values.get("admin"):
        faults.append("SERVE_GRPC_ADMIN_PORT: expected SERVE_ADMIN=true, found false; set it, or unset this port")
    if values.get("grpc_admin_port") and not values.get("grpc_port"):
        faults.append("SERVE_GRPC_ADMIN_PORT: expected SERVE_GRPC_PORT, found none; set it, or unset this port")
    names = {"port": "SERVE_PORT", "admin_port": "SERVE_ADMIN_PORT", "grpc_port": "SERVE_GRPC_PORT"}
    for name, variable in (("grpc_port", "SERVE_GRPC_PORT"), ("grpc_admin_port", "SERVE_GRPC_ADMIN_PORT")):
        taken = [names[other] for other in names if other != name and values.get(other) == values.get(name)]
        if values.get(name) and taken:
            faults.append(f"{variable}: expected another port than {taken[0]}, found {values[name]} for both")
    return faults


def _platform_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """Return settings for Vertex AI and SageMaker, which set the port in a variable and connect from outside."""
    port = environ.get("AIP_HTTP_PORT") or environ.get("SAGEMAKER_BIND_TO_PORT")
    return {"SERVE_HOST": "0.0.0.0", "SERVE_PORT": port} if port else {}


def _parse(setting: Any, text: str) -> Any:
    """Return the value that a variable's text stands for. ValueError with what was expected and found."""
    limits, kind = setting.metadata, type(setting.default)
    if limits["choices"]:
        return _choice(text, limits["choices"])
    if kind is bool:
        return _boolean(text)
    if kind is str:
        limits["check"](text)
        return text
    return _number(text, kind, limits["minimum"], limits["maximum"])


def _number(text: str, kind: Any, minimum: float, maximum: float | None) -> float:
    try:
        number: float = kind(text)
        fits = minimum <= number <= (math.inf if maximum is None else maximum) and math.isfinite(number)
    except (ValueError, OverflowError):
        fits = False
    if not fits:
        bounds = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
        raise ValueError(f"expected a {'whole ' if kind is int else ''}number, {bounds}; found {text!r}")
    return number


def _boolean(text: str) -> bool:
    found = _BOOLEANS.get(text.strip().lower())
    if found is None:
        raise ValueError(f"expected true or false; found {text!r}")
    return found


def _choice(text: str, choices: Sequence[str]) -> str:
    if text.lower() not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}; found {text!r}")
    return text.lower()
