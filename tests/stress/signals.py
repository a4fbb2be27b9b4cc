"""Signals under load: reload, killed workers, more and fewer workers, stop. Clients keep getting responses.

Only a killed worker drops requests: those on its connections. To know them, the trial stops the worker before the kill
and reads its connections from /proc.
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
from tests.stress.clients import Clients
from tests.stress.trial import Control, TrialResult, child_pids, running_service

CLIENTS = 8
MAX_RECOVERY_SECONDS = 1.0  # until another worker serves


def trial(*, short: bool = False) -> TrialResult:
    """Send each signal 10 times; 2 in the short form."""
    result = TrialResult("signals under load")
    times = 2 if short else 10
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder)) as server:
        with Clients(server.port, CLIENTS, pause=0.001) as clients:
            time.sleep(0.5)
            for _ in range(times):
                reload(server)
            result.measurements["dropped by SIGHUP"] = f"{len(clients.stats.dropped)} in {times} of them"
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
            before = clients.stats
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(60)
            time.sleep(0.2)
        stats = clients.stats
    result.add_clients(replace(stats, dropped=[]))
    result.tried += len(stats.dropped)
    for port, how in stats.dropped:
        if port not in held:
            result.record_loss(f"dropped, on no connection of a killed worker: {how}")
    if code != 0:
        result.record_loss(f"SIGTERM: expected exit code 0, found {code}: {server.log[-500:]}")
    taken = sum(port in held for port, _ in stats.dropped)
    result.measurements["dropped by SIGKILL"] = f"{taken} in {times} of them, of {CLIENTS} clients"
    result.check_bound("until another worker served", max(waits), MAX_RECOVERY_SECONDS, "s")
    result.measurements["dropped by SIGTERM"] = f"{len(stats.dropped) - len(before.dropped)}, exit code {code}"
    return result


def serving_workers(server: Server, expected: int) -> list[int]:
    """Return the workers once there are `expected`, each with a running event loop."""
    workers = child_pids(server.process.pid)
    return workers if len(workers) == expected and all(map(has_event_loop, workers)) else []


def has_event_loop(pid: int) -> bool:
    return any("eventpoll" in target for target in open_files(pid))


def open_files(pid: int) -> list[str]:
    """Return the targets of a process's open file descriptors."""
    try:
        return [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # the process or the descriptor is gone
        return []


def reload(server: Server) -> None:
    before = set(until(lambda: serving_workers(server, 2)))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: (now := serving_workers(server, 2)) and not before & set(now))


def kill_a_worker(server: Server) -> tuple[set[object], float]:
    """Return the client ports of the worker's connections, and the seconds until another worker serves."""
    worker = until(lambda: serving_workers(server, 2))[0]
    os.kill(worker, signal.SIGSTOP)
    ports = client_ports(worker, server.port)
    os.kill(worker, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: (now := serving_workers(server, 2)) and worker not in now)
    return ports, time.monotonic() - killed


def client_ports(pid: int, port: int) -> set[object]:
    """Return the remote ports of a process's connections to its own port."""
    inodes = {found[1] for target in open_files(pid) if (found := re.fullmatch(r"socket:\[(\d+)\]", target))}
    ports: set[object] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = line.split()[:10]
        if inode in inodes and int(local.partition(":")[2], 16) == port:
            ports.add(int(remote.partition(":")[2], 16))
    return ports


def controls() -> Iterator[Control]:
    def dropped(without: str, harm: Callable[[Server], object]) -> int:
        with tempfile.TemporaryDirectory() as folder, running_service(Path(folder), without=without) as server:
            with Clients(server.port, CLIENTS) as clients:
                time.sleep(0.3)
                harm(server)
                time.sleep(0.2)
            return len(clients.stats.dropped)

    lost = dropped("draining", lambda server: [reload(server) for _ in range(5)])
    yield Control("without draining", lost > 0, f"{lost} dropped by 5 SIGHUP")
