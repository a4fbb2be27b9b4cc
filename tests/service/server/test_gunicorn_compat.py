"""Uses of gunicorn that its documentation does not cover: each test fails when an upgrade moves what we use.

The message of each assertion says what to change in service/server/gunicorn_compat.py.
"""

from __future__ import annotations

import ast
import inspect
import os
import queue
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import errors, wsgi
from gunicorn.http.message import Request
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import ThreadWorker as GunicornThreadWorker

from service.server.event_worker import EventWorker
from service.server.gunicorn_compat import (
    EnvironError,
    HookedArbiter,
    ParsedHead,
    ParseError,
    ThreadWorker,
    early_signals,
    keep_early_signals,
    parse_error_status,
)

SERVICE = Path(__file__).parents[3] / "service"
PEER, LOCAL = ("10.0.0.7", 5000), ("127.0.0.1", 8000)


def parse(*lines: str, start: str = "POST /models/a%20b/predict?receipt=true HTTP/1.1", **options: Any) -> ParsedHead:
    cfg = Config()
    cfg.set("http_parser", "python")
    for name, value in options.items():
        cfg.set(name, value)
    text = "\r\n".join([start, "Host: here", *lines, "", ""]).encode()
    return ParsedHead.parse(cfg, text, PEER, 1)


def modules_that_import_gunicorn() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.split(".")[0] == "gunicorn":
                    found.setdefault(str(path.relative_to(SERVICE)), set()).add(name)
    return found


def test_no_other_module_uses_what_gunicorn_does_not_document() -> None:
    found = modules_that_import_gunicorn()
    assert found.pop("server/gunicorn_compat.py")
    assert found == {"server/gunicorn_app.py": {"gunicorn.app.base"}, "telemetry/logging.py": {"gunicorn.glogging"}}


def test_a_request_is_made_of_settings_bytes_peer_and_number() -> None:
    parameters = list(inspect.signature(Request).parameters)
    assert parameters == ["cfg", "unreader", "peer_addr", "req_number"], "adapt ParsedHead.parse"


def test_a_parsed_head_has_the_attributes_that_the_service_reads() -> None:
    head = parse("Content-Length: 5", "X-Other: a")
    fix = "adapt ParsedHead.parse: gunicorn's request names or formats this differently"
    assert (head.method, head.uri) == ("POST", "/models/a%20b/predict?receipt=true"), fix
    assert (head.path, head.query, head.version) == ("/models/a%20b/predict", "receipt=true", (1, 1)), fix
    assert head.headers == [("HOST", "here"), ("CONTENT-LENGTH", "5"), ("X-OTHER", "a")], fix


@pytest.mark.parametrize(
    ("lines", "length"), [(("Content-Length: 5",), 5), ((), 0), (("Transfer-Encoding: chunked",), None)]
)
def test_the_reader_of_a_body_tells_its_length(lines: tuple[str, ...], length: int | None) -> None:
    assert parse(*lines).content_length == length, "adapt _content_length: the classes of `body.reader` changed"


@pytest.mark.parametrize(
    ("lines", "version", "keep_alive"),
    [((), "1.1", True), (("Connection: close",), "1.1", False), ((), "1.0", False)],
)
def test_a_request_tells_whether_its_connection_closes(lines: tuple[str, ...], version: str, keep_alive: bool) -> None:
    assert parse(*lines, start=f"GET / HTTP/{version}").keep_alive is keep_alive, "adapt the use of `should_close`"


def test_an_expectation_of_100_continue_is_kept_in_a_private_attribute() -> None:
    assert parse("Expect: 100-continue").expects_continue, "adapt the use of `_expected_100_continue`"
    assert not parse().expects_continue


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.LimitRequestLine(5000, 4094), 414),
        (errors.LimitRequestHeaders("too many"), 431),
        (errors.ExpectationFailed("miracles"), 417),
        (errors.UnsupportedTransferCoding("xyz"), 501),
        (errors.InvalidRequestLine("nonsense"), 400),
    ],
)
def test_parse_errors_have_one_base_and_keep_their_classes(error: Exception, status: int) -> None:
    assert isinstance(error, ParseError), "adapt ParseError to gunicorn's new base of parse errors"
    assert int(parse_error_status(error)[:3]) == status, "adapt _STATUS_OF_ERROR"


def test_the_environment_is_that_of_pep_3333() -> None:
    head = parse("Content-Length: 5", "Content-Type: text/csv", "X-Other: a", "X-Other: b")
    environ = head.environ(Config(), PEER, LOCAL)
    expected = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/models/a b/predict", "QUERY_STRING": "receipt=true",
        "RAW_URI": "/models/a%20b/predict?receipt=true", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000", "REMOTE_ADDR": "10.0.0.7", "CONTENT_LENGTH": "5", "CONTENT_TYPE": "text/csv",
        "HTTP_HOST": "here", "HTTP_X_OTHER": "a,b", "wsgi.url_scheme": "http", "wsgi.input_terminated": True,
    }  # fmt: skip
    assert environ.items() >= expected.items(), "adapt ParsedHead.environ to what `gunicorn.http.wsgi.create` returns"


def test_the_environment_is_made_of_request_addresses_and_settings() -> None:
    parameters = list(inspect.signature(wsgi.create).parameters)[:5]
    fix = "adapt ParsedHead.environ to the parameters of `gunicorn.http.wsgi.create`"
    assert parameters == ["req", "sock", "client", "server", "cfg"], fix


def test_an_environment_writes_nothing_to_the_socket() -> None:
    environ = parse("Expect: 100-continue", "Content-Length: 1").environ(Config(), PEER, LOCAL)
    kept = {key for key in environ if key.startswith("gunicorn.") or key == "wsgi.early_hints"}
    assert not kept, "delete these from the environment in ParsedHead.environ: they write to a socket that is None"


def test_a_path_outside_of_script_name_is_an_error() -> None:
    head = parse("SCRIPT_NAME: /y", forwarder_headers="SCRIPT_NAME", forwarded_allow_ips="10.0.0.7")
    with pytest.raises(EnvironError):
        head.environ(Config(), PEER, LOCAL)


def test_a_worker_has_the_attributes_that_event_worker_uses() -> None:
    cfg = Config()
    worker = EventWorker(1, os.getppid(), [], SimpleNamespace(), 30, cfg, Logger(cfg))
    missing = {"alive", "ppid", "cfg", "log", "app", "sockets", "notify", "tmp"} - set(dir(worker))
    assert not missing, f"adapt EventWorker: a worker no longer has {missing}"
    assert (worker.alive, worker.ppid) == (True, os.getppid())
    worker.tmp.close()
    source = inspect.getsource(Worker.load_wsgi)
    assert "self.wsgi = self.app.wsgi()" in source, "adapt EventWorker.set_up: `wsgi` is set elsewhere"
    assert "self.alive = False" in inspect.getsource(Worker.handle_exit), "adapt EventWorker.run: SIGTERM sets `alive`"
    assert "self.run()" in inspect.getsource(Worker.init_process), "adapt EventWorker.run: it is the main loop"


def test_the_master_handles_signals_and_hung_workers_in_methods_that_we_extend(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    for name in ("handle_term", "murder_workers"):
        assert callable(getattr(Arbiter, name, None)), f"adapt HookedArbiter: gunicorn has no `{name}`"
        monkeypatch.setattr(Arbiter, name, lambda _, name=name: called.append(name))
    monkeypatch.setattr(HookedArbiter, "on_stop", lambda _: called.append("on_stop"))
    monkeypatch.setattr(HookedArbiter, "on_tick", lambda _: called.append("on_tick"))
    master = HookedArbiter.__new__(HookedArbiter)
    master.handle_int()
    master.murder_workers()
    assert called == ["on_stop", "handle_term", "murder_workers", "on_tick"]
    assert "self.murder_workers()" in inspect.getsource(Arbiter.run), "adapt on_tick: the loop does not call it"
    assert "handle_{" in inspect.getsource(Arbiter) or "handle_%s" in inspect.getsource(Arbiter), "adapt handle_term"


def test_an_upgrade_in_place_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(Arbiter.handle_usr2), "adapt HookedArbiter: gunicorn has no `handle_usr2`"
    monkeypatch.setattr(Arbiter, "reexec", lambda _: pytest.fail("started another master"))
    logged: list[str] = []
    master = HookedArbiter.__new__(HookedArbiter)
    master.log = SimpleNamespace(warning=logged.append)
    master.handle_usr2()
    assert logged[0].startswith("SIGUSR2 is not supported")


def test_the_master_sends_signals_to_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(inspect.signature(Arbiter.kill_worker).parameters) == ["self", "pid", "sig"], "adapt send_signal"
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(Arbiter, "kill_worker", lambda _, pid, sig: sent.append((pid, sig)))
    HookedArbiter.__new__(HookedArbiter).send_signal(7, signal.SIGTERM)
    assert sent == [(7, signal.SIGTERM)]


def test_a_new_workers_early_signals_are_in_a_queue_of_the_master() -> None:
    source = inspect.getsource(Arbiter)
    assert "self.SIG_QUEUE = queue.SimpleQueue()" in source, "adapt keep_early_signals: the master's queue has moved"
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    worker = SimpleNamespace()
    keep_early_signals(SimpleNamespace(SIG_QUEUE=signals), worker)
    signals.put(signal.SIGTERM)
    assert list(early_signals(worker)) == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("connection", "closes"),
    [
        ("Upgrade, HTTP2-Settings, close", True),
        ("te , Close", True),
        ("close", True),
        ("Upgrade", False),
        ("te", False),
    ],
)
def test_a_thread_closes_a_connection_that_lists_close(
    monkeypatch: pytest.MonkeyPatch, connection: str, closes: bool
) -> None:
    monkeypatch.setattr(GunicornThreadWorker, "handle_request", lambda _, req, conn: not req.should_close())
    request = parse(f"Connection: {connection}").message
    keeps_alive = ThreadWorker.handle_request(object.__new__(ThreadWorker), request, None)
    assert keeps_alive is not closes, "see ThreadWorker.handle_request and gunicorn's Message.force_close"
