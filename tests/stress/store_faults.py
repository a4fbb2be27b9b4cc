"""Store faults while serving: loaded versions keep serving, readiness and metrics report the fault, and it recovers.

Each fault is applied to the store of a running service and then undone. Meanwhile clients send requests, and every
response must come from a complete version.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from model_store.errors import ModelStoreError
from model_store.registry.store import Store, open_store
from tests.model_store import s3
from tests.service.conftest import break_version, price
from tests.service.server.server_process import Server, until
from tests.stress.clients import Clients
from tests.stress.trial import Control, TrialResult, publish_models, running_service

Undo = Callable[[], object]


def trial(*, short: bool = False) -> TrialResult:
    """Apply every fault in turn, three times; once in the short form. Mounting needs root."""
    result = TrialResult("store faults while serving")
    for _ in range(1 if short else 3):
        for name, fault in FAULTS.items():
            with tempfile.TemporaryDirectory() as folder, fault(Path(folder)) as case:
                if case is None:
                    result.measurements[name] = "skipped: mounting needs root"
                    continue
                if short and name == "slow":
                    case.reported = False  # a bucket has half a minute to respond
                result.measurements[name] = run_fault(result, name, case)
    return result


class Case:
    """A service and a fault of its store. `harm` applies the fault and returns what undoes it."""

    def __init__(self, server: Server, store: Store, harm: Callable[[], Undo], *, reported: bool = True) -> None:
        self.server, self.store, self.harm, self.reported = server, store, harm, reported


def run_fault(result: TrialResult, name: str, case: Case) -> str:
    """Apply a fault and undo it; return what readiness reported meanwhile."""
    server = case.server

    def lose(what: str) -> None:
        result.record_loss(f"{name}: {what}")

    with Clients(server.port, 4, pause=0.002) as clients:
        until(lambda: clients.sent > 50)
        fix = case.harm()
        said = ""
        try:
            if case.reported:
                said = wait_for_problem(lambda: problem(server))
                if not problems_counted(server):
                    lose("forward_pass_problems counts nothing")
            sent = clients.sent
            until(lambda: clients.sent > sent + 200)
        except AssertionError as e:
            lose(f"during the fault: {e}")
        finally:
            fix()
        try:
            until(lambda: server.ask("GET", "/readyz")[1]["status"] == "ready")
            expected = case.store.publish("price", price(9)).number
            until(lambda: server.version() == expected)
        except AssertionError as e:
            lose(f"does not recover: {e}: {server.ask('GET', '/readyz')}")
    result.add_clients(clients.stats, f"{name}: ")
    return said.replace(f"{server.log_path.parent}/", "")[:110] or "no problem"


def wait_for_problem(condition: Callable[[], str]) -> str:
    """Wait up to 40 s: a bucket may take half a minute to respond."""
    for _ in range(400):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("readiness reported no problem in 40 s")


def problem(server: Server) -> str:
    status, body = server.ask("GET", "/readyz")
    return "; ".join(f"{each['location']}: {each['problem']}" for each in body["problems"]) if status == 200 else ""


def problems_counted(server: Server) -> bool:
    figures = server.ask("GET", "/metrics")[1].decode()
    found = re.search(r"^forward_pass_problems ([\d.]+)$", figures, re.MULTILINE)
    return found is not None and float(found[1]) > 0


@contextmanager
def _on_directory(folder: Path, harm: Callable[[Store], Undo], *, reported: bool = True) -> Iterator[Case | None]:
    store = publish_models(folder)
    with running_service(folder, store) as server:
        yield Case(server, store, lambda: harm(store), reported=reported)


@contextmanager
def gone(folder: Path) -> Iterator[Case | None]:
    def harm(store: Store) -> Undo:
        away = store.root.with_name("away")
        store.root.rename(away)
        return lambda: away.rename(store.root)

    with _on_directory(folder, harm) as case:
        yield case


@contextmanager
def emptied(folder: Path) -> Iterator[Case | None]:
    """The store is an empty directory, as a volume is that is no longer mounted."""

    def harm(store: Store) -> Undo:
        away = store.root.with_name("away")
        store.root.rename(away)
        store.root.mkdir()

        def fix() -> None:
            store.root.rmdir()
            away.rename(store.root)

        return fix

    with _on_directory(folder, harm) as case:
        yield case


@contextmanager
def read_only(folder: Path) -> Iterator[Case | None]:
    """The service only reads, so nothing changes."""
    with ExitStack() as stack:
        (folder / "models").mkdir()
        if not mounted(stack, folder / "models", "size=64m"):
            yield None
            return

        def harm(store: Store) -> Undo:
            _remount(store.root, "ro")
            with pytest.raises(ModelStoreError, match="Read-only file system"):
                store.publish("price", price(8))
            return lambda: _remount(store.root, "rw")

        yield stack.enter_context(_on_directory(folder, harm, reported=False))


@contextmanager
def full(folder: Path) -> Iterator[Case | None]:
    """The cache's disk has no space for a copy of a new version."""
    with ExitStack() as stack:
        cache = folder / "small"
        cache.mkdir()
        if not mounted(stack, cache, "size=1m"):
            yield None
            return
        store = publish_models(folder)
        server = stack.enter_context(running_service(folder, store, SERVE_CACHE_DIR=str(cache / "cache")))

        def harm() -> Undo:
            left = os.statvfs(cache)
            (cache / "ballast").write_bytes(bytes(left.f_bavail * left.f_frsize))
            store.publish("price", price(8))
            return (cache / "ballast").unlink

        yield Case(server, store, harm)


@contextmanager
def corrupt(folder: Path) -> Iterator[Case | None]:
    """A new version has wrong bytes, and an alias is not JSON."""

    def harm(store: Store) -> Undo:
        good = store.path("price", 1).read_bytes()
        number = store.publish("other", price(7)).number
        path = store.path("other", number)
        damaged = path.parent.parent / "damaged"
        shutil.copy(path, damaged)
        break_it = bytearray(damaged.read_bytes())
        break_it[-200] ^= 0xFF
        damaged.write_bytes(break_it)
        damaged.rename(store.path("price", 1).with_name("2.npz"))
        break_version(store, "price", 1)  # overwrite the version that is served
        (store.root / "price" / "aliases" / "canary").mkdir(parents=True)
        (store.root / "price" / "aliases" / "canary" / "1.json").write_text("{")

        def fix() -> None:
            shutil.rmtree(store.root / "price" / "aliases" / "canary")
            store.path("price", 1).write_bytes(good)
            store.remove("price", 2)

        return fix

    with _on_directory(folder, harm) as case:
        yield case


@contextmanager
def slow(folder: Path) -> Iterator[Case | None]:
    """A bucket's server accepts connections and does not respond."""
    with s3.running() as bucket, ExitStack() as stack:
        environ = bucket.reset()
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environ.items():
            patch.setenv(name, value)
        store = open_store(bucket.url, folder / "mine")
        store.publish("price", price())
        server = stack.enter_context(running_service(folder, store, SERVE_POLL_SECONDS="0.2"))
        until(lambda: server.ask("GET", "/readyz")[0] == 200)

        def harm() -> Undo:
            bucket.responding.clear()
            return bucket.responding.set

        yield Case(server, store, harm)


FAULTS = {"gone": gone, "empty": emptied, "read-only": read_only, "full": full, "corrupt": corrupt, "slow": slow}


def mounted(stack: ExitStack, path: Path, options: str) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", options, "stress", str(path)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode != 0:
        return False
    stack.callback(subprocess.run, ["umount", "--lazy", path], check=True)  # artifacts may still be mapped
    return True


def _remount(path: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", path], check=True)


def flip_a_weight(store: Store, name: str, number: int) -> None:
    """Flip a bit of a weight, which only a hash can detect."""
    path = store.path(name, number)
    weights = next(iter(store.load(name, number)[1].network.parameters())).tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(weights) + 1] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def controls() -> Iterator[Control]:
    with tempfile.TemporaryDirectory() as folder:
        store = publish_models(Path(folder))
        with running_service(Path(folder), store, without="keeping loaded versions") as server:
            shutil.rmtree(store.root)
            status = until(lambda: (found := server.ask("GET", "/readyz")[0]) != 200 and found)
            asked, _ = server.ask("POST", "/models/price/predict", {"instances": [[3, 80]]})
            yield Control(
                "without keeping loaded versions",
                asked != 200,
                f"the store gone, readiness {status}, predictions {asked}",
            )
    with tempfile.TemporaryDirectory() as folder:
        store = publish_models(Path(folder))
        with running_service(Path(folder), store, without="verifying copies") as server:
            flip_a_weight(store, "price", store.publish("price", price(8)).number)
            until(lambda: server.version() == 2)
            yield Control("without verifying copies", server.version() == 2, "a version with a flipped bit serves")
