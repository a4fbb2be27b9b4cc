"""Three services over one bucket behind nginx: a rolling update under load, and one replica killed, frozen or cut off.

The configuration is examples/edge/replicas.conf with other addresses. No request may fail: nginx sends those that a
replica does not answer to the next one, and the client waits as Retry-After says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from forward_pass_client import Client, ServiceError
from model_store.registry.store import Store, open_store
from tests.model_store.conftest import s3, s3_server  # noqa: F401 - fixtures
from tests.model_store.s3 import S3
from tests.service.conftest import price
from tests.service.server.server_process import ROOT, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]

CLIENTS = 4
ROW = [[3.0, 80.0]]
PATIENCE_SECONDS = 120
# A relay stands for the network between nginx and a replica: a stopped one neither delivers nor refuses anything.
RELAY = """
import asyncio, sys

async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def connect(reader, writer):
    try:
        there = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    except OSError:
        return writer.close()
    await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))

async def main():
    await (await asyncio.start_server(connect, "127.0.0.1", int(sys.argv[1]))).serve_forever()

asyncio.run(main())
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not so after {PATIENCE_SECONDS} s"
        time.sleep(0.05)


class Process:
    """A program in a process group of its own, on a port."""

    def __init__(self, words: list[str], log: Path, environ: dict[str, str] | None = None) -> None:
        self.words, self.log, self.environ = words, log, environ or {}
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.running = subprocess.Popen(
                self.words, cwd=ROOT, env=os.environ | self.environ, stdout=out, stderr=out, start_new_session=True
            )

    def send(self, sent: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, sent)

    def stop(self) -> None:
        """Stop as an orchestrator does: SIGTERM to the first process, which drains."""
        self.running.terminate()
        assert self.running.wait(PATIENCE_SECONDS) == 0

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.running.wait(PATIENCE_SECONDS)


class Replica(Process):
    def __init__(self, number: int, store: Store, folder: Path) -> None:
        self.port = free_port()
        environ = {
            "SERVE_WORKERS": "1",
            "SERVE_CACHE_DIR": str(folder / f"cache-{number}"),
            "SERVE_FORWARDED_ALLOW_IPS": "127.0.0.1",
        }
        words = [sys.executable, "-m", "service", "--store", store.storage.location, "--port", str(self.port)]
        super().__init__(words, folder / f"replica-{number}.log", environ)

    @property
    def is_ready(self) -> bool:
        assert self.running.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False


class Caller(threading.Thread):
    """A client that sends one request after the other, and remembers the version of each response."""

    def __init__(self, url: str, version_of: dict[float, int]) -> None:
        super().__init__(daemon=True)
        self.versions: list[int] = []
        self.failures: list[str] = []
        self.waits: list[float] = []  # after a 503 or a broken connection
        self._version_of, self._ended = version_of, threading.Event()
        self._client = Client(url, never_older=True, sleep=self._wait)

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        time.sleep(seconds)

    def run(self) -> None:
        while not self._ended.wait(0.005):
            try:
                (found,) = self._client.predict("price", ROW)
                self.versions.append(self._version_of[found])
            except ServiceError as e:
                self.failures.append(str(e))

    def end(self) -> None:
        self._ended.set()
        self.join(PATIENCE_SECONDS)
        self._client.close()


class Fleet:
    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.version_of: dict[float, int] = {}
        self.publish()
        self.replicas = [Replica(number, store, folder) for number in (1, 2, 3)]
        relay_port, self.port = free_port(), free_port()
        relayed = [sys.executable, "-c", RELAY, str(relay_port), str(self.replicas[2].port)]
        self.relay = Process(relayed, folder / "relay.log")
        ports = [self.replicas[0].port, self.replicas[1].port, relay_port]
        text = (ROOT / "examples/edge/replicas.conf").read_text().replace("/tmp/", f"{folder}/")  # noqa: S108
        text = re.sub(r"replica-(\d):8000", lambda found: f"127.0.0.1:{ports[int(found[1]) - 1]}", text)
        text = text.replace("listen 8080", f"listen 127.0.0.1:{self.port}")
        text = text.replace("/dev/stdout", str(folder / "access.log"))
        (folder / "nginx.conf").write_text(text)
        words = ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        self.nginx = Process(words, folder / "nginx.log")
        self.access_log = folder / "access.log"
        for replica in self.replicas:
            until(lambda replica=replica: replica.is_ready)
        self.callers = [Caller(f"http://127.0.0.1:{self.port}", self.version_of) for _ in range(CLIENTS)]
        for caller in self.callers:
            caller.start()

    def publish(self) -> None:
        number = len(self.version_of) + 1
        model = price(number)
        (found,) = model.predict(ROW)
        self.version_of[found] = number
        self.store.publish("price", model)

    @property
    def answered(self) -> int:
        return sum(len(caller.versions) for caller in self.callers)

    def answer(self, more: int) -> None:
        """Wait until every client has had more responses."""
        before = [len(caller.versions) for caller in self.callers]
        until(lambda: all(len(c.versions) >= n + more for c, n in zip(self.callers, before, strict=True)))

    @property
    def sent_on(self) -> int:
        """The number of requests that went to more than one replica, by nginx's log."""
        return len(re.findall(r'to="[^"]+(?:,| :) [^"]+"', self.access_log.read_text()))

    def close(self) -> None:
        for caller in self.callers:
            caller.end()
        for process in (self.nginx, self.relay, *self.replicas):
            process.kill()

    def check(self, what: str) -> None:
        """No request failed, and no client got a version after a newer one."""
        for caller in self.callers:
            caller.end()
        waits = sum(len(caller.waits) for caller in self.callers)
        print(f"{what}: {self.answered} requests, {self.sent_on} sent on, {waits} retried by clients")  # noqa: T201
        assert [caller.failures for caller in self.callers] == [[]] * CLIENTS
        for caller in self.callers:
            assert caller.versions == sorted(caller.versions)


@pytest.fixture
def fleet(s3: S3, tmp_path: Path) -> Iterator[Fleet]:  # noqa: F811
    fleet = Fleet(open_store(s3.url), tmp_path)
    yield fleet
    fleet.close()


def test_a_rolling_update_fails_no_request_and_versions_never_go_backwards(fleet: Fleet) -> None:
    for replica in fleet.replicas:
        fleet.publish()
        fleet.answer(10)
        replica.stop()
        fleet.answer(10)
        replica.start()
        until(lambda replica=replica: replica.is_ready)
        fleet.answer(10)
    until(lambda: all(caller.versions[-1] == 4 for caller in fleet.callers))
    fleet.check("rolling update")


@pytest.mark.parametrize("fault", ["killed", "frozen", "cut off"])
def test_a_lost_replica_loses_no_request(fleet: Fleet, fault: str) -> None:
    """Only the requests that it holds, and one every 3 s that tries it again, wait for the next replica."""
    fleet.answer(20)
    lost, before, began = fleet.replicas[2], fleet.sent_on, time.monotonic()
    if fault == "killed":
        lost.kill()
    else:
        (lost if fault == "frozen" else fleet.relay).send(signal.SIGSTOP)
    fleet.answer(20)
    fleet.publish()
    until(lambda: all(caller.versions[-1] == 2 for caller in fleet.callers))
    fleet.answer(20)
    # max_fails, those at the same time, in two processes of nginx; one each fail_timeout
    tries = 5 + 2 * CLIENTS + (time.monotonic() - began) / 3
    sent_on = fleet.sent_on - before
    if fault == "killed":
        lost.start()
        until(lambda: lost.is_ready)
    else:
        (lost if fault == "frozen" else fleet.relay).send(signal.SIGCONT)
    fleet.answer(20)
    fleet.check(f"{fault} ({sent_on} sent on while it was lost)")
    assert sent_on <= tries + sum(len(caller.waits) for caller in fleet.callers)


class AskerForNewer:
    """A client that has seen a version which no replica has."""

    def __init__(self, fleet: Fleet) -> None:
        url = f"http://127.0.0.1:{fleet.port}/models/price/predict"
        headers = {"Content-Type": "application/json", "X-Model-Version-At-Least": "999999999"}
        self._request = urllib.request.Request(url, json.dumps({"instances": ROW}).encode(), headers)

    def ask(self) -> str:
        """Return the code of the error, which is a 503 that the client may retry."""
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(self._request, timeout=30):
            pass
        assert (caught.value.code, caught.value.headers["Retry-After"]) == (503, "1")
        return str(json.load(caught.value)["error"]["code"])


def test_a_client_that_causes_503s_takes_no_replica_from_others(fleet: Fleet) -> None:
    """nginx counted each 503 as a failure of the replica, and answered 502 to everyone while all had failed."""
    fleet.answer(10)
    asker = AskerForNewer(fleet)
    for _ in range(5):
        assert {asker.ask() for _ in range(10)} == {"older_version"}
        fleet.answer(10)
    fleet.check("503s on purpose")
    assert '" 502 ' not in fleet.access_log.read_text()


def test_a_503_remains_one_if_the_replica_that_gets_the_request_next_is_lost(fleet: Fleet) -> None:
    """Clients retry a 503, but not nginx's 502."""
    fleet.replicas[2].kill()
    asker = AskerForNewer(fleet)
    assert {asker.ask() for _ in range(20)} <= {"older_version", "unavailable"}
    fleet.check("503s on purpose, one killed")
