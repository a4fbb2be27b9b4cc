"""The lifecycle of a server: start, new versions, killed workers, stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from model_store.registry.store import open_store
from tests.service.conftest import break_version, move, price
from tests.service.server.server_process import GOOD, PATIENCE_SECONDS, ROOT, Server, post, serve, until
from tests.small_disk import small_disk

pytestmark = pytest.mark.slow


def test_a_start_with_only_broken_models_does_not_call_the_store_empty(own_server, store):
    for name, state in store.state().items():
        for number in state["versions"]:
            break_version(store, name, number)
    server = own_server()
    assert re.search(r"No model in .* can be served: requests return 503", server.log)
    assert "train examples" not in server.log


def test_metrics_are_summed_over_all_workers(own_server):
    server = own_server()
    asked = 0

    def both_have_answered() -> bool:
        nonlocal asked
        assert set(pool.map(lambda _: server.version(), range(50))) == {1}
        asked += 50
        return len(set(re.findall(r"\[(\d+)\] POST", server.log))) == 2

    with ThreadPoolExecutor(8) as pool:
        until(both_have_answered)  # a fast worker can take a whole burst

    def figures_are_right() -> bool:
        figures = server.ask("GET", "/metrics")[1].decode()
        counted = re.findall(r"^forward_pass_rows_total.* ([\d.]+)$", figures, re.MULTILINE)
        right = [float(value) for value in counted] == [asked]
        return right and re.search(r"^forward_pass_requests_in_progress 1\.0$", figures, re.MULTILINE) is not None

    until(figures_are_right)  # metrics are recorded after the response is sent


def test_new_versions_and_moved_aliases_are_served_without_a_restart(own_server, store):
    server = own_server()
    assert server.version() == 1
    store.publish("price", price(1))
    until(lambda: {server.version() for _ in range(20)} == {2})
    move(store, "price", "default", 1)
    move(store, "price", "champion", 2)
    until(lambda: {server.version() for _ in range(20)} == {1})
    until(lambda: server.ask("GET", "/models/price/versions/champion")[0] == 200)
    until(lambda: {server.version("champion") for _ in range(20)} == {2})
    store.publish("fresh", price(3))
    until(lambda: server.ask("GET", "/models/fresh")[0] == 200)


def test_no_request_fails_while_versions_change(own_server, store):
    server = own_server()
    seen: set[int] = set()
    for seed in range(1, 6):
        store.publish("price", price(seed))
        until(lambda expected=seed + 1: (seen.add(server.version()), expected in seen)[1])
    assert max(seen) == 6  # and `version` asserts 200 each time


def test_a_broken_version_does_not_stop_the_service(own_server, store, tmp_path):
    server = own_server()
    aside = open_store(tmp_path / "aside")
    aside.publish("price", price())
    break_version(aside, "price", aside.publish("price", price(1)).number)
    aside.path("price", 2).rename(store.path("price", 1).with_name("2.npz"))  # broken before the service reads it
    until(lambda: server.ask("GET", "/readyz")[1]["status"] == "degraded")
    assert server.version() == 1
    assert "price/2 cannot be served" in server.log
    assert all("cannot be served" in line for line in server.log.splitlines() if "models verify price/2" in line)


def test_a_killed_worker_is_replaced_by_one_with_the_newest_version(own_server, store):
    server = own_server(SERVE_WORKERS="1")
    store.publish("price", price(1))
    until(lambda: server.version() == 2)
    lost = int(until(lambda: re.findall(r"\[(\d+)\] POST", server.log))[-1])  # logged after the response is sent
    os.kill(lost, signal.SIGKILL)

    def replaced() -> bool:
        try:
            version = server.version()
        except (ConnectionError, http.client.HTTPException):
            return False
        assert version == 2, "a new worker serves what its master loaded long ago"
        return int(re.findall(r"\[(\d+)\] POST", server.log)[-1]) != lost

    until(replaced)


def test_a_service_that_gets_sigterm_while_it_loads_stops_and_leaves_no_files(store, tmp_path):
    """A container's first process has no default handler of SIGTERM: without its own, only SIGKILL would end it."""
    slow = """
import time
from service import app, cli
app.ModelRegistry.refresh = lambda _: print("loading", flush=True) or time.sleep(60)
cli.main()
"""
    location = tmp_path / "counts"
    loading = subprocess.Popen(
        [sys.executable, "-c", slow, "--store", str(store.root), "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(location)},
        stdout=subprocess.PIPE,
    )
    with loading:
        assert loading.stdout is not None
        assert loading.stdout.readline() == b"loading\n"
        assert list(location.iterdir())
        loading.terminate()
        assert loading.wait(PATIENCE_SECONDS) == 0
    assert not list(location.iterdir())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopping_lets_an_open_request_complete(own_server, how):
    server = own_server()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(post(GOOD[:5], b"Expect: 100-continue", length=len(GOOD)))
        assert b"100 Continue" in connection.recv(100)  # now a worker waits for the body
        server.process.send_signal(how)
        until(lambda: "stopping" in server.log)
        connection.sendall(GOOD[5:])
        assert b"HTTP/1.1 200" in connection.recv(65536)
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert "Traceback" not in server.log


LARGE_BODIES = """
from pathlib import Path
from service.server.gunicorn_app import configure_malloc_trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

{first}
for _ in range(2):  # the second reuses the first's memory, and a small object follows it
    large = bytearray(b"x") * (8 << 20)
    small = bytearray(b"x") * 1000
    before = resident()
    del large
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's habit")
def test_the_memory_of_large_bodies_is_returned_to_the_kernel() -> None:
    def freed(first: str) -> int:
        text = LARGE_BODIES.format(first=first)
        done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert freed("configure_malloc_trim()") > 7 << 20
    assert freed("") < 1 << 20


def test_a_port_in_use_is_reported_with_a_fix(server):
    done = serve("--store", str(server.store.root), "--port", str(server.port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{server.port}" in done.stderr
    assert "choose another --host or --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_host_is_reported():
    done = serve("--host", "no.such.host.invalid", "--port", "0")
    assert done.returncode == 2
    assert "cannot listen on no.such.host.invalid:0" in done.stderr


def test_trusted_keys_that_cannot_be_read_stop_the_start():
    done = serve("--port", "0", SERVE_TRUSTED_KEYS="/nowhere/release.pub")
    assert done.returncode == 2
    assert "SERVE_TRUSTED_KEYS: /nowhere/release.pub: expected a key file that can be read; No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_invalid_settings_are_reported_at_once():
    wrong = {"SERVE_THREADS": "many", "SERVE_POLL_SECONDS": "-1", "SERVE_ADMIN": "1"}
    done = serve(SERVE_KEYS_FILE="no/keys", SERVE_TRUSTED_KEYS="no.pub,none.pub", **wrong)
    assert done.returncode == 2
    assert [line.strip() for line in done.stderr.splitlines()] == [
        "Error: 6 invalid settings",
        "SERVE_THREADS: expected a whole number, 1 to 1024; found 'many'",
        "SERVE_POLL_SECONDS: expected a number, 0 to 86400; found '-1'",
        "SERVE_ADMIN: expected an admin listener, found none; set SERVE_ADMIN_PORT",
        "SERVE_KEYS_FILE: no/keys: cannot be read: No such file or directory",
        *(
            f"SERVE_TRUSTED_KEYS: {file}: expected a key file that can be read; No such file or directory; "
            "check the path"
            for file in ("no.pub", "none.pub")
        ),
    ]


def test_a_file_in_place_of_the_store_stops_the_start(tmp_path):
    (tmp_path / "file").touch()
    done = serve("--store", str(tmp_path / "file"), "--port", "0")
    assert done.returncode == 5
    assert done.stderr == f"Error: {tmp_path}/file: expected a directory, found a file; choose another store\n"


def test_a_start_without_the_directory_of_the_store_says_how_to_make_it(tmp_path):
    server = Server(open_store(tmp_path / "typo"), tmp_path)
    try:
        assert f"{tmp_path}/typo does not exist: requests return 503" in server.log
        assert f"To make it, run: train examples/penguins.toml --store {tmp_path}/typo" in server.log
        server.store.publish("price", price())
        until(lambda: server.ask("GET", "/readyz")[0] == 200)
    finally:
        assert server.stop() == 0


def test_an_empty_store_is_served_and_filled_later(tmp_path):
    (tmp_path / "empty").mkdir()
    server = Server(open_store(tmp_path / "empty"), tmp_path)
    try:
        assert "train examples/penguins.toml" in server.log
        assert server.ask("GET", "/readyz")[0] == 503
        assert server.ask("POST", "/predict", {"instances": [1]})[0] == 503
        server.store.publish("price", price())
        until(lambda: server.ask("GET", "/readyz")[0] == 200)
    finally:
        assert server.stop() == 0


def test_counter_files_are_removed_at_the_end_and_other_files_kept(own_server, tmp_path):
    location = tmp_path / "counts"
    own_server(PROMETHEUS_MULTIPROC_DIR=str(location)).stop()
    (location / "counter_1.db").write_bytes(b"a database of somebody else")
    server = own_server(PROMETHEUS_MULTIPROC_DIR=str(location))
    assert server.ask("GET", "/metrics")[0] == 200
    assert len(list(location.iterdir())) == 2
    server.stop()
    assert [file.read_bytes() for file in location.iterdir()] == [b"a database of somebody else"]


def test_a_full_metrics_directory_does_not_fail_requests(own_server, tmp_path):
    """A container has 64 MB for files in memory, which may be full."""
    with small_disk(tmp_path / "small", "64k") as location:
        server = own_server(PROMETHEUS_MULTIPROC_DIR=str(location))
        for path in ("/models/price", "/models", "/readyz", "/openapi.json", "/nowhere", "/v2", "/v1/models") * 5:
            assert server.ask("GET", path)[0] in {200, 404}
        assert server.version() == 1
        assert server.ask("GET", "/metrics")[0] == 200
        assert server.stop() == 0
        assert "are missing at /metrics" in server.log
        assert "SIGBUS" not in server.log


def test_a_metrics_directory_that_is_not_writable_is_reported(store):
    done = serve("--store", str(store.root), "--port", "0", PROMETHEUS_MULTIPROC_DIR="/proc/nowhere")
    assert done.returncode == 2
    assert "PROMETHEUS_MULTIPROC_DIR: expected a writable directory, found '/proc/nowhere'" in done.stderr


@contextlib.contextmanager
def slow_clients(port: int) -> Iterator[Callable[[], None]]:
    """64 clients: silent, stuck in the head, or stuck in the body. Calling the result sends a little more."""
    whole = post(GOOD, length=len(GOOD))
    attackers = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
    for i, attacker in enumerate(attackers):
        attacker.sendall([b"", whole[:20], whole[:-5]][i % 3])

    def go_on() -> None:
        for attacker in attackers[1::3]:
            with contextlib.suppress(OSError):
                attacker.sendall(b"x")

    try:
        yield go_on
    finally:
        for attacker in attackers:
            attacker.close()


def test_slow_clients_do_not_delay_others(own_server: Callable[..., Server]) -> None:
    server = own_server(SERVE_WORKERS="1")
    with slow_clients(server.port) as go_on:
        for turn in range(100):
            if turn % 10 == 0:
                go_on()
            assert server.ask("POST", "/models/price/predict", json.loads(GOOD))[0] == 200


def test_under_gthread_the_same_slow_clients_block_all_others(own_server: Callable[..., Server]) -> None:
    """The control of the test above."""
    server = own_server(SERVE_WORKERS="1", SERVE_WORKER="gthread", SERVE_DRAIN_SECONDS="1")
    with slow_clients(server.port), socket.create_connection(("127.0.0.1", server.port), timeout=2) as good:
        good.sendall(post(GOOD, length=len(GOOD)))
        with pytest.raises(TimeoutError):
            good.recv(100)
