"""gRPC beside HTTP, against `python -m service` of two workers in processes of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service.conftest import price
from tests.service.grpc.conftest import GrpcClient, RawConnection, grpc, message_head, request
from tests.service.server.server_process import PATIENCE_SECONDS, ROOT, Server, free_port, serve, until

pytestmark = pytest.mark.slow

FEW_DESCRIPTORS = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
runpy.run_module("service", run_name="__main__", alter_sys=True)
"""
INFER = "/inference.GRPCInferenceService/ModelInfer"
Start = Callable[..., tuple[Server, GrpcClient]]


@pytest.fixture
def start(own_server: Callable[..., Server]) -> Iterator[Start]:
    clients: list[GrpcClient] = []

    def both(**options: Any) -> tuple[Server, GrpcClient]:
        server = own_server(SERVE_GRPC_PORT=str(free_port()), **options)
        clients.append(GrpcClient(server.grpc_port))
        return server, clients[-1]

    yield both
    for client in clients:
        client.channel.close()


def ask(client: GrpcClient, **options: Any) -> Any:
    return client.call("ModelInfer", request("price", rooms=[3.0], area=[80.0]), **options)


def value(answer: Any) -> float:
    return float(np.frombuffer(answer.raw_output_contents[0])[0])


def workers(server: Server) -> list[int]:
    pid = server.process.pid
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def uses_grpc(pid: int) -> bool:
    return "cygrpc" in Path(f"/proc/{pid}/maps").read_text()


def test_every_worker_answers_on_the_port_with_the_bits_of_http(start):
    server, _ = start()
    expected = server.ask("POST", "/models/price/predict", {"instances": [[3, 80]]})[1]["predictions"]
    calls = 0

    def have_both_answered() -> bool:
        nonlocal calls
        calls += 1
        client = GrpcClient(server.grpc_port)  # a connection, to either worker
        assert value(ask(client)) == expected[0]
        client.channel.close()
        return len(set(re.findall(rf"\[(\d+)\] POST {INFER}", server.log))) == 2

    until(have_both_answered)
    metrics = server.ask("GET", "/metrics")[1].decode()
    assert f'forward_pass_requests_total{{model="price",route="{INFER}",status="200",version="1"}} {calls}' in metrics


def test_the_master_never_imports_grpc(start):
    server, client = start()
    ask(client)
    assert until(lambda: [uses_grpc(pid) for pid in workers(server)] == [True, True])  # one may start later
    assert not uses_grpc(server.process.pid)


def test_a_service_without_the_option_does_not_import_grpc(own_server):
    server = own_server()
    assert not any(map(uses_grpc, workers(server)))


def test_a_new_version_is_served(start, store):
    server, client = start()
    store.publish("price", price(1))
    until(lambda: server.version() == 2)
    assert ask(client).model_version == "2"


def test_a_killed_worker_is_replaced_and_both_protocols_go_on(start):
    server, client = start()
    ask(client)
    lost = workers(server)
    for pid in lost:
        os.kill(pid, signal.SIGKILL)

        def again(pid: int = pid) -> bool:
            with contextlib.suppress(grpc.RpcError):
                return pid not in workers(server) and ask(client).model_version == "1"
            return False

        until(again)
        assert server.version() == 1
    until(lambda: len(workers(server)) == 2 and not set(workers(server)) & set(lost))
    until(lambda: all(map(uses_grpc, workers(server))))


@pytest.mark.parametrize("worker", ["event", "gthread"])
def test_stopping_lets_calls_in_progress_complete(start, worker):
    server, client = start(SERVE_WORKER=worker)
    data = request("price", rooms=[3.0], area=[80.0]).SerializeToString()
    late = RawConnection(server.grpc_port)
    late.start(INFER)
    late.send(message_head(len(data)) + data[:5])
    time.sleep(0.3)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in server.log)
    time.sleep(0.5)
    late.send(data[5:], end=True)
    assert b"x-model-version" in late.received(1.0)
    late.close()
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert "Traceback" not in server.log
    with pytest.raises(grpc.RpcError):
        ask(client, wait_for_ready=False)


def test_a_call_that_never_ends_does_not_keep_the_service_from_stopping(start):
    server, _ = start(SERVE_DRAIN_SECONDS="3")
    stuck = RawConnection(server.grpc_port)
    stuck.start(INFER)
    time.sleep(0.3)
    assert server.stop() == 0
    stuck.close()
    assert "Traceback" not in server.log


def test_a_reload_replaces_the_workers_on_the_same_port(start):
    server, client = start()
    ask(client)
    old = set(workers(server))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(workers(server)) == 2 and not old & set(workers(server)))

    def answers() -> bool:
        with contextlib.suppress(grpc.RpcError):
            return ask(client).model_version == "1"
        return False

    until(answers)
    assert server.version() == 1


def test_garbage_on_the_port_does_not_touch_http(start):
    server, client = start()
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = socket.create_connection(("127.0.0.1", server.grpc_port), timeout=PATIENCE_SECONDS)
        with other, contextlib.suppress(OSError):
            other.sendall(rng.bytes(5000))
        raw = RawConnection(server.grpc_port)
        with contextlib.suppress(OSError):
            raw.socket.sendall(rng.bytes(5000))
        assert server.version() == 1
        raw.close()
    assert ask(client).model_version == "1"
    assert "Traceback" not in server.log


def test_silent_connections_leave_descriptors_for_http(start):
    """1,100 of 33 bytes each, with 1,024 descriptors, kept HTTP from accepting connections for a minute."""
    server, _ = start(program=("-c", FEW_DESCRIPTORS), SERVE_WORKERS="1")
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.grpc_port)))
            with contextlib.suppress(OSError):  # it was closed: there are enough
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        for _ in range(10):
            assert server.version() == 1
        (worker,) = workers(server)
        assert len([*Path(f"/proc/{worker}/fd").iterdir()]) < 300
        assert ask(GrpcClient(server.grpc_port)).model_version == "1"  # silent connections made room


def test_responses_that_no_client_reads_shut_out_no_other(start):
    """600 of them, by clients that give no window, kept others from answers for 142 s; 100 checks, all checks."""
    server, client = start(SERVE_WORKERS="1")
    ask(client)
    with contextlib.ExitStack() as stack:
        for method in ("ServerMetadata", "ServerLive"):
            for _ in range(6):
                deaf = RawConnection(server.grpc_port, window=0)
                stack.callback(deaf.close)
                for _ in range(100):
                    deaf.start(f"/inference.GRPCInferenceService/{method}")
                    deaf.send(message_head(0), end=True)
            for _ in range(10):
                assert ask(client).model_version == "1"
                assert client.call("ServerLive").live
    assert "Traceback" not in server.log


def test_a_port_in_use_is_reported(start):
    server, _ = start()
    more = {"SERVE_GRPC_PORT": str(server.grpc_port)}
    done = serve("--store", str(server.store.root), "--port", "0", **more)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert f"cannot listen on 127.0.0.1:{server.grpc_port}" in done.stderr
    assert "choose another --host or --grpc-port" in done.stderr


def test_only_the_admin_listener_has_the_repository(start):
    second = free_port()
    admin = {"SERVE_ADMIN": "true", "SERVE_ADMIN_PORT": str(free_port()), "SERVE_GRPC_ADMIN_PORT": str(second)}
    server, client = start(**admin)
    assert client.error("RepositoryIndex").code() is grpc.StatusCode.UNIMPLEMENTED
    other = GrpcClient(second)
    assert {each.name for each in other.call("RepositoryIndex").models} == {"image", "penguins", "price"}
    other.channel.close()
    assert server.version() == 1


def test_a_failure_of_grpc_leaves_http(store, tmp_path):
    """As if the extra were broken: HTTP is served, and the log says what has failed."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import sys\n"
        "from service import cli\n"
        "class Broken:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'service.grpc.server': raise OSError('no such library')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "cli.main()\n"
    )
    server = Server(store, tmp_path, (str(broken), "--grpc-port", str(free_port())), PYTHONPATH=str(ROOT))
    assert server.version() == 1
    assert "HTTP is served without it" in server.log
    assert server.stop() == 0
