"""Signals under load: reloads, killed workers, more and fewer of them, and the end. Whoever asks meanwhile is answered.

Only a worker that is killed takes requests with it: those in its hands. Whether one was, is seen before the kill: the
worker is stopped, and the connections that it holds are read from /proc.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.service.server.server_process import Server, until
from tests.stress.callers import Callers
from tests.stress.trial import Control, Outcome, children, serving

CALLERS = 8
MOST_SECONDS = 1.0  # until another worker serves in place of one that was killed


def trial(*, short: bool = False) -> Outcome:
    """10 of each; 2 in the short form."""
    outcome = Outcome("signals under load")
    times = 2 if short else 10
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        with Callers(server.port, CALLERS, pause=0.001) as callers:
            time.sleep(0.5)
            for _ in range(times):
                reload(server)
            outcome.figures["dropped by SIGHUP"] = f"{len(callers.account.dropped)} in {times} of them"
            held: set[object] = set()
            waits = []
            for _ in range(times):
                ports, wait = kill_a_worker(server)
                held |= ports
                waits.append(wait)
            for how, workers in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2)) * times:
                server.process.send_signal(how)
                until(lambda expected=workers: serving_workers(server, expected))
            time.sleep(0.5)
            before = callers.account
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(60)
            time.sleep(0.2)
        account = callers.account
    outcome.count(replace(account, dropped=[]))
    outcome.tried += len(account.dropped)
    for port, how in account.dropped:
        if port not in held:
            outcome.lose(f"dropped, in no killed worker's hands: {how}")
    if code != 0:
        outcome.lose(f"SIGTERM: expected the exit code 0, found {code}: {server.log[-500:]}")
    taken = sum(port in held for port, _ in account.dropped)
    outcome.figures["taken along by SIGKILL"] = f"{taken} in {times} of them, of {CALLERS} callers"
    outcome.bound("until another worker served", max(waits), MOST_SECONDS, "s")
    outcome.figures["dropped by SIGTERM"] = f"{len(account.dropped) - len(before.dropped)}, exit code {code}"
    return outcome


def serving_workers(server: Server, expected: int) -> list[int]:
    """The workers, once there are so many and each turns its loop."""
    workers = children(server.process.pid)
    return workers if len(workers) == expected and all(map(has_a_loop, workers)) else []


def has_a_loop(pid: int) -> bool:
    return any("eventpoll" in target for target in links(pid))


def links(pid: int) -> list[str]:
    """What a process has open."""
    try:
        return [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # one of them, or the process, has gone meanwhile
        return []


def reload(server: Server) -> None:
    before = set(until(lambda: serving_workers(server, 2)))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: (now := serving_workers(server, 2)) and not before & set(now))


def kill_a_worker(server: Server) -> tuple[set[object], float]:
    """The callers' ports that it held, and the seconds until another served."""
    worker = until(lambda: serving_workers(server, 2))[0]
    os.kill(worker, signal.SIGSTOP)
    ports = callers_of(worker, server.port)
    os.kill(worker, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: (now := serving_workers(server, 2)) and worker not in now)
    return ports, time.monotonic() - killed


def callers_of(pid: int, port: int) -> set[object]:
    """The other ends of a process's connections to its own port."""
    inodes = {found[1] for target in links(pid) if (found := re.fullmatch(r"socket:\[(\d+)\]", target))}
    ports: set[object] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = line.split()[:10]
        if inode in inodes and int(local.partition(":")[2], 16) == port:
            ports.add(int(remote.partition(":")[2], 16))
    return ports


def controls() -> Iterator[Control]:
    def dropped(without: str, harm: Callable[[Server], object]) -> int:
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder), without=without) as server:
            with Callers(server.port, CALLERS) as callers:
                time.sleep(0.3)
                harm(server)
                time.sleep(0.2)
            return len(callers.account.dropped)

    lost = dropped("draining", lambda server: [reload(server) for _ in range(5)])
    yield Control("without draining", lost > 0, f"{lost} dropped by 5 SIGHUP")
