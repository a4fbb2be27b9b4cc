"""The hooks of master and workers, called as gunicorn calls them."""

from __future__ import annotations

import queue
import signal
import socket
from types import SimpleNamespace

import pytest
from gunicorn.arbiter import Arbiter

from service.config import Settings
from service.security.api_keys import ApiKeys
from service.server.gunicorn_app import DrainingArbiter, _post_worker_init, bind_listeners
from service.server.gunicorn_compat import keep_early_signals
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecorder


class FakeRegistry:
    """A registry with two workers that keep others waiting."""

    def __init__(self) -> None:
        self.waited = {101: 31, 102: 61}
        self.joined = self.followed = False

    def overdue_workers(self, seconds: float) -> list[int]:
        return [pid for pid, waited in self.waited.items() if waited > seconds]

    def release_replaced(self) -> None:
        pass

    def start_joining(self) -> None:
        self.joined = True

    has_joined, has_other_workers = True, False

    def start_sync(self, _: float) -> None:
        self.followed = True


def application(registry: FakeRegistry) -> SimpleNamespace:
    extensions = {"registry": registry, "recorder": RequestRecorder(Metrics()), "keys": ApiKeys()}
    extensions["traffic_monitor"] = SimpleNamespace(start=lambda: None)
    return SimpleNamespace(extensions=extensions)


def test_workers_that_block_a_new_version_get_sigterm_once_and_then_sigkill(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Arbiter, "murder_workers", lambda _: None)
    master = DrainingArbiter.__new__(DrainingArbiter)
    master._flask_app, master._terminated = application(FakeRegistry()), frozenset()
    master.cfg = SimpleNamespace(timeout=30, graceful_timeout=25)
    sent: list[tuple[int, int]] = []
    master.kill_worker = lambda pid, how: sent.append((pid, how))
    master.murder_workers()
    assert sorted(sent) == [(101, signal.SIGTERM), (102, signal.SIGKILL), (102, signal.SIGTERM)]
    assert len(caplog.records) == 2
    sent.clear()
    master.murder_workers()
    assert sent == [(102, signal.SIGKILL)]


@pytest.mark.parametrize("early", [signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD])
def test_a_worker_that_gets_sigterm_before_it_has_handlers_ends(early: signal.Signals) -> None:
    handled = signal.getsignal(signal.SIGINT)
    registry = FakeRegistry()
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    worker = SimpleNamespace(alive=True, notify=lambda: None)
    keep_early_signals(SimpleNamespace(SIG_QUEUE=signals), worker)
    signals.put(early)
    try:
        _post_worker_init(application(registry), Settings(), worker)
    finally:
        signal.signal(signal.SIGINT, handled)
    assert worker.alive == (early == signal.SIGCHLD)
    assert registry.joined
    assert registry.followed


def test_a_host_name_is_bound_at_all_of_its_addresses_with_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))] * 2  # fmt: skip
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    listeners = bind_listeners("localhost", 0)
    names = [listener.getsockname()[:2] for listener in listeners]
    assert names == [("127.0.0.1", names[0][1]), ("::1", names[0][1])]
    for listener in listeners:
        listener.close()


def test_an_address_that_the_machine_does_not_have_is_left_out_unless_it_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))
    present = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [absent, present])
    (listener,) = bind_listeners("somewhere", 0)
    assert listener.getsockname()[0] == "127.0.0.1"
    listener.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [absent])
    with pytest.raises(OSError, match="assign requested address"):
        bind_listeners("somewhere", 0)


def test_a_port_in_use_on_one_address_is_an_error_and_leaves_no_socket_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        both = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]  # fmt: skip
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        with pytest.raises(OSError, match="in use"):
            bind_listeners("localhost", port)
        socket.create_server(("127.0.0.1", port)).close()
