"""A fleet of replicas, simulated: queueing, a rolling update and a slow replica; and one real replica beside it.

    python -m benchmarks.fleet            # measure one replica, compare the simulation with it, then simulate fleets
    python -m benchmarks.fleet --service-us 95 --base-us 260      # simulate with given figures

A replica is a queue for each worker, which serves one request at a time in a fixed time: requests of the same rows
take the same work. Clients send at random times (a Poisson process) over connections that belong to a worker each. The
real replica is `serve` with one worker on one core, and the load comes from the other core. What is compared is the
mean time of a response at 30, 60 and 80 % of the worker's time, in rounds. The time of a request in the worker is its
processor time over many requests, and what an idle service takes beyond that is network and client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
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
SHARES = (0.3, 0.6, 0.8)  # of the worker's time
ROUNDS, SECONDS = 5, 8
CONNECTIONS = 64
BODY = json.dumps({"instances": [[0, 1]] * 300}).encode()  # a quarter of its time is the client's


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


class Client:
    """Connections to the service, and the times of their responses."""

    def __init__(self, port: int) -> None:
        self.port = port
        lines = ["POST /models/xor/predict HTTP/1.1", "Host: a", "Content-Type: application/json"]
        self.request = "\r\n".join([*lines, f"Content-Length: {len(BODY)}", "", ""]).encode() + BODY
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.times: list[float] = []
        self.refused = 0

    async def ask(self, due: float) -> None:
        """Send a request that was due at this time of the loop's clock, and note when its response had come."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if head.startswith(b"HTTP/1.1 200"):
            self.times.append(asyncio.get_running_loop().time() - due)
        else:
            self.refused += 1
        self.idle.append((reader, writer))

    async def send(self, rate: float, seconds: float, chance: random.Random) -> list[float]:
        """Send at random times, `rate` a second, and return the seconds of each response from when it was due."""
        self.times = []
        loop = asyncio.get_running_loop()
        due, end, tasks = loop.time(), loop.time() + seconds, set()
        while (due := due + chance.expovariate(rate)) < end:
            while (early := due - loop.time()) > 0:
                await asyncio.sleep(early if early > 0.001 else 0)
            tasks.add(task := asyncio.create_task(self.ask(due)))
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.sleep(0.01)
        return self.times

    async def repeat(self, seconds: float) -> list[float]:
        """Send one request after the other."""
        self.times = []
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await self.ask(loop.time())
        return self.times


def measure() -> tuple[Costs, dict[float, list[float]]]:
    """Return the costs of a request, and the mean seconds of a response for each share, by round."""
    os.sched_setaffinity(0, {1})
    with served() as (port, worker):
        client = Client(port)

        async def run() -> tuple[Costs, dict[float, list[float]]]:
            await client.repeat(1)
            means: dict[float, list[float]] = {share: [] for share in SHARES}
            costs = []
            for number in range(ROUNDS):
                before = processor_seconds(worker)
                times = await client.repeat(SECONDS / 2)
                service = (processor_seconds(worker) - before) / len(times)
                costs.append(Costs(service, statistics.fmean(times) - service))
                for share in SHARES:
                    found = await client.send(share / costs[-1].service, SECONDS, random.Random(number))  # noqa: S311
                    means[share].append(statistics.fmean(found))
            median = [statistics.median(getattr(each, key) for each in costs) for key in ("service", "base")]
            if client.refused:
                print(f"the service refused {client.refused} requests: this machine is busy, measure again")
            return Costs(*median), means

        return asyncio.run(run())


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
        self.environment.run()
        times = sorted(self.times)
        return {
            "rate": len(times) / seconds,
            "mean": 1000 * statistics.fmean(times),
            "p50": 1000 * times[len(times) // 2],
            "p99": 1000 * times[len(times) * 99 // 100],
            "refused": self.refused,
        }


def compare(costs: Costs, means: dict[float, list[float]]) -> None:
    """Print the mean response of one replica, measured and simulated."""
    print(f"a request takes the worker {costs.service * 1e6:.0f} µs, and {costs.base * 1e6:.0f} µs besides")
    print(f"{'share':>6} {'requests/s':>11} {'measured ms':>12} {'simulated ms':>13} {'ratio':>6}")
    for share, rounds in means.items():
        rate = share / costs.service
        found = Fleet(costs, 1, 1).run(rate, 60_000 / rate)["mean"]
        real = 1000 * statistics.median(rounds)
        print(f"{share:6.0%} {rate:11,.0f} {real:12.3f} {found:13.3f} {found / real:6.2f}")


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
    parser.add_argument("--json", type=Path, help="write the measured figures to this file")
    given = parser.parse_args()
    if given.service_us is None:
        costs, means = measure()
        compare(costs, means)
        if given.json is not None:
            given.json.write_text(json.dumps([costs.service, costs.base, means]), encoding="utf-8")
    else:
        costs = Costs(given.service_us / 1e6, (given.base_us or 0) / 1e6)
    simulate(costs)


if __name__ == "__main__":
    main()
