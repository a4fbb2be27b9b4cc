"""The alias log: each move of an alias is one small JSON object, a revision, and all revisions are its history."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime

from model_store.errors import ConflictError, StoreError
from model_store.registry.index import read_model_index
from model_store.storage.base import MAX_SMALL_OBJECT_BYTES, StorageBackend, put_object, translate_os_errors

DEFAULT_ALIAS = "default"  # the alias of requests without a version; until it is set, they get the newest version
MAX_VERSION = 10**18  # of a version number: 18 digits
FOLLOWS_ALIAS = f"alias {DEFAULT_ALIAS}"
FOLLOWS_NEWEST = f"newest, as the alias {DEFAULT_ALIAS} was never set"


@dataclass(frozen=True)
class AliasRevision:
    """One move of an alias. `rollback` marks a move back, so that two rollbacks go back two steps.

    A `protected` alias moves only via a gate or by force.
    """

    alias: str
    number: int
    version: int
    who: str
    when: datetime
    why: str
    rollback: bool = False
    protected: bool = False

    def to_bytes(self) -> bytes:
        record = {
            "version": self.version,
            "who": self.who,
            "when": self.when.isoformat(),
            "why": self.why,
            "rollback": self.rollback,
            "protected": self.protected,
        }
        return json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_bytes(cls, alias: str, number: int, data: bytes) -> AliasRevision:
        """Parse what `to_bytes` wrote. ValueError for anything else."""
        try:
            found = json.loads(data)
            found = {"protected": False, **found}  # version 0.1 did not write it
            when = datetime.fromisoformat(found["when"])
            when.astimezone()  # OverflowError beyond the years 1 to 9999
            f"{found.get('who')}{found.get('why')}".encode()  # ValueError for lone surrogates, which JSON can escape
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as e:
            raise ValueError(str(e)) from e
        for key, kind in (("version", int), ("who", str), ("why", str), ("rollback", bool), ("protected", bool)):
            if type(found.get(key)) is not kind:
                raise ValueError(f"{key}: expected {kind.__name__}, found {found.get(key)!r:.60}")
        if not 0 < found["version"] < MAX_VERSION:
            raise ValueError("version: expected a version number")
        fields = (found[key] for key in ("rollback", "protected"))
        return cls(alias, number, found["version"], found["who"], when, found["why"], *fields)


def encode_revision(name: str, revision: AliasRevision) -> bytes:
    """Return a revision as it is stored. StoreError for one that readers would reject."""
    try:
        data = revision.to_bytes()
    except ValueError as e:
        raise StoreError(f"{name}/{revision.alias}: expected a name and a reason in valid Unicode; {e}") from e
    if len(data) > MAX_SMALL_OBJECT_BYTES:
        problem = f"expected a reason of {MAX_SMALL_OBJECT_BYTES} bytes at most, found a longer one"
        raise StoreError(f"{name}/{revision.alias}: {problem}")
    return data


class AliasLog:
    """All revisions of every alias of every model. The highest revision of an alias counts."""

    def __init__(self, storage: StorageBackend) -> None:
        self._storage = storage

    def aliases(self, name: str) -> dict[str, int]:
        """Return every alias of a model and the version it points to."""
        latest = self.latest_revisions(name)
        return {alias: self.read(name, alias, number).version for alias, number in latest.items()}

    def latest_revisions(self, name: str) -> dict[str, int]:
        """Return every alias of a model and the number of its latest revision."""
        return read_model_index(self._storage, name, "aliases/*/*").latest_revisions

    def head(self, name: str, alias: str) -> AliasRevision | None:
        """Return the latest revision of an alias, None if the alias is not set."""
        numbers = self._numbers(name, alias)
        return self.read(name, alias, numbers[-1]) if numbers else None

    def history(self, name: str, alias: str) -> list[AliasRevision]:
        """Return every revision of an alias, oldest first."""
        return [self.read(name, alias, number) for number in self._numbers(name, alias)]

    def recent(self, name: str, limit: int) -> dict[str, list[AliasRevision]]:
        """Return the revisions of every alias, oldest first: at most the `limit` newest of each."""
        found = read_model_index(self._storage, name, "aliases/*/*").revisions
        return {
            alias: [self.read(name, alias, number) for number in sorted(found[alias])[-limit:]]
            for alias in sorted(found)
        }

    def read(self, name: str, alias: str, number: int) -> AliasRevision:
        location = f"{self._storage.location}/{_key(name, alias, number)}"
        with translate_os_errors(location, "read an alias"):
            data = self._storage.get(_key(name, alias, number))
        try:
            return AliasRevision.from_bytes(alias, number, data)
        except ValueError as e:
            # Not a byte of it: a link may lead to any file that the reader can read.
            raise StoreError(f"{location}: expected a revision of an alias, found {len(data)} other bytes") from e

    def append(self, name: str, revision: AliasRevision) -> None:
        """Write a revision. ConflictError if another process has written that number first."""
        key, data = _key(name, revision.alias, revision.number), encode_revision(name, revision)
        with translate_os_errors(f"{self._storage.location}/{key}", "move an alias"):
            if not put_object(self._storage, key, data):
                problem = "another process has just moved it; check where it points, then try again"
                raise ConflictError(f"{name}/{revision.alias}: {problem}")

    def _numbers(self, name: str, alias: str) -> list[int]:
        return sorted(read_model_index(self._storage, name, f"aliases/{alias}/*").revisions.get(alias, []))


def _key(name: str, alias: str, number: int) -> str:
    return f"{name}/aliases/{alias}/{number}.json"


def why_default(aliases: Container[str]) -> str:
    """Return why requests without a version get the version that they get, given the aliases of the model."""
    return FOLLOWS_ALIAS if DEFAULT_ALIAS in aliases else FOLLOWS_NEWEST


def rollback_stack(history: list[AliasRevision], versions: list[int]) -> list[int]:
    """Return the versions that an alias went through to its present one; versions that it rolled back from are popped.

    An alias without history is at the newest of `versions`, and went through all before it. So is the alias "default"
    before its first revision, since requests without a version got the newest one until then.
    """
    if not history:
        return versions
    first = history[0]
    before = [number for number in versions if first.alias == DEFAULT_ALIAS and number < first.version]
    stack = [*before, first.version]
    for revision in history:
        if revision.rollback:
            while stack and stack[-1] != revision.version:
                stack.pop()
        if not stack or stack[-1] != revision.version:
            stack.append(revision.version)
    return stack


def check_protection(name: str, head: AliasRevision | None, force: bool) -> bool:
    """Return True if the alias is protected and `force` overrides it. ConflictError if it is protected without."""
    if head is None or not head.protected:
        return False
    if not force:
        fix = "add a gate to models promote (--if), or use --force with models alias or models rollback"
        raise ConflictError(f"{name}/{head.alias}: it is protected; {fix}")
    return True
