"""Calls are answered in turn by address and connection, and a client with many of them loses none."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

from service.grpc import turns
from service.grpc.messages import SERVICE, message_class
from service.grpc.turns import Turns
from tests.service.server.server_process import PATIENCE_SECONDS

CALLS, IN_PARALLEL = 1500, 300


def served(clients: list[str], *, newcomers: tuple[str, ...] = ()) -> list[tuple[str, bool]]:
    """Return the clients in the order of their turns, and whether each is answered.

    `newcomers` make their calls once the first one has had its turn.
    """
    order: list[tuple[str, bool]] = []

    async def call(waiting: Turns, client: str) -> None:
        order.append((client, await waiting.wait(client)))

    async def run() -> None:
        waiting = Turns()
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(call(waiting, client))
            while newcomers and not order:
                await asyncio.sleep(0)
            for client in newcomers:
                group.create_task(call(waiting, client))

    asyncio.run(run())
    return order


def test_a_client_with_many_calls_keeps_no_other_waiting():
    busy = [f"10.0.0.1:{port}" for port in range(20) for _ in range(10)]
    order = [client for client, _ in served(busy, newcomers=("10.0.0.2:1",))]
    assert order.index("10.0.0.2:1") <= 2 * turns._CALLS  # of 201; those of one pause have had their turn before


def test_the_connections_of_an_address_are_served_in_turn():
    order = [client for client, _ in served(["10.0.0.1:1"] * 50 + ["10.0.0.1:2", "10.0.0.1:3"])]
    assert max(order.index("10.0.0.1:2"), order.index("10.0.0.1:3")) < 5
    assert len(order) == 52


def test_of_too_many_calls_the_newest_of_the_busiest_client_is_shed(monkeypatch):
    monkeypatch.setattr(turns, "MAX_WAITING", 10)
    order = served(["10.0.0.1:1"] * 10 + [f"10.0.0.{n}:1" for n in range(2, 6)])
    shed = Counter(client for client, answered in order if not answered)
    assert shed == {"10.0.0.1:1": 4}


def test_a_call_that_its_client_gives_up_leaves_its_place():
    async def run() -> int:
        waiting = Turns()
        tasks = [asyncio.create_task(waiting.wait("10.0.0.1:1")) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert not waiting._waiting
        return found.count(True)

    assert asyncio.run(run()) == 2


def test_the_connections_of_a_client_that_goes_on_are_closed(monkeypatch):
    """Its calls are shed, or it gives them up as soon as it has made them."""
    monkeypatch.setattr(turns, "MAX_UNANSWERED", 5)
    monkeypatch.setattr(turns, "_CALLS", 0)  # none is answered

    async def run() -> list[str]:
        waiting = Turns()
        tasks = [asyncio.create_task(waiting.wait(f"10.0.0.1:{n % 2}")) for n in range(10)]
        tasks += [asyncio.create_task(waiting.wait("10.0.0.2:1")) for _ in range(2)]
        await asyncio.sleep(0)
        for task in tasks[:6]:
            task.cancel()
        await asyncio.sleep(0)
        found = waiting.flooding_clients(100.0)
        assert waiting.flooding_clients(200.0) == []  # it has stopped
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    assert sorted(asyncio.run(run())) == ["10.0.0.1:0", "10.0.0.1:1"]


def test_calls_beyond_the_streams_of_a_connection_wait_in_the_client(both):
    """gRPC's own limit counted streams that had ended, and refused two thirds of the calls of such a client."""
    method = both[1].channel.unary_unary(
        f"/{SERVICE}/ServerMetadata", response_deserializer=message_class("ServerMetadataResponse").FromString
    )
    codes: Counter[Any] = Counter()
    left, done, lock = CALLS, threading.Event(), threading.Lock()

    def call() -> None:
        nonlocal left
        with lock:
            left -= 1
            if left < 0:
                return
        method.future(b"", timeout=PATIENCE_SECONDS, wait_for_ready=True).add_done_callback(ended)

    def ended(future: Any) -> None:
        codes[future.code().name] += 1
        if codes.total() == CALLS:
            done.set()
        call()

    for _ in range(IN_PARALLEL):
        call()
    assert done.wait(PATIENCE_SECONDS)
    assert codes == {"OK": CALLS}


def test_lone_calls_are_answered_without_a_pause(monkeypatch):
    monkeypatch.setattr(turns, "_PAUSE_SECONDS", PATIENCE_SECONDS)

    async def run() -> None:
        waiting = Turns()
        for _ in range(3 * turns._CALLS):
            assert await waiting.wait("10.0.0.1:1", is_alone=True)

    asyncio.run(run())
