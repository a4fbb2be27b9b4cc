"""Services that share a cache, and workers that are replaced while the store is away: real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.artifact import npz
from model_store.registry.store import Store, open_store
from tests.service.conftest import penguins, price
from tests.service.server.server_process import Server, serve, until

ROW = {"instances": [[3, 80]]}


def workers(server: Server) -> set[int]:
    pid = server.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def kill_workers(server: Server) -> None:
    """Kill all workers at once, and wait for the new ones."""
    killed = workers(server)
    os.kill(server.process.pid, signal.SIGSTOP)  # so that no worker is replaced before the last one is dead
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    os.kill(server.process.pid, signal.SIGCONT)
    until(lambda: len(workers(server) - killed) == len(killed))


def replace_generation(server: Server, store: Store) -> None:
    """Let the workers switch to another generation, so that the master drops the versions that it loaded itself."""
    number = store.publish("penguins", penguins(7)).number
    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.ask("GET", "/readyz")[1]["models"]["penguins"] == number)
    until(lambda: len(workers(server)) == 2)
    time.sleep(2)  # the master notices within a second


def take_away(store: Store) -> Callable[[], None]:
    """Move the store elsewhere; the result moves it back."""
    elsewhere = store.root.with_name(f"{store.root.name}-away")
    shutil.move(store.root, elsewhere)
    return lambda: (shutil.rmtree(store.root, ignore_errors=True), shutil.move(elsewhere, store.root))[0]


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Server]:
    """Start servers that share one cache; each has its own folder for the log."""
    count = iter(range(9))

    def start(store: Store, **environ: str) -> Server:
        folder = tmp_path / f"server{next(count)}"
        folder.mkdir()
        server = Server(store, folder, SERVE_CACHE_DIR=str(tmp_path / "cache"), **environ)
        request.addfinalizer(lambda: server.stop() if server.process.poll() is None else None)
        return server

    return start


@pytest.mark.parametrize("same_store", [True, False])
def test_a_service_keeps_its_copies_while_another_one_trims_the_cache(
    store: Store, tmp_path: Path, start: Callable[..., Server], same_store: bool
) -> None:
    other_store = store if same_store else open_store(tmp_path / "other")
    if not same_store:
        other_store.publish("price", price(5))
    server = start(store, SERVE_POLL_SECONDS="0")
    replace_generation(server, store)
    other = start(other_store)
    for seed in (6, 7):  # each switch removes the copies that no process uses
        number = other_store.publish("price", price(seed)).number
        until(lambda number=number: other.ask("GET", "/models/price")[1]["version"] == number)
    assert server.version() == 1
    digests = [npz.read_digest(store.path("price", number)) for number in store.versions("price")]
    bring_back = take_away(store)
    kill_workers(server)
    assert server.version() == 1
    held = {path.stem for path in tmp_path.glob("cache/*/*.npz")}
    assert [digest in held for digest in digests] == ([True, False, True] if same_store else [True])
    bring_back()


def test_replaced_copies_are_removed_once_no_worker_uses_them(store: Store, tmp_path: Path, own_server) -> None:
    server = own_server()
    for seed in range(1, 4):
        number = store.publish("price", price(seed)).number
        until(lambda number=number: server.version() == number)
    used = {npz.read_digest(store.path(name, store.resolve(name))) for name in store.names()}
    until(lambda: {path.stem for path in tmp_path.glob("cache/*/*.npz")} == used)


def test_without_store_and_copies_new_workers_report_why_at_once_and_recover(
    store: Store, tmp_path: Path, own_server
) -> None:
    server = own_server()
    replace_generation(server, store)
    before = server.ask("POST", "/models/price/predict", ROW)
    bring_back = take_away(store)
    for copy in tmp_path.glob("cache/*/*.npz"):
        copy.unlink()
    kill_workers(server)
    began = time.monotonic()
    assert server.ask("GET", "/healthz") == (200, {"status": "ok"})
    assert time.monotonic() - began < 5
    status, body = server.ask("POST", "/models/price/predict", ROW)
    assert (status, body["error"]["code"]) == (503, "model_unavailable")
    (fault,) = body["error"]["faults"]
    assert fault["location"] == "price/1"
    assert str(store.root) in fault["problem"]
    until(lambda: any(one["location"] == "store" for one in server.ask("GET", "/readyz")[1]["problems"]))
    status, ready = server.ask("GET", "/readyz")
    assert (status, ready["status"]) == (503, "unavailable")
    assert {"price/1", "penguins/2", "image/1"} <= {problem["location"] for problem in ready["problems"]}
    for path, expected in (("/ping", 503), ("/models", 200), ("/docs", 200), ("/metrics", 200)):
        assert server.ask("GET", path)[0] == expected, path
    assert server.ask("POST", "/models/prize/predict", ROW)[0] == 404
    bring_back()
    until(lambda: server.ask("GET", "/readyz") == (200, {**ready, "status": "ready", "problems": [], "models": {
        "image": 1, "penguins": 2, "price": 1}}))  # fmt: skip
    until(lambda: server.ask("POST", "/models/price/predict", ROW) == before)  # each worker recovers by itself
    assert "Traceback" not in server.log


def test_models_whose_copies_exist_are_served_while_others_cannot_be_loaded(
    store: Store, tmp_path: Path, own_server
) -> None:
    server = own_server()
    replace_generation(server, store)
    lost = npz.read_digest(store.path("penguins", 2))
    bring_back = take_away(store)
    next(tmp_path.glob(f"cache/*/{lost}.npz")).unlink()
    kill_workers(server)
    assert server.version() == 1
    status, body = server.ask("POST", "/models/penguins/predict", {"instances": [["Dream", 4000, "MALE"]]})
    assert (status, body["error"]["faults"][0]["location"]) == (503, "penguins/2")
    assert server.ask("GET", "/readyz")[1]["status"] == "degraded"
    bring_back()
    until(lambda: server.ask("GET", "/readyz")[1]["status"] == "ready")


def test_versions_that_no_worker_can_load_again_are_replaced_by_what_the_store_has(
    store: Store, tmp_path: Path, own_server
) -> None:
    """The active generation has price/1, which is removed while all workers are dead and its copy is gone."""
    server = own_server(SERVE_POLL_SECONDS="0")
    replace_generation(server, store)
    store.publish("price", price(1))
    store.remove("price", 1)
    store.publish("penguins", penguins(1))
    for copy in tmp_path.glob("cache/*/*.npz"):
        copy.unlink()
    kill_workers(server)
    until(lambda: server.ask("GET", "/readyz")[1].get("models") == {"image": 1, "penguins": 3, "price": 2})


def test_health_is_reported_while_a_bucket_does_not_respond(
    tmp_path: Path, start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    with socket.socket() as silent:  # accepts connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        keys = {
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "x",
            "AWS_ENDPOINT_URL": url,
        }
        os.environ.update(keys)
        try:
            store = open_store("s3://bucket/models", tmp_path / "unused")
        finally:
            for key in keys:
                del os.environ[key]
        began = time.monotonic()
        server = start(store, **keys)
        assert server.ask("GET", "/healthz")[0] == 200
        status, body = server.ask("POST", "/predict", ROW)
        assert time.monotonic() - began < 15
        assert (status, body["error"]["message"]) == (
            503,
            "no model can be served: models: are being loaded (try again in a moment)",
        )
        assert server.ask("GET", "/readyz")[0] == 503
        assert server.stop(signal.SIGTERM) == 0


def test_a_cache_in_the_store_ends_the_start(store: Store) -> None:
    """The store would take it for a model."""
    before = sorted(store.root.rglob("*"))
    for cache in (store.root, store.root / "price"):
        done = serve("--store", str(store.root), "--port", "0", SERVE_CACHE_DIR=str(cache))
        assert done.returncode == 5
        assert f"expected a directory outside the model store {store.root}; set SERVE_CACHE_DIR" in done.stderr
    assert sorted(store.root.rglob("*")) == before


def test_a_cache_directory_that_cannot_be_used_ends_the_start(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = serve("--store", str(store.root), "--port", "0", SERVE_CACHE_DIR=f"{tmp_path}/file")
    assert done.returncode == 5
    assert f"{tmp_path}/file/{os.geteuid()}-" in done.stderr
    assert "cannot keep copies of models: Not a directory; set SERVE_CACHE_DIR to a directory that" in done.stderr
    assert "Traceback" not in done.stderr
