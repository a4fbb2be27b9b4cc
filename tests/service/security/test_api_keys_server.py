"""Keys and the admin port in the real server, with both worker types."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forward_pass_client import Client, ServiceError
from model_store.registry.store import open_store
from service.security.api_keys import generate_key
from tests.service.conftest import price
from tests.service.server.server_process import ROOT, Server, free_port, until

pytestmark = pytest.mark.slow

ROWS = {"instances": [[3, 80]]}


class Guarded(Server):
    """A server with a key for each scope and an admin port."""

    def __init__(self, store: Any, folder: Path, worker: str) -> None:
        self.file, self.second = folder / "keys", free_port()
        made = {scope: generate_key(scope, (scope,)) for scope in ("predict", "metrics", "admin")}
        self.keys = {scope: secret for scope, (secret, _) in made.items()}
        self.file.write_text("".join(f"{key}\n" for _, key in made.values()))
        second = {"SERVE_ADMIN": "true", "SERVE_ADMIN_PORT": str(self.second)}
        super().__init__(store, folder, SERVE_WORKER=worker, SERVE_KEYS_FILE=str(self.file), **second)

    def status(self, method: str, path: str, body: Any = None, *, key: str | None = None, port: int = 0) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)
        try:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture(params=["event", "gthread"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    store = open_store(tmp_path / "models")
    store.publish("price", price())
    server = Guarded(store, tmp_path, request.param)
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def test_keys_are_required_by_the_real_server(server: Guarded) -> None:
    predict, keys = "/models/price/predict", server.keys
    assert server.status("POST", predict, ROWS) == 401
    assert server.status("POST", predict, ROWS, key="fp_nobody") == 401
    assert server.status("POST", predict, ROWS, key=keys["metrics"]) == 403
    assert server.status("POST", predict, ROWS, key=keys["predict"]) == 200
    for path in ("/predict", "/v1/models/price:predict", "/v2/models/price/infer", "/invocations"):
        assert server.status("POST", path, ROWS | {"model": "price"}) == 401
    assert server.status("GET", "/healthz") == server.status("GET", "/readyz") == 200
    assert all(secret not in server.log for secret in keys.values())


def test_only_the_admin_port_has_metrics_and_the_repository(server: Guarded) -> None:
    keys, second = server.keys, server.second
    assert server.status("GET", "/metrics", key=keys["metrics"]) == 404
    assert server.status("GET", "/metrics", key=keys["metrics"], port=second) == 200
    assert server.status("GET", "/metrics", port=second) == 401
    index = "/v2/repository/index"
    assert server.status("POST", index, key=keys["admin"]) == 404
    assert server.status("POST", index, key=keys["admin"], port=second) == 200
    assert server.status("POST", index, key=keys["predict"], port=second) == 403
    assert server.status("POST", "/models/price/predict", ROWS, key=keys["predict"], port=second) == 200
    assert f"http://127.0.0.1:{second}/metrics" in server.log


def test_every_worker_loads_new_keys_and_none_is_valid_when_the_file_breaks(server: Guarded) -> None:
    def statuses(key: str) -> set[int]:
        return {server.status("POST", "/models/price/predict", ROWS, key=key) for _ in range(12)}

    old = server.keys["predict"]
    secret, key = generate_key("another", ("predict",))
    server.file.write_text(f"{key}\n")
    until(lambda: statuses(secret) == {200} and statuses(old) == {401})
    server.file.write_text("not a file of keys\n")
    until(lambda: statuses(secret) == {401} and server.log.count("no key is valid") >= 2)  # once per worker
    assert statuses(old) == {401}
    assert server.ask("GET", "/readyz")[1]["status"] == "degraded"


def workers(server: Guarded) -> set[int]:
    pid = server.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_a_worker_that_starts_after_the_file_vanished_knows_no_revoked_key(server: Guarded) -> None:
    def statuses(key: str) -> set[int]:
        return {server.status("POST", "/models/price/predict", ROWS, key=key) for _ in range(12)}

    old = server.keys["predict"]
    secret, key = generate_key("another", ("predict",))
    server.file.write_text(f"{key}\n")
    until(lambda: statuses(secret) == {200} and statuses(old) == {401} and server.log.count("loaded 1 keys") >= 3)
    server.file.unlink()
    before = workers(server)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: workers(server) and not workers(server) & before)
    assert statuses(old) == {401}
    assert statuses(secret) == {200}


def test_clients_send_their_key(server: Guarded, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    with Client(url, key=server.keys["predict"]) as client:
        assert len(client.predict("price", [[3, 80]])) == 1
    with Client(url) as client, pytest.raises(ServiceError, match="status 401: Authorization: expected a key"):
        client.predict("price", [[3, 80]])
    words = [sys.executable, "-m", "model_store", "predict", "price", "--row", "[3, 80]", "--url", url, "--json"]

    def command(*more: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)

    for done in command("--key", server.keys["predict"]), command(FORWARD_PASS_KEY=server.keys["predict"]):
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["predictions"]) == 1
    stranger = command()
    assert stranger.returncode == 5
    assert "status 401" in stranger.stderr
    assert "set FORWARD_PASS_KEY or --key" in stranger.stderr
