"""The catalog: the models in memory, following the store.

What is served is one immutable `Snapshot`, replaced as a whole by assigning a reference, so a request sees one state
from its first line to its last. `refresh()` looks at the store once: the default and the aliased versions of every
model are loaded, verified against their golden answers and warmed before they are swapped in. A version that fails
leaves the one before it serving, and is told of by `Snapshot.problems` until it is mended. Other versions are loaded
when somebody asks for them, and forgotten again when more are asked for.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from model_store import artifact
from model_store.cache import localise, trim
from model_store.columns import listed, shown
from model_store.errors import (
    ArtifactError,
    Fault,
    InputError,
    ModelStoreError,
    NotFoundError,
    StoreError,
    did_you_mean,
)
from model_store.model import Model
from service.example import Example, example_of
from service.metrics import Metrics
from service.pace import Pace
from service.schemas import PredictSchema
from service.trust import Vouch
from service.withdrawals import Withdrawals

log = logging.getLogger("service.catalog")

_LONGEST_WAIT = 60.0  # seconds before a version that failed is tried again


class UnknownError(NotFoundError):
    """Asked for a model or version that is not there. `known` are those that are."""

    def __init__(self, place: str, found: object, known: list[str]) -> None:
        self.code = f"unknown_{place}"
        hint = did_you_mean(found, known)
        self.fault = Fault(place, f"wanted one of {listed(known)}; found {shown(found)}", hint)
        super().__init__(f"there is no {place} {shown(found)}; {hint or 'there are ' + listed(known)}", known)


class UnavailableError(Exception):
    """Known, but nothing in memory can answer."""

    def __init__(self, code: str, message: str, fault: Fault) -> None:
        self.code, self.fault = code, fault
        super().__init__(message)


class Followed(Protocol):
    """What the catalog needs of a store."""

    def state(self) -> Mapping[str, Mapping[str, Any]]: ...
    def path(self, name: str, number: int) -> Path: ...


@dataclass(frozen=True, eq=False)
class Served:
    """One version in memory, checked, warmed and ready to answer."""

    name: str
    number: int
    digest: str
    model: Model
    schema: PredictSchema
    example: Example
    pace: Pace


@dataclass(frozen=True)
class Entry:
    """A model: what the store has of it, and what answers to "default" and to each alias."""

    name: str
    versions: tuple[int, ...]
    aliases: Mapping[str, int]
    targets: Mapping[str, Served]

    @property
    def default(self) -> Served | None:
        return self.targets.get("default")


@dataclass(frozen=True)
class Snapshot:
    """Everything that is served, at one moment."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    problems: tuple[Fault, ...] = ()

    @property
    def answering(self) -> list[Served]:
        """The default of every model that has one."""
        return [entry.default for entry in self.entries.values() if entry.default is not None]


@dataclass(frozen=True)
class _Failure:
    problem: str
    attempts: int
    retry_at: float


class Catalog:
    def __init__(
        self,
        store: Followed,
        cache_dir: Path,
        metrics: Metrics,
        *,
        max_instances: int,
        max_extra_versions: int,
        withdrawn: Withdrawals | None = None,
        vouch: Vouch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.snapshot = Snapshot()
        self._store, self._cache_dir, self._metrics, self._clock = store, cache_dir, metrics, clock
        self._max_instances, self._max_extra = max_instances, max_extra_versions
        self.withdrawn: Withdrawals | frozenset[str] = frozenset() if withdrawn is None else withdrawn
        self._loading = threading.Lock()  # one load at a time, so that a burst does not load a version twice
        self._extra: OrderedDict[tuple[str, int], Served] = OrderedDict()
        self._extra_lock = threading.Lock()
        self._failures: dict[tuple[str, int], _Failure] = {}
        self._follower: int | None = None  # the process whose thread follows the store
        self._born = os.getpid()
        self._vouch = vouch

    def find(self, name: str | None, ref: int | str | None = None) -> Served:
        """The version that answers to a model's name (None: the only one) and a number or an alias (None: default)."""
        entry = self._entry(self.snapshot, name)
        if entry.name in self.withdrawn:
            raise _unloaded(entry.name)
        if ref is None or (served := entry.targets.get(str(ref))) is None:
            served = entry.default if ref is None or ref == "default" else self._pinned(entry, ref)
        if served is None:
            raise _broken(entry.name, self.snapshot.problems)
        return served

    def refresh(self) -> bool:
        """Looks at the store once; whether anything that is served has changed. Never raises."""
        with self._loading:
            old = self.snapshot
            problems: list[Fault] = []
            try:
                state = self._store.state()
                if not state and old.entries:
                    raise StoreError("it has become empty, as a volume does that is no longer mounted")
            except (ModelStoreError, OSError) as e:
                fault = Fault("store", f"cannot be read: {e}", "what was loaded before keeps answering")
                kept = [problem for problem in old.problems if problem.place != "store"]
                return self._swap(Snapshot(old.entries, (fault, *kept)))
            entries = {
                name: self._followed(name, state[name], old.entries.get(name), problems)
                for name in sorted(state)
                if state[name]["versions"]
            }
            self._forget(state, entries)
            changed = self._swap(Snapshot(entries, tuple(problems)))
            if changed:
                self._trim()
            return changed

    def withdraw(self, name: str) -> None:
        """Takes a model out of service, in every worker at once, until `readmit`."""
        self._withdrawals().add(self._entry(self.snapshot, name).name)

    def readmit(self, name: str) -> None:
        """Puts a model into service, as the store has it now; UnavailableError where it cannot be loaded."""
        self.refresh()
        entry = self._entry(self.snapshot, name)
        self._withdrawals().discard(name)
        if entry.default is None:
            raise _broken(name, self.snapshot.problems)

    def _withdrawals(self) -> Withdrawals:
        assert isinstance(self.withdrawn, Withdrawals)  # noqa: S101 - who may withdraw has made a place for it
        return self.withdrawn

    def follow(self, poll_seconds: float) -> None:
        """Keeps looking, in a thread of this process; a second call in the same process does nothing."""
        if poll_seconds <= 0 or self._follower == os.getpid():
            return
        self._follower = os.getpid()
        threading.Thread(target=self._poll, args=(poll_seconds,), name="catalog", daemon=True).start()

    def _poll(self, seconds: float) -> None:
        while True:
            time.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - workers should not all look at once
            try:
                self.refresh()
            except Exception:
                log.exception("looking at the store failed; the next look is in %s s", seconds)

    def _entry(self, snapshot: Snapshot, name: str | None) -> Entry:
        entries = snapshot.entries
        if name is not None and name in entries:
            return entries[name]
        if not entries:
            train = "train one: train examples/penguins.toml"
            raise UnavailableError(
                "no_model", f"there is no model to answer; {train}", Fault("store", "is empty", train)
            )
        known = list(entries)
        if name is None:
            if len(known) == 1:
                return entries[known[0]]
            wanted = f"wanted the name of one of {len(known)} models, found none"
            raise InputError([Fault("model", wanted, f"send one of {listed(known)}")])
        raise UnknownError("model", name, known)

    def _pinned(self, entry: Entry, ref: int | str) -> Served:
        """A version by its number, or the newest by `latest`."""
        number = entry.versions[-1] if ref == "latest" else int(ref) if _is_number(ref) else None
        if number not in entry.versions or number is None:
            raise UnknownError("version", ref, [*map(str, entry.versions), *entry.aliases, "latest"])
        for served in entry.targets.values():
            if served.number == number:
                return served
        key = (entry.name, number)
        with self._extra_lock:
            if key in self._extra:
                self._extra.move_to_end(key)
                return self._extra[key]
        with self._loading:
            found = self._extra.get(key) or self._load(*key)
            if found is None:
                fault = Fault(f"{entry.name}/{number}", self._failures[key].problem, "ask for another version")
                raise UnavailableError("model_unavailable", f"{fault.place} cannot be loaded", fault)
            with self._extra_lock:
                self._extra[key] = found
                while len(self._extra) > self._max_extra:
                    self._extra.popitem(last=False)
            self._trim()
        return found

    def _followed(self, name: str, stored: Mapping[str, Any], old: Entry | None, problems: list[Fault]) -> Entry:
        versions, aliases = tuple(stored["versions"]), dict(stored["aliases"])
        before = old.targets if old else {}
        targets: dict[str, Served] = {}
        wanted = {"default": versions[-1], **aliases}
        for alias, reason in stored["unreadable"].items():
            problems.append(
                Fault(f"{name}/{alias}", reason, f"set it again: models alias {name} {alias} VERSION --force")
            )
            wanted.pop(alias, None)
            if alias in before:
                targets[alias] = before[alias]
        for key, number in wanted.items():
            served = self._kept_or_loaded(name, number, before.values(), targets.values(), problems)
            if served is None:
                served = before.get(key)
            if served is None and key == "default" and "default" not in aliases:
                # Nothing to keep, as after a start: the newest that works, as would be serving without the restart.
                older = (self._kept_or_loaded(name, n, (), targets.values(), problems) for n in versions[-2::-1])
                served = next((found for found in older if found), None)
            if served is not None:
                targets[key] = served
        return Entry(name, versions, aliases, targets)

    def _kept_or_loaded(
        self, name: str, number: int, before: Iterable[Served], now: Iterable[Served], problems: list[Fault]
    ) -> Served | None:
        for served in (*now, *before):
            if served.number == number:
                return served
        found = self._extra.get((name, number)) or self._load(name, number)
        place = f"{name}/{number}"
        if found is None and all(problem.place != place for problem in problems):
            problems.append(Fault(place, self._failures[name, number].problem, f"look at it: models verify {place}"))
        return found

    def _load(self, name: str, number: int) -> Served | None:
        """Reads, verifies and warms a version; None, with the reason in `_failures`, when it cannot be served."""
        key = (name, number)
        failure = self._failures.get(key)
        if failure is not None and self._clock() < failure.retry_at:
            return None
        started = self._clock()
        try:
            model, mapped = self._read(name, number)
            if self._vouch is not None:
                self._vouch(name, number, model.digest or "")
            if os.getpid() == self._born:
                # A forked worker leaves this to whoever made the copy, which may be left from an older NumPy here.
                model.check_golden()
            served = Served(
                name,
                number,
                model.digest or "",
                model,
                PredictSchema(self._max_instances, name, model),
                example_of(model),
                Pace(model.network.block_rows),
            )
        except Exception as e:  # whatever is wrong with one version, the others keep serving
            known = isinstance(e, (ModelStoreError, OSError))
            attempts = failure.attempts + 1 if failure else 1
            problem = str(e) if known else f"{type(e).__name__}: {e}"
            self._failures[key] = _Failure(problem, attempts, self._clock() + min(2.0**attempts, _LONGEST_WAIT))
            self._metrics.load_failures.at(name).inc()
            log.error("%s/%d cannot be served: %s", name, number, problem, exc_info=None if known else e)
            return None
        self._failures.pop(key, None)
        self._metrics.loads.at(name).inc()
        waited, took = 1000 * (mapped - started), 1000 * (self._clock() - mapped)
        log.info("loaded %s/%d in %.1f ms, %.0f ms after asking for a verified copy", name, number, took, waited)
        return served

    def _read(self, name: str, number: int) -> tuple[Model, float]:
        """The model, and since when a verified copy was there to map."""
        path = self._store.path(name, number)
        while True:
            copy = localise(path, self._cache_dir)
            ready = self._clock()
            try:
                return artifact.read(copy, verify=False), ready  # `localise` has verified it
            except ArtifactError:
                if copy.exists():
                    raise
                # another worker, which does not know this version yet, has trimmed the cache in between

    def _trim(self) -> None:
        """Drops the cached copies that this process has no use for. Others keep what they have mapped."""
        held = {s.digest for entry in self.snapshot.entries.values() for s in entry.targets.values()}
        with self._extra_lock:
            held |= {served.digest for served in self._extra.values()}
        try:
            trim(self._cache_dir, held)
        except StoreError as e:
            log.warning("%s", e)

    def _forget(self, state: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Entry]) -> None:
        """Drops what is gone from the store, or what now is among the targets."""
        held = {(s.name, s.number) for entry in entries.values() for s in entry.targets.values()}
        stored = {(name, number) for name in state for number in state[name]["versions"]}
        with self._extra_lock:
            for key in [key for key in self._extra if key in held or key not in stored]:
                del self._extra[key]
        for key in self._failures.keys() - stored:
            del self._failures[key]

    def _swap(self, new: Snapshot) -> bool:
        old = self.snapshot
        if new == old:
            return False
        self.snapshot = new
        for problem in set(new.problems) - set(old.problems):
            log.warning("%s", problem)
        for name, entry in new.entries.items():
            before = old.entries[name].default if name in old.entries else None
            if before is not None and entry.default is not None and entry.default.number != before.number:
                self._metrics.reloads.at(name).inc()
                log.info("%s: version %d answers, no longer %d", name, entry.default.number, before.number)
        return True


def _is_number(ref: int | str) -> bool:
    return isinstance(ref, int) or (ref.isascii() and ref.isdigit() and len(ref) < 10)


def _unloaded(name: str) -> UnavailableError:
    mend = f"POST /v2/repository/models/{name}/load puts it back"
    return UnavailableError("model_unavailable", f"{name} has been unloaded; {mend}", Fault(name, "is unloaded", mend))


def _broken(name: str, problems: Iterable[Fault]) -> UnavailableError:
    reasons = [problem for problem in problems if problem.place.startswith(f"{name}/")]
    reason = reasons[0] if reasons else Fault(name, "cannot be loaded")
    return UnavailableError("model_unavailable", f"no version of {name} can answer", reason)
