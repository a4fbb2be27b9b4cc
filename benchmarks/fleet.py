"""A fleet of replicas, simulated: queueing, a rolling update and a slow replica; and one real replica beside it.

    python -m benchmarks.fleet            # measure one replica, compare the simulation with it, then simulate fleets
    python -m benchmarks.fleet --service-us 95 --base-us 260      # simulate with given figures

A replica is a queue for each worker, which serves one request at a time in a fixed time: requests of the same rows
take the same work. Clients send at random times (a Poisson process) over connections that belong to a worker each. The
real replica is `serve` with one worker on one core, loaded by wrk from the other core over 1 to 64 connections that
send one request after the other; the simulation does the same. The time of a request in the worker is its processor
time with the most connections, and what the response of one connection takes beyond that is network and client.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import simpy

from model_store.registry.store import open_store
from training.pipeline import job as jobs

ROOT = Path(__file__).parents[1]
CONNECTIONS = (1, 2, 4, 8, 32, 64)
ROUNDS, SECONDS = 5, 3
BODY = '{"instances": [[0, 1]]}'


@dataclass(frozen=True)
class Costs:
    """Seconds of a request in the worker, and seconds of a response of an idle service beyond them."""

    service: float
    base: float


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
            while "/docs" not in (said := log.read_text(encoding="utf-8")):
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


def load(port: int, script: Path, connections: int) -> tuple[float, float]:
    """Return the responses a second and their mean seconds, as wrk measures them on core 1."""
    words = ["taskset", "--cpu-list", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", str(script)]
    done = subprocess.run(
        [*words, f"http://127.0.0.1:{port}/models/xor/predict"], check=True, capture_output=True, text=True
    )
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"the service refused requests, this machine is busy: {done.stdout}")
    found = re.search(r"Latency +([0-9.]+)(us|ms|s) ", done.stdout)
    rate = re.search(r"Requests/sec: +([0-9.]+)", done.stdout)
    if found is None or rate is None:
        raise SystemExit(f"wrk measured nothing: {done.stdout}")
    return float(rate[1]), float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]]


def measure() -> tuple[Costs, dict[int, list[tuple[float, float]]]]:
    """Return the costs of a request, and the rate and mean response of each number of connections, by round."""
    with served() as (port, worker), tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method, wrk.body, wrk.headers['Content-Type'] = 'POST', '{BODY}', 'application/json'")
        script.flush()
        load(port, Path(script.name), 1)
        found: dict[int, list[tuple[float, float]]] = {count: [] for count in CONNECTIONS}
        services, bases = [], []
        for _ in range(ROUNDS):
            for count in CONNECTIONS:
                before = processor_seconds(worker)
                rate, mean = load(port, Path(script.name), count)
                found[count].append((rate, mean))
                if count == max(CONNECTIONS):
                    services.append((processor_seconds(worker) - before) / (rate * SECONDS))
            bases.append(found[1][-1][1] - services[-1])
        return Costs(statistics.median(services), max(0.0, statistics.median(bases))), found


# --- the simulated fleet ------------------------------------------------------------------------------------------


@dataclass
class Replica:
    """Workers that serve one request at a time. `slowness` multiplies their time; `open`: it gets requests."""

    workers: list[simpy.Resource]
    slowness: float = 1.0
    open: bool = True

    @property
    def waiting(self) -> int:
        return sum(worker.count + len(worker.queue) for worker in self.workers)


class Fleet:
    """Replicas behind a balancer. `choose` is its rule: "random", or "fewest" requests in progress of two at random."""

    def __init__(self, costs: Costs, replicas: int, workers: int, choose: str = "random", seed: int = 0) -> None:
        self.environment = simpy.Environment()
        self.costs, self.choose, self.chance = costs, choose, random.Random(seed)  # noqa: S311
        self.replicas = [Replica([simpy.Resource(self.environment) for _ in range(workers)]) for _ in range(replicas)]
        self.times: list[float] = []
        self.refused = 0

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
        with worker.request() as turn:
            yield turn
            yield self.environment.timeout(self.costs.service * replica.slowness)
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
                workers = [simpy.Resource(self.environment) for _ in old.workers]
                self.replicas.append(Replica(workers))
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


def compare(costs: Costs, measured: dict[int, list[tuple[float, float]]]) -> None:
    """Print rate and mean response of one replica, measured and simulated."""
    print(f"a request takes the worker {costs.service * 1e6:.0f} µs, and {costs.base * 1e6:.0f} µs besides")
    print(f"{'':11} {'requests/s':^27} {'mean ms':^27}")
    print(
        f"connections {'measured':>10} {'simulated':>10} {'ratio':>5} {'measured':>10} {'simulated':>10} {'ratio':>5}"
    )
    for count, rounds in measured.items():
        found = Fleet(costs, 1, 1).run_connections(count, 20_000 * costs.service)
        rate, mean = statistics.median(each[0] for each in rounds), 1000 * statistics.median(each[1] for each in rounds)
        rates = f"{rate:10,.0f} {found['rate']:10,.0f} {found['rate'] / rate:5.2f}"
        print(f"{count:11} {rates} {mean:10.3f} {found['mean']:10.3f} {found['mean'] / mean:5.2f}")


def simulate(costs: Costs) -> None:
    """Print how fleets of replicas with two workers respond."""
    capacity = 2 / costs.service
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
        fleet.replicas[0].slowness = 1.5
        rows.append((f"3 replicas, 60% busy, one 1.5x slower, {choose}", fleet.run(rate, 4)))
        fleet = Fleet(costs, 3, 2, choose)
        fleet.replicas[0].slowness = 3
        rows.append((f"3 replicas, 60% busy, one 3x slower, {choose}", fleet.run(rate, 4)))
    print(f"\n{'fleet':50} {'requests/s':>11} {'mean ms':>9} {'p50':>7} {'p99':>9} {'refused':>8}")
    for name, found in rows:
        print(
            f"{name:50} {found['rate']:11,.0f} {found['mean']:9.2f} {found['p50']:7.2f} {found['p99']:9.2f} "
            f"{found['refused']:8.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--service-us", type=float, help="microseconds of a request in a worker")
    parser.add_argument("--base-us", type=float, help="microseconds of a response besides, of an idle service")
    given = parser.parse_args()
    if given.service_us is None:
        costs, measured = measure()
        compare(costs, measured)
    else:
        costs = Costs(given.service_us / 1e6, (given.base_us or 0) / 1e6)
    simulate(costs)


if __name__ == "__main__":
    main()
