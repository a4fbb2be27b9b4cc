"""The hooks of master and workers, called as gunicorn calls them."""

from __future__ import annotations

import queue
import signal
from types import SimpleNamespace

import pytest
from gunicorn.arbiter import Arbiter

from service.config import Settings
from service.server.gunicorn_app import DrainingArbiter, _post_worker_init
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

    def join(self) -> bool:
        self.joined = True
        return True

    def start_sync(self, _: float) -> None:
        self.followed = True


def application(registry: FakeRegistry) -> SimpleNamespace:
    extensions = {"registry": registry, "recorder": RequestRecorder(Metrics())}
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
    assert worker.alive == registry.joined == (early == signal.SIGCHLD)
    assert registry.followed
