"""Store faults while serving: old versions answer, readiness and figures say what is wrong, and it mends itself.

Each fault is done to the store of a running service, and undone again. Meanwhile callers ask for predictions without
a pause, and every one of them has to be answered by a version that is whole.
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
from tests.stress.callers import Callers
from tests.stress.trial import Control, Outcome, models, serving

Mend = Callable[[], object]


def trial(*, short: bool = False) -> Outcome:
    """Every fault in turn, three times over; once in the short form. Mounting needs root."""
    outcome = Outcome("store faults while serving")
    for _ in range(1 if short else 3):
        for name, fault in FAULTS.items():
            with tempfile.TemporaryDirectory() as folder, fault(Path(folder)) as case:
                if case is None:
                    outcome.figures[name] = "cannot be done here: mounting needs root"
                    continue
                if short and name == "slow":
                    case.told = False  # a bucket is given half a minute to answer
                outcome.figures[name] = suffered(outcome, name, case)
    return outcome


class Case:
    """A service, and what is done to its store. `harm` gives what undoes it."""

    def __init__(self, server: Server, store: Store, harm: Callable[[], Mend], *, told: bool = True) -> None:
        self.server, self.store, self.harm, self.told = server, store, harm, told


def suffered(outcome: Outcome, name: str, case: Case) -> str:
    """What readiness said meanwhile."""
    server = case.server

    def lose(what: str) -> None:
        outcome.lose(f"{name}: {what}")

    with Callers(server.port, 4, pause=0.002) as callers:
        until(lambda: callers.sent > 50)
        fix = case.harm()
        said = ""
        try:
            if case.told:
                said = patiently(lambda: problem(server))
                if not problems_counted(server):
                    lose("forward_pass_problems counts nothing")
            sent = callers.sent
            until(lambda: callers.sent > sent + 200)
        except AssertionError as e:
            lose(f"while it lasted: {e}")
        finally:
            fix()
        try:
            until(lambda: server.ask("GET", "/readyz")[1]["status"] == "ready")
            expected = case.store.publish("price", price(9)).number
            until(lambda: server.version() == expected)
        except AssertionError as e:
            lose(f"does not mend itself: {e}: {server.ask('GET', '/readyz')}")
    outcome.count(callers.account, f"{name}: ")
    return said.replace(f"{server.log_path.parent}/", "")[:110] or "nothing is amiss"


def patiently(condition: Callable[[], str]) -> str:
    """Half a minute and more: as long as a bucket may take to answer."""
    for _ in range(400):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("readiness told of nothing in 40 s")


def problem(server: Server) -> str:
    status, body = server.ask("GET", "/readyz")
    return "; ".join(f"{each['location']}: {each['problem']}" for each in body["problems"]) if status == 200 else ""


def problems_counted(server: Server) -> bool:
    figures = server.ask("GET", "/metrics")[1].decode()
    found = re.search(r"^forward_pass_problems ([\d.]+)$", figures, re.MULTILINE)
    return found is not None and float(found[1]) > 0


@contextmanager
def _on_directory(folder: Path, harm: Callable[[Store], Mend], *, told: bool = True) -> Iterator[Case | None]:
    store = models(folder)
    with serving(folder, store) as server:
        yield Case(server, store, lambda: harm(store), told=told)


@contextmanager
def gone(folder: Path) -> Iterator[Case | None]:
    def harm(store: Store) -> Mend:
        away = store.root.with_name("away")
        store.root.rename(away)
        return lambda: away.rename(store.root)

    with _on_directory(folder, harm) as case:
        yield case


@contextmanager
def emptied(folder: Path) -> Iterator[Case | None]:
    """As a volume is that is no longer mounted."""

    def harm(store: Store) -> Mend:
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
    """Whoever only reads does not mind."""
    with ExitStack() as stack:
        (folder / "models").mkdir()
        if not mounted(stack, folder / "models", "size=64m"):
            yield None
            return

        def harm(store: Store) -> Mend:
            _remount(store.root, "ro")
            with pytest.raises(ModelStoreError, match="Read-only file system"):
                store.publish("price", price(8))
            return lambda: _remount(store.root, "rw")

        yield stack.enter_context(_on_directory(folder, harm, told=False))


@contextmanager
def full(folder: Path) -> Iterator[Case | None]:
    """The cache's disk, where the copy of a new version no longer fits."""
    with ExitStack() as stack:
        cache = folder / "small"
        cache.mkdir()
        if not mounted(stack, cache, "size=1m"):
            yield None
            return
        store = models(folder)
        server = stack.enter_context(serving(folder, store, SERVE_CACHE_DIR=str(cache / "cache")))

        def harm() -> Mend:
            left = os.statvfs(cache)
            (cache / "ballast").write_bytes(bytes(left.f_bavail * left.f_frsize))
            store.publish("price", price(8))
            return (cache / "ballast").unlink

        yield Case(server, store, harm)


@contextmanager
def corrupt(folder: Path) -> Iterator[Case | None]:
    """A new version whose bytes are wrong, and an alias that is no JSON."""

    def harm(store: Store) -> Mend:
        good = store.path("price", 1).read_bytes()
        number = store.publish("other", price(7)).number
        path = store.path("other", number)
        damaged = path.parent.parent / "damaged"
        shutil.copy(path, damaged)
        break_it = bytearray(damaged.read_bytes())
        break_it[-200] ^= 0xFF
        damaged.write_bytes(break_it)
        damaged.rename(store.path("price", 1).with_name("2.npz"))
        break_version(store, "price", 1)  # and what is being served is written over
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
    """A bucket whose server is stopped: it takes connections, and says nothing."""
    with s3.running() as bucket, ExitStack() as stack:
        environ = bucket.reset()
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environ.items():
            patch.setenv(name, value)
        store = open_store(bucket.url, folder / "mine")
        store.publish("price", price())
        server = stack.enter_context(serving(folder, store, SERVE_POLL_SECONDS="0.2"))
        until(lambda: server.ask("GET", "/readyz")[0] == 200)

        def harm() -> Mend:
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
    """Where nothing but a hash can tell."""
    path = store.path(name, number)
    weights = next(iter(store.load(name, number)[1].network.parameters())).tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(weights) + 1] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def controls() -> Iterator[Control]:
    with tempfile.TemporaryDirectory() as folder:
        store = models(Path(folder))
        with serving(Path(folder), store, without="keeping what answered") as server:
            shutil.rmtree(store.root)
            status = until(lambda: (found := server.ask("GET", "/readyz")[0]) != 200 and found)
            asked, _ = server.ask("POST", "/models/price/predict", {"instances": [[3, 80]]})
            yield Control(
                "without keeping what answered",
                asked != 200,
                f"the store gone, readiness {status}, predictions {asked}",
            )
    with tempfile.TemporaryDirectory() as folder:
        store = models(Path(folder))
        with serving(Path(folder), store, without="verifying copies") as server:
            flip_a_weight(store, "price", store.publish("price", price(8)).number)
            until(lambda: server.version() == 2)
            yield Control(
                "without verifying copies", server.version() == 2, "a version of which a bit was flipped answers"
            )
