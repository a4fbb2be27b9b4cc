"""On a real object store, in a process of its own: what many processes put at once has one winner each."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store import artifact
from model_store.bucket import Bucket
from model_store.proof import prove
from model_store.store import open_store
from tests.model_store.s3 import CREDENTIALS, make_bucket
from tests.model_store.test_store_races import PUBLISHER

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None,
                       reason="SeaweedFS is not installed"),
]  # fmt: skip

PROCESSES, KEYS, VERSIONS = 8, 1000, 5
ROOT = Path(__file__).parents[2]

RACER = """
import json, sys
from pathlib import Path
from model_store.bucket import Bucket
from model_store.objects import put

address, who, count = sys.argv[1:]
bucket = Bucket(address, Path("unused"))
numbers = list(range(1, int(count) + 1))
start = int(who[1:]) * len(numbers) // 8  # everybody tries all; whoever leads does not lead everywhere
print("ready", flush=True)
sys.stdin.readline()
won = [n for n in numbers[start:] + numbers[:start] if put(bucket, f"race/{n}.npz", f"{who} {n}".encode())]
print(json.dumps(won))
"""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    master, volume, filer, s3 = free_ports(4)
    directory = tmp_path_factory.mktemp("seaweedfs")
    command = [
        shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "weed", "server",
        f"-dir={directory}", "-ip=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}", "-filer",
        f"-filer.port={filer}", "-s3", f"-s3.port={s3}", "-master.telemetry=false", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{s3}"
        wait_for_bucket(server, address, directory / "log")
        yield address
    finally:
        server.kill()  # it takes its time otherwise, for data that nobody wants
        server.wait(30)


def free_ports(count: int) -> list[int]:
    """Ports below 50000: the server adds 10000 to each for its own protocol."""
    ports: list[int] = []
    for port in range(20000 + os.getpid() % 20000, 50000):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            break
    return ports


def wait_for_bucket(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        try:
            return make_bucket(address)
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


@pytest.fixture
def address(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    return f"s3://models/{request.node.name}"


def raced(program: str, *arguments: str) -> list[str]:
    """What each of the processes printed that began at one word."""
    processes = [
        subprocess.Popen([sys.executable, "-c", program, arguments[0], f"p{i}", *arguments[1:]], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for i in range(PROCESSES)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES
    return told


def test_eight_processes_race_for_a_thousand_keys_and_each_has_one_winner(address: str, tmp_path: Path) -> None:
    won = {f"p{i}": json.loads(line) for i, line in enumerate(raced(RACER, address, str(KEYS)))}
    winners = Counter(number for numbers in won.values() for number in numbers)
    assert winners == dict.fromkeys(range(1, KEYS + 1), 1)
    assert sum(1 for numbers in won.values() if numbers) > 1, "nobody raced"
    bucket = Bucket(address, tmp_path)
    assert len(bucket.keys("race/*")) == KEYS
    for who, numbers in won.items():
        assert all(bucket.get(f"race/{number}.npz") == f"{who} {number}".encode() for number in numbers[:20])


def test_eight_publishers_lose_nothing_and_number_without_gaps(address: str, tmp_path: Path) -> None:
    told = [line.split() for text in raced(PUBLISHER, address, str(VERSIONS)) for line in text.splitlines()]
    store = open_store(address, tmp_path)
    digests = {int(number): digest for number, digest, _ in told}
    assert sorted(digests) == store.versions("line") == list(range(1, PROCESSES * VERSIONS + 1))
    assert {number: artifact.digest(store.path("line", number)) for number in digests} == digests
    moves = {move.number: move.version for move in store.history("line", "champion")}
    assert moves == {int(move): int(number) for number, _, move in told if move != "0"}


def test_it_is_fit_to_hold_a_store(address: str, tmp_path: Path) -> None:
    prove(Bucket(address, tmp_path))
