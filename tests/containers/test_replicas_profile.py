"""The profile replicas: a rolling update, and one container killed, frozen or disconnected, under load."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from forward_pass_client import Client, ServiceError
from tests.containers.conftest import up
from tests.containers.stack import Stack, eventually

pytestmark = [pytest.mark.slow, pytest.mark.containers]


@pytest.fixture(scope="module")
def replicas(engine: dict[str, str]) -> Iterator[Stack]:
    with up(engine, "balancer") as stack:
        yield stack


class Load:
    """Clients that send one request after the other through nginx."""

    def __init__(self, url: str) -> None:
        self.answered, self.failures = 0, list[str]()
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(url,), daemon=True) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _run(self, url: str) -> None:
        newest = 0
        with Client(url, never_older=True) as client:
            while not self._ended.wait(0.01):
                try:
                    client.predict("xor", [[0, 1]])
                except ServiceError as e:
                    self.failures.append(str(e))
                    continue
                found = client.newest_versions["xor", None]
                assert found >= newest
                newest = found
                with self._lock:
                    self.answered += 1

    def more(self, count: int) -> None:
        expected = self.answered + count
        eventually(lambda: self.answered >= expected)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def load(replicas: Stack) -> Iterator[Load]:
    load = Load(f"http://{replicas.address}")
    yield load
    load.end()


def test_a_rolling_update_fails_no_request(replicas: Stack, load: Load) -> None:
    for number in (1, 2, 3):
        load.more(30)
        replicas.compose("up", "--detach", "--wait", "--no-deps", "--force-recreate", f"replica-{number}")
        replicas.compose("kill", "--signal", "HUP", "balancer")
    load.more(30)
    assert load.failures == []


def signal_workers(replicas: Stack, container: str, name: str) -> None:
    """Signal all processes but the first, once there are others: a container that has just started may have none.

    `docker pause` needs a cgroup that not every engine has.
    """
    program = f"""
import os, signal, time
for _ in range(300):
    try:
        os.kill(-1, signal.{name})
        break
    except ProcessLookupError:
        time.sleep(0.1)
else:
    raise SystemExit("no worker within 30 s")
"""
    replicas.docker("exec", container, "python", "-c", program)


@pytest.mark.parametrize("fault", ["killed", "frozen", "disconnected"])
def test_a_lost_replica_loses_no_request(replicas: Stack, load: Load, fault: str) -> None:
    container = replicas.compose("ps", "--quiet", "replica-3").strip()
    network = f"{replicas.name}_default"
    lose: dict[str, Callable[[], object]] = {
        "killed": lambda: replicas.docker("kill", container),
        "frozen": lambda: signal_workers(replicas, container, "SIGSTOP"),
        "disconnected": lambda: replicas.docker("network", "disconnect", network, container),
    }
    restore: dict[str, Callable[[], object]] = {
        "killed": lambda: replicas.docker("start", container),
        "frozen": lambda: signal_workers(replicas, container, "SIGCONT"),
        "disconnected": lambda: replicas.docker("network", "connect", "--alias", "replica-3", network, container),
    }
    load.more(30)
    lose[fault]()
    load.more(60)
    restore[fault]()
    replicas.compose("kill", "--signal", "HUP", "balancer")
    load.more(30)
    assert load.failures == []
