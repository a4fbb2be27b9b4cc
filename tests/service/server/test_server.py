"""The real server: `python -m service` in processes of its own, spoken to over sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import Store, open_store
from tests.service.conftest import break_version, image, move, penguins, price
from tests.small_disk import small_disk

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 20
GOOD = b'{"instances": [[3, 80]]}'


def free_port() -> int:
    """A port that no outgoing connection of this machine takes before it is listened on."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A running `serve`, on a port of its own choice; or another program that is one, but for a defence."""

    def __init__(self, store: Store, folder: Path, program: Sequence[str] = ("-m", "service"), **environ: str) -> None:
        self.store = store
        self.log_path = folder / "serve.log"
        defaults = {"SERVE_WORKERS": "2", "SERVE_POLL_SECONDS": "0.05", "SERVE_CACHE_DIR": str(folder / "cache")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, "--store", store.storage.location, "--port", "0"],
                cwd=ROOT,
                env={**os.environ, **defaults, **environ},
                stdout=log,
                stderr=log,
            )
        self.port = int(until(self._port))
        until(lambda: self.ask("GET", "/healthz")[0] == 200)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def _port(self) -> str | None:
        assert self.process.poll() is None, self.log
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log)
        return found and found[1]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if response.headers.get_content_subtype() == "json" else text
        finally:
            connection.close()

    def version(self, ref: str = "default") -> int:
        status, body = self.ask("POST", f"/models/price/versions/{ref}/predict", {"instances": [[3, 80]]})
        assert status == 200, body
        found: int = body["version"]
        return found

    def raw(self, *pieces: bytes, half_close: bool = True) -> bytes:
        """Sends bytes as they are, and returns all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as connection:
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_SECONDS)


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` gives once it gives something, asked again and again up to a deadline."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if found := condition():
                return found
        except ConnectionError:
            pass
        assert time.monotonic() < deadline, "this has not come true in time"
        time.sleep(0.02)


def post(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    lines = [b"POST /models/price/predict HTTP/1.1", b"Host: here", *headers]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join([*lines, b"", b""]) + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers that nobody disturbs: its tests leave the store as it is."""
    folder = tmp_path_factory.mktemp("server")
    store = open_store(folder / "models")
    for name, model in {"penguins": penguins(), "image": image(), "price": price()}.items():
        store.publish(name, model)
    server = Server(store, folder)
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


@pytest.fixture
def own_server(store: Store, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers of a test's own, stopped after it."""
    started: list[Server] = []

    def start(**environ: str) -> Server:
        started.append(Server(store, tmp_path, **environ))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            assert server.stop() == 0, server.log


def test_start_tells_models_address_and_docs(server):
    assert "Serving image/1, penguins/1, price/1" in server.log
    assert f"http://127.0.0.1:{server.port}/predict" in server.log


def test_start_with_nothing_but_broken_models_does_not_call_the_store_empty(own_server, store):
    for name, state in store.state().items():
        for number in state["versions"]:
            break_version(store, name, number)
    server = own_server()
    assert re.search(r"No model in .* can be served, so requests are answered 503", server.log)
    assert "train examples" not in server.log


def test_answers_over_http_equal_those_of_the_model(server):
    rows = [[i / 3, 60 + i] for i in range(50)]
    _, model = server.store.load("price")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.ask("POST", "/models/price/predict", {"instances": rows}), range(40)))
    assert all(status == 200 and body["predictions"] == model.predict(rows) for status, body in answers)


@pytest.mark.parametrize("sent", [0, 1, len(GOOD) - 1, len(GOOD)])
def test_body_cut_short_is_never_answered_200(server, sent):
    answer = server.raw(post(GOOD[:sent], length=len(GOOD) + 1))
    assert status_of(answer) == 400
    assert b'"broken_body"' in answer


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n",  # no hexadecimal size
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
        b"%x\r\n" % len(GOOD) + GOOD + b"XX0\r\n\r\n",  # no end of line after the chunk
        b"%x\r\n" % len(GOOD) + GOOD + b"\r\n",  # no last chunk
        b"%x\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n",  # no end of trailers
        b"%x\r\n" % (len(GOOD) + 9) + GOOD,  # cut within a chunk
        b"%x;a=\x01\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n\r\n",
        b"",
    ],
)
def test_malformed_or_cut_chunks_are_400(server, chunks):
    answer = server.raw(post(chunks, b"Transfer-Encoding: chunked"))
    assert status_of(answer) == 400
    assert b'"broken_body"' in answer


def test_whole_chunks_are_taken(server):
    chunks = b"%x\r\n%s\r\n" % (5, GOOD[:5]) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD) - 5, GOOD[5:])
    assert status_of(server.raw(post(chunks, b"Transfer-Encoding: chunked"))) == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (post(GOOD, b"Content-Length: 5", length=len(GOOD)), 400),
        (post(GOOD, b"Transfer-Encoding: chunked", length=len(GOOD)), 400),
        (post(GOOD, b"Content-Length: -1"), 400),
        (b"GET /healthz HTTP/1.1\r\nHost: here\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: here\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: here\r\n\r\n", 414),
    ],
)
def test_what_is_not_http_is_refused(server, request_bytes, status):
    assert status_of(server.raw(request_bytes)) == status


def test_connection_is_kept_for_further_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    connection.connect()
    first = connection.sock
    for body, status in ((GOOD, 200), (b"{", 400), (GOOD, 200), (b"[]", 422), (GOOD, 200)):
        connection.request("POST", "/models/price/predict", body)
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, True)
    assert connection.sock is first
    connection.close()


def test_pipelined_requests_are_answered_in_order_and_garbage_ends_them(server):
    answer = server.raw(post(GOOD, length=len(GOOD)) + post(b"{", length=1) + b"NONSENSE\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"400", b"400"]


def test_body_over_the_limit_is_413_without_being_sent(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(post(b"", length=10**12))
        answer = connection.recv(65536)
    assert status_of(answer) == 413


def test_client_that_leaves_in_the_middle_disturbs_nobody(server):
    for bytes_sent in (b"POST /pre", post(GOOD[:5], length=len(GOOD)), post(b"5\r\nab", b"Transfer-Encoding: chunked")):
        for _ in range(6):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS)
            connection.sendall(bytes_sent)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST, no goodbye
            connection.close()
    assert server.version() == 1


def test_figures_are_right_across_workers(own_server):
    server = own_server()
    asked = 0

    def both_have_answered() -> bool:
        nonlocal asked
        assert set(pool.map(lambda _: server.version(), range(50))) == {1}
        asked += 50
        return len(set(re.findall(r"\[(\d+)\] POST", server.log))) == 2

    with ThreadPoolExecutor(8) as pool:
        until(both_have_answered)  # a worker that is fast enough takes all of a burst

    def figures_are_right() -> bool:
        figures = server.ask("GET", "/metrics")[1].decode()
        counted = re.findall(r"^forward_pass_rows_total.* ([\d.]+)$", figures, re.MULTILINE)
        right = [float(value) for value in counted] == [asked]
        return right and re.search(r"^forward_pass_requests_in_progress 1\.0$", figures, re.MULTILINE) is not None

    until(figures_are_right)  # an answer is sent before it is counted


def test_published_version_and_moved_alias_are_picked_up_without_a_restart(own_server, store):
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
    assert max(seen) == 6  # and `version` has asserted 200 each time


def test_broken_version_leaves_the_service_answering(own_server, store, tmp_path):
    server = own_server()
    aside = open_store(tmp_path / "aside")
    aside.publish("price", price())
    break_version(aside, "price", aside.publish("price", price(1)).number)
    aside.path("price", 2).rename(
        store.path("price", 1).with_name("2.npz")
    )  # broken from the first look that the service takes
    until(lambda: server.ask("GET", "/readyz")[1]["status"] == "degraded")
    assert server.version() == 1
    assert "price/2 cannot be served" in server.log
    assert all("cannot be served" in line for line in server.log.splitlines() if "models verify price/2" in line)


def test_lost_worker_is_replaced_and_knows_the_newest_version(own_server, store):
    server = own_server(SERVE_WORKERS="1")
    store.publish("price", price(1))
    until(lambda: server.version() == 2)
    lost = int(re.findall(r"\[(\d+)\] POST", server.log)[-1])
    os.kill(lost, signal.SIGKILL)

    def replaced() -> bool:
        try:
            version = server.version()
        except (ConnectionError, http.client.HTTPException):
            return False
        assert version == 2, "a new worker serves what its master loaded long ago"
        return int(re.findall(r"\[(\d+)\] POST", server.log)[-1]) != lost

    until(replaced)


def test_a_service_that_is_told_to_stop_while_it_loads_stops_and_leaves_nothing(store, tmp_path):
    """The first process of a container has no handler of SIGTERM but its own: without one only SIGKILL would end it."""
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
def test_stop_lets_a_request_under_way_end(own_server, how):
    server = own_server()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(post(GOOD[:5], b"Expect: 100-continue", length=len(GOOD)))
        assert b"100 Continue" in connection.recv(100)  # now a worker waits for the rest
        server.process.send_signal(how)
        until(lambda: "stopping" in server.log)
        connection.sendall(GOOD[5:])
        assert b"HTTP/1.1 200" in connection.recv(65536)
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert "Traceback" not in server.log


LARGE_BODIES = """
from pathlib import Path
from service.server.gunicorn_app import return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

{first}
for _ in range(2):  # the second is where the first was, and something small comes to lie behind it
    large = bytearray(b"x") * (8 << 20)
    small = bytearray(b"x") * 1000
    before = resident()
    del large
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's habit")
def test_the_memory_of_a_large_body_goes_back_with_it_as_it_would_not_by_itself() -> None:
    def freed(first: str) -> int:
        text = LARGE_BODIES.format(first=first)
        done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert freed("return_large_memory()") > 7 << 20
    assert freed("") < 1 << 20


def serve(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *words]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=20, check=False
    )


def test_port_in_use_is_told_and_mended(server):
    done = serve("--store", str(server.store.root), "--port", str(server.port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{server.port}" in done.stderr
    assert "choose another --host or --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_host_that_is_none_is_told():
    done = serve("--host", "no.such.host.invalid", "--port", "0")
    assert done.returncode == 2
    assert "cannot listen on no.such.host.invalid:0" in done.stderr


def test_keys_that_cannot_be_read_stop_the_start():
    done = serve("--port", "0", SERVE_TRUSTED_KEYS="/nowhere/release.pub")
    assert done.returncode == 2
    assert "SERVE_TRUSTED_KEYS: /nowhere/release.pub: expected a key to read; No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_told_at_once():
    done = serve(SERVE_THREADS="many", SERVE_POLL_SECONDS="-1")
    assert done.returncode == 2
    assert "SERVE_THREADS: expected a whole number, 1 to 1024; found 'many'" in done.stderr
    assert "SERVE_POLL_SECONDS: expected a number, 0 to 86400; found '-1'" in done.stderr


def test_store_without_models_is_served_and_filled_later(tmp_path):
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


def test_counts_of_a_run_do_not_outlive_it_and_leave_the_files_of_others_alone(own_server, tmp_path):
    location = tmp_path / "counts"
    own_server(PROMETHEUS_MULTIPROC_DIR=str(location)).stop()
    (location / "counter_1.db").write_bytes(b"a database of somebody else")
    server = own_server(PROMETHEUS_MULTIPROC_DIR=str(location))
    assert server.ask("GET", "/metrics")[0] == 200
    assert len(list(location.iterdir())) == 2
    server.stop()
    assert [file.read_bytes() for file in location.iterdir()] == [b"a database of somebody else"]


def test_a_full_place_for_counts_keeps_no_request_from_its_answer(own_server, tmp_path):
    """In memory a container has 64 MB for files, of which others may have taken all."""
    with small_disk(tmp_path / "small", "64k") as location:
        server = own_server(PROMETHEUS_MULTIPROC_DIR=str(location))
        for path in ("/models/price", "/models", "/readyz", "/openapi.json", "/nowhere", "/v2", "/v1/models") * 5:
            assert server.ask("GET", path)[0] in {200, 404}
        assert server.version() == 1
        assert server.ask("GET", "/metrics")[0] == 200
        assert server.stop() == 0
        assert "is missing in /metrics" in server.log
        assert "SIGBUS" not in server.log


def test_a_place_for_counts_that_cannot_be_written_to_is_told(store):
    done = serve("--store", str(store.root), "--port", "0", PROMETHEUS_MULTIPROC_DIR="/proc/nowhere")
    assert done.returncode == 2
    assert "PROMETHEUS_MULTIPROC_DIR: expected a directory to write to, found '/proc/nowhere'" in done.stderr


@contextlib.contextmanager
def slow_clients(port: int) -> Iterator[Callable[[], None]]:
    """64 of them: silent, stuck within the head, stuck within the body; calling it makes some say a little more."""
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


def test_slow_clients_keep_no_good_one_from_its_answer(own_server: Callable[..., Server]) -> None:
    server = own_server(SERVE_WORKERS="1")
    with slow_clients(server.port) as go_on:
        for turn in range(100):
            if turn % 10 == 0:
                go_on()
            assert server.ask("POST", "/models/price/predict", json.loads(GOOD))[0] == 200


def test_under_threads_the_same_slow_clients_stop_every_answer(own_server: Callable[..., Server]) -> None:
    """The negative control of the test above."""
    server = own_server(SERVE_WORKERS="1", SERVE_WORKER="gthread", SERVE_DRAIN_SECONDS="1")
    with slow_clients(server.port), socket.create_connection(("127.0.0.1", server.port), timeout=2) as good:
        good.sendall(post(GOOD, length=len(GOOD)))
        with pytest.raises(TimeoutError):
            good.recv(100)
