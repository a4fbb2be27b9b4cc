"""A fleet of replicas, simulated: queueing, a rolling update and a slow replica; and one real replica beside it.

    python -m benchmarks.fleet            # measure one replica, compare the simulation with it, then simulate fleets
    python -m benchmarks.fleet --pass-us 120 --request-us 56 --base-us 8      # simulate with given figures

A replica is a queue for each worker. A worker takes all requests that wait, and computes up to 8 of them in a pass: a
network computes in blocks of 8 rows, and requests of one row share them. A pass takes a fixed time and a time for each
request, and then all of its requests have their responses. Clients send at random times (a Poisson process) over
connections that belong to a worker each.

The real replica is `serve` with one worker on one core, loaded by wrk from the other core over 1 to 64 connections that
send one request after the other; the simulation does the same. The times of a pass and of a request follow from the
worker's processor time for a pass with 1 and with 64 connections, and from the requests of a pass, which the service
counts. If the response of a single connection takes longer than its pass, the rest is network and client.

Medians are compared, and requests for each processor second of the worker: other programs of the machine change them
little. Rates and means they change more, and the means of wrk 4.1 have responses in them that were never sent, one for
each that a pause has prevented.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import simpy

from model_store.registry.store import open_store
from training.pipeline import job as jobs

ROOT = Path(__file__).parents[1]
CONNECTIONS = (1, 2, 4, 8, 32, 64)
ROUNDS, SECONDS = 5, 3
BODY = '{"instances": [[0, 1]]}'
PASS_REQUESTS, TURN_REQUESTS = 8, 64  # of one row; see BatchingPolicy and EventWorker


@dataclass(frozen=True)
class Costs:
    """Seconds of a pass and of each request in it, and seconds of a response of an idle service beyond them."""

    a_pass: float
    request: float
    base: float

    @property
    def full(self) -> float:
        """Seconds of a request in a full pass."""
        return self.request + self.a_pass / PASS_REQUESTS


@dataclass(frozen=True)
class Round:
    """What a round of load measured."""

    rate: float
    median: float
    pass_seconds: float  # of processor time
    pass_requests: float


# --- the real replica ---------------------------------------------------------------------------------------------


@contextmanager
def served() -> Iterator[tuple[int, int]]:
    """Yield the port of a service with one worker on core 0, and the worker's process."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"{folder}/models")
        jobs.run(jobs.load(ROOT / "examples" / "xor.toml"), store)
        log = Path(folder, "log")
        words = ["taskset", "--cpu-list", "0", sys.executable, "-m", "service"]
        words += ["--store", f"{folder}/models", "--port", "0", "--workers", "1"]
        with log.open("wb") as out:
            process = subprocess.Popen(words, env={**os.environ, "SERVE_ACCESS_LOG": "false"}, stderr=out, stdout=out)
        try:
            while "  pages  " not in (said := log.read_text(encoding="utf-8")):
                if process.poll() is not None:
                    raise SystemExit(f"the service ended: {said}")
                time.sleep(0.05)
            time.sleep(1)
            port = int(said.partition("http://127.0.0.1:")[2].partition("/")[0])
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8")
            yield port, int(children.split()[0])
        finally:
            process.terminate()
            process.wait()


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def passes(port: int) -> tuple[float, float]:
    """Return the requests of one row and the passes that the service has counted."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    values = (
        re.findall(rf"^forward_pass_batch_rows_{what}{{.*}} (.+)$", text, re.MULTILINE) for what in ("sum", "count")
    )
    requests, count = (sum(map(float, found)) for found in values)
    return requests, count


def load(port: int, worker: int, script: Path, connections: int) -> Round:
    """Load the service with wrk on core 1."""
    words = ["taskset", "--cpu-list", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency"]
    (requests, count), used = passes(port), processor_seconds(worker)
    done = subprocess.run(
        [*words, "-s", str(script), f"http://127.0.0.1:{port}/models/xor/predict"],
        check=True,
        capture_output=True,
        text=True,
    )
    used = processor_seconds(worker) - used
    requests, count = (after - before for after, before in zip(passes(port), (requests, count), strict=True))
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"the service refused requests, this machine is busy: {done.stdout}")
    found = re.search(r" 50% +([0-9.]+)(us|ms|s)\n", done.stdout)
    rate = re.search(r"Requests/sec: +([0-9.]+)", done.stdout)
    if found is None or rate is None:
        raise SystemExit(f"wrk measured nothing: {done.stdout}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]]
    return Round(float(rate[1]), float(found[1]) * unit, used / count, requests / count)


def measure() -> tuple[Costs, dict[int, list[Round]]]:
    """Return the costs of a request, and the rounds of each number of connections."""
    with served() as (port, worker), tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method, wrk.body, wrk.headers['Content-Type'] = 'POST', '{BODY}', 'application/json'")
        script.flush()
        load(port, worker, Path(script.name), 1)
        found: dict[int, list[Round]] = {count: [] for count in CONNECTIONS}
        for _ in range(ROUNDS):
            for count in CONNECTIONS:
                found[count].append(load(port, worker, Path(script.name), count))
    return costs_of(found[1], found[max(CONNECTIONS)]), found


def costs_of(single: Sequence[Round], many: Sequence[Round]) -> Costs:
    """Return the costs that follow from the processor time of passes with one connection and with many."""
    one, full = (statistics.median(each.pass_seconds for each in rounds) for rounds in (single, many))
    requests = statistics.median(each.pass_requests for each in many)
    request = (full - one) / (requests - 1)
    return Costs(one - request, request, max(0.0, statistics.median(each.median for each in single) - one))


# --- the simulated fleet ------------------------------------------------------------------------------------------


class Worker:
    """Responds to what waits, `PASS_REQUESTS` requests at a time. `busy`: seconds that it has worked."""

    def __init__(self, environment: simpy.Environment, costs: Costs) -> None:
        self.environment, self.costs = environment, costs
        self.slowness = 1.0
        self.in_progress, self.busy = 0, 0.0
        self._queue: deque[simpy.Event] = deque()
        self._arrival = environment.event()
        environment.process(self._serve())

    def request(self) -> simpy.Event:
        """Return the event of the response."""
        response = self.environment.event()
        self._queue.append(response)
        self.in_progress += 1
        if not self._arrival.triggered:
            self._arrival.succeed()
        return response

    def _serve(self) -> Iterator[simpy.Event]:
        while True:
            if not self._queue:
                self._arrival = self.environment.event()
                yield self._arrival
            yield self.environment.timeout(0)  # what arrives at the same time is in the same turn
            turn = [self._queue.popleft() for _ in range(min(len(self._queue), TURN_REQUESTS))]
            for requests in batched(turn, PASS_REQUESTS):
                seconds = (self.costs.a_pass + len(requests) * self.costs.request) * self.slowness
                yield self.environment.timeout(seconds)
                self.busy += seconds
                self.in_progress -= len(requests)
                for response in requests:
                    response.succeed()


def batched(values: Sequence[simpy.Event], size: int) -> Iterator[Sequence[simpy.Event]]:
    return (values[start : start + size] for start in range(0, len(values), size))


@dataclass
class Replica:
    """Workers. `open`: it gets requests."""

    workers: list[Worker]
    open: bool = True

    @property
    def waiting(self) -> int:
        return sum(worker.in_progress for worker in self.workers)

    def slow_down(self, factor: float) -> None:
        for worker in self.workers:
            worker.slowness = factor


class Fleet:
    """Replicas behind a balancer. `choose` is its rule: "random", or "fewest" requests in progress of two at random."""

    def __init__(self, costs: Costs, replicas: int, workers: int, choose: str = "random", seed: int = 0) -> None:
        self.environment = simpy.Environment()
        self.costs, self.choose, self.chance = costs, choose, random.Random(seed)  # noqa: S311
        self.replicas = [self._replica(workers) for _ in range(replicas)]
        self.times: list[float] = []
        self.refused = 0

    def _replica(self, workers: int) -> Replica:
        return Replica([Worker(self.environment, self.costs) for _ in range(workers)])

    def _request(self) -> Iterator[simpy.Event]:
        begin = self.environment.now
        candidates = [replica for replica in self.replicas if replica.open]
        if not candidates:
            self.refused += 1
            return
        replica = self.chance.choice(candidates)
        if self.choose == "fewest":
            replica = min(replica, self.chance.choice(candidates), key=lambda each: each.waiting)
        worker = self.chance.choice(replica.workers)  # that of the connection
        yield worker.request()
        self.times.append(self.environment.now - begin + self.costs.base)

    def _clients(self, rate: float, seconds: float) -> Iterator[simpy.Event]:
        while self.environment.now < seconds:
            yield self.environment.timeout(self.chance.expovariate(rate))
            self.environment.process(self._request())

    def _connection(self, seconds: float) -> Iterator[simpy.Event]:
        """Send one request after the other over a connection."""
        while self.environment.now < seconds:
            yield self.environment.process(self._request())
            yield self.environment.timeout(self.costs.base)

    def run_connections(self, count: int, seconds: float) -> dict[str, float]:
        """Return what `run` returns, of so many connections that wait for each response."""
        for _ in range(count):
            self.environment.process(self._connection(seconds))
        return self._result(seconds)

    def update(self, start: float, begin_seconds: float, pause: float, drain: float) -> None:
        """Replace one replica after the other from `start` on: a new one first, then the old one pauses and drains."""

        def roll() -> Iterator[simpy.Event]:
            yield self.environment.timeout(start)
            for old in list(self.replicas):
                yield self.environment.timeout(begin_seconds)
                self.replicas.append(self._replica(len(old.workers)))
                yield self.environment.timeout(pause)
                old.open = False
                yield self.environment.timeout(drain)
                self.replicas.remove(old)

        self.environment.process(roll())

    def run(self, rate: float, seconds: float) -> dict[str, float]:
        """Return the milliseconds of responses, the requests a second, and how many were refused."""
        self.environment.process(self._clients(rate, seconds))
        return self._result(seconds)

    def _result(self, seconds: float) -> dict[str, float]:
        self.environment.run()
        times = sorted(self.times)
        return {
            "rate": len(times) / seconds,
            "mean": 1000 * statistics.fmean(times),
            "p50": 1000 * times[len(times) // 2],
            "p99": 1000 * times[len(times) * 99 // 100],
            "refused": self.refused,
        }


def compare(costs: Costs, measured: dict[int, list[Round]]) -> None:
    """Print rate and median response of one replica, measured and simulated."""
    print(
        f"a pass takes the worker {costs.a_pass * 1e6:.0f} µs, each request in it {costs.request * 1e6:.0f} µs, and a "
        f"response {costs.base * 1e6:.0f} µs besides: {costs.full * 1e6:.0f} µs a request if passes are full"
    )
    print(f"{'':11} {'':>10} {'requests a worker second':^27} {'p50 ms':^27} {'requests':>8}")
    pair = f"{'measured':>10} {'simulated':>10} {'ratio':>5}"
    print(f"connections {'requests/s':>10} {pair} {pair} {'a pass':>8}")
    for count, rounds in measured.items():
        fleet = Fleet(costs, 1, 1)
        found = fleet.run_connections(count, 20_000 * costs.full)
        work = len(fleet.times) / fleet.replicas[0].workers[0].busy
        rate, real_work, middle, requests = (
            statistics.median(values)
            for values in zip(
                *(
                    (each.rate, each.pass_requests / each.pass_seconds, 1000 * each.median, each.pass_requests)
                    for each in rounds
                ),
                strict=True,
            )
        )
        print(
            f"{count:11} {rate:10,.0f} {real_work:10,.0f} {work:10,.0f} {work / real_work:5.2f} {middle:10.3f} "
            f"{found['p50']:10.3f} {found['p50'] / middle:5.2f} {requests:8.2f}"
        )


def simulate(costs: Costs) -> None:
    """Print how fleets of replicas with two workers respond."""
    capacity = 2 / costs.full
    rows = []
    for replicas in (1, 3, 10):
        for share in (0.5, 0.8, 0.9):
            rate = share * capacity * replicas
            rows.append((f"{replicas} replicas, {share:.0%} busy", Fleet(costs, replicas, 2).run(rate, 60_000 / rate)))
    rate = 0.6 * capacity * 3
    for choose in ("random", "fewest"):
        fleet = Fleet(costs, 3, 2, choose)
        fleet.update(0.3, 0.5, 0.1, 0.4)
        rows.append((f"3 replicas, 60% busy, rolling update, {choose}", fleet.run(rate, 4)))
        fleet = Fleet(costs, 3, 2, choose)
        fleet.replicas[0].slow_down(1.5)
        rows.append((f"3 replicas, 60% busy, one 1.5x slower, {choose}", fleet.run(rate, 4)))
        fleet = Fleet(costs, 3, 2, choose)
        fleet.replicas[0].slow_down(3)
        rows.append((f"3 replicas, 60% busy, one 3x slower, {choose}", fleet.run(rate, 4)))
    print(f"\n{'fleet':50} {'requests/s':>11} {'mean ms':>9} {'p50':>7} {'p99':>9} {'refused':>8}")
    for name, found in rows:
        print(
            f"{name:50} {found['rate']:11,.0f} {found['mean']:9.2f} {found['p50']:7.2f} {found['p99']:9.2f} "
            f"{found['refused']:8.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pass-us", type=float, help="microseconds of a pass in a worker, without its requests")
    parser.add_argument("--request-us", type=float, default=0, help="microseconds of each request in a pass")
    parser.add_argument(
        "--base-us", type=float, default=0, help="microseconds of a response besides, of an idle service"
    )
    given = parser.parse_args()
    if given.pass_us is None:
        costs, measured = measure()
        compare(costs, measured)
    else:
        costs = Costs(given.pass_us / 1e6, given.request_us / 1e6, given.base_us / 1e6)
    simulate(costs)


if __name__ == "__main__":
    main()
