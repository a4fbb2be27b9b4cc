"""Surroundings: strangers, foreign pages, and files and folders of the service that others change while it runs.

Each case starts a service, changes one thing around it, and lists what does not hold. Its control removes one defence.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model_store.registry.store import Store
from tests.service.security.keys import line
from tests.service.server.server_process import Server, free_port, until
from tests.stress.trial import Control, TrialResult, child_pids, publish_models, running_service

ROWS = b'{"instances": [[3, 80]]}'
TIMEOUT_SECONDS = 5
WAIT_SECONDS = 2.0  # for what the service checks every second, or at every poll
UNLOAD = "/v2/repository/models/{}/unload"
SECRETS = (b"price", b"penguins", b"image", b"rooms", b"island")  # names of models and columns
STRANGER_PATHS = [
    "/", "/models", "/models/price", "/models/price/predict", "/models/nothing/predict", "/predict", "/nothing",
    "/metrics", "/openapi.json", "/docs", "/static/nothing", "/v1/models/price", "/v1/models/price:predict",
    "/v2", "/v2/models/price", "/v2/models/price/infer", "/v2/repository/index", UNLOAD.format("price"),
    "/invocations", "/readyz",
]  # fmt: skip


def request(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Return status and body; (0, the error) if none comes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    except OSError as e:
        return 0, str(e).encode()
    finally:
        connection.close()


def predicts(server: Server) -> bool:
    return request(server.port, "POST", "/models/price/predict", ROWS)[0] == 200


def strangers(folder: Path, without: str = "") -> Iterator[str]:
    """With keys, nothing that a stranger gets names a model or a column."""
    keys = folder / "keys"
    keys.write_text(line("shop", "predict", "fp_shop"))
    with running_service(folder, without=without, SERVE_KEYS_FILE=str(keys)) as server:
        for path in STRANGER_PATHS:
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                for headers in ({}, {"Authorization": "Bearer fp_wrong"}, {"Authorization": "Basic eDp5"}):
                    status, body = request(server.port, method, path, ROWS, **headers)
                    told = [secret.decode() for secret in SECRETS if secret in body.replace(path.encode(), b"")]
                    if status >= 500 or status == 0 or told:
                        yield f"{method} {path} {headers}: {status}, names {told}"


def pipe_as_key_file(folder: Path, without: str = "") -> Iterator[str]:
    """A pipe in place of the key file blocks no worker, and grants nothing."""
    keys = folder / "keys"
    keys.write_text(line("shop", "predict", "fp_shop"))
    with running_service(folder, without=without, SERVE_KEYS_FILE=str(keys)) as server:
        keys.unlink()
        os.mkfifo(keys)
        time.sleep(WAIT_SECONDS)
        for _ in range(4):
            status, _body = request(server.port, "POST", "/models/price/predict", ROWS)
            if status != 401:
                yield f"a prediction without a key: {status} instead of 401"
                break
        keys.rename(folder / "pipe")
        with contextlib.suppress(OSError):  # release a worker that reads it
            os.close(os.open(folder / "pipe", os.O_WRONLY | os.O_NONBLOCK))


def foreign_page(folder: Path, without: str = "") -> Iterator[str]:
    """A page of another origin unloads no model."""
    admin = free_port()
    with running_service(folder, without=without, SERVE_ADMIN="true", SERVE_ADMIN_PORT=str(admin)) as server:
        for headers in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
            status, _ = request(admin, "POST", UNLOAD.format("price"), b"{}", Content_Type="text/plain", **headers)
            if status != 403:
                yield f"unloading with {headers}: {status} instead of 403"
        if not predicts(server):
            yield "the model is unloaded"


def all_unloaded(folder: Path, without: str = "") -> Iterator[str]:
    """Without a loaded model the service is not ready, and says so wherever it is asked."""
    admin = free_port()
    with running_service(folder, without=without, SERVE_ADMIN="true", SERVE_ADMIN_PORT=str(admin)) as server:
        for name in ("price", "penguins", "image"):
            request(admin, "POST", UNLOAD.format(name), b"{}", Content_Type="application/json")
        time.sleep(WAIT_SECONDS)
        for path in ("/readyz", "/v2/health/ready", "/ping"):
            status, _ = request(server.port, "GET", path)
            if status != 503:
                yield f"{path}: {status} instead of 503"


def lost_counts(folder: Path, without: str = "") -> Iterator[str]:
    """The folder of the counters is removed, and a worker ends."""
    (folder / "counts").mkdir()
    with running_service(folder, without=without, PROMETHEUS_MULTIPROC_DIR=str(folder / "counts")) as server:
        for path in sorted((folder / "counts").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (folder / "counts").rmdir()
        os.kill(child_pids(server.process.pid)[0], signal.SIGKILL)
        time.sleep(WAIT_SECONDS)
        if server.process.poll() is not None:
            yield f"the service has ended with {server.process.returncode}"
            return
        until(lambda: len(child_pids(server.process.pid)) == 2)
        if not predicts(server):
            yield "a prediction failed"
        if (status := request(server.port, "GET", "/metrics")[0]) != 503:
            yield f"/metrics: {status} instead of 503"


def foreign_files(folder: Path, without: str = "") -> Iterator[str]:
    """SERVE_CACHE_DIR is a folder of somebody's files."""
    cache = folder / "theirs"
    cache.mkdir(mode=0o700)
    theirs = [cache / "data.npz", cache / f"{'0123456789abcdef' * 4}.npz"]
    for path in theirs:
        path.write_bytes(b"somebody's")
    store = publish_models(folder)
    with running_service(folder, store, without=without, SERVE_CACHE_DIR=str(cache)) as server:
        store.publish("price", store.load("price")[1])
        until(lambda: server.version() == 2)
        yield from (f"{path.name} is deleted" for path in theirs if not path.exists())


def truncated_version(folder: Path, without: str = "") -> Iterator[str]:
    """The file of a served version is truncated, which ends a process that has it mapped."""
    store: Store = publish_models(folder)
    with running_service(folder, store, without=without) as server:
        before = until(lambda: len(pids := child_pids(server.process.pid)) == 2 and pids)
        path = store.path("price", 1)
        path.chmod(0o600)
        os.truncate(path, 0)
        for _ in range(20):
            if not predicts(server):
                yield "a prediction failed"
                break
        if set(before) - set(child_pids(server.process.pid)):
            yield "a worker ended"


CASES: dict[str, tuple[Callable[..., Iterator[str]], str]] = {
    "strangers with keys on": (strangers, "required keys"),
    "a pipe as key file": (pipe_as_key_file, "refusal of pipes"),
    "a page of another origin": (foreign_page, "check of the origin"),
    "every model unloaded": (all_unloaded, "readiness of unloaded models"),
    "counters removed, a worker killed": (lost_counts, "containment of lost counts"),
    "a cache folder with other files": (foreign_files, "a cache folder of its own"),
    "a served version truncated": (truncated_version, "copies of versions"),
}


def trial(*, short: bool = False) -> TrialResult:
    """Run every case once; the short form is the same."""
    result = TrialResult("surroundings")
    for name, (case, _) in CASES.items():
        result.tried += 1
        faults = run(case)
        result.measurements[name] = "holds" if not faults else f"{len(faults)} faults"
        if faults:
            result.record_loss(f"{name}: {'; '.join(faults[:3])}")
    return result


def controls() -> Iterator[Control]:
    for case, without in CASES.values():
        faults = run(case, without=without)
        yield Control(f"without {without}", bool(faults), faults[0] if faults else "nothing")


def run(case: Callable[..., Iterator[str]], **options: Any) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return list(case(Path(folder), **options))
