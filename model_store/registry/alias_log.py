"""The moves of an alias: each is one small object of JSON, and all together are its history."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from model_store.errors import ConflictError, StoreError
from model_store.registry.index import model_index
from model_store.storage.base import MAX_SMALL_OBJECT_BYTES, StorageBackend, put_object, translate_os_errors


@dataclass(frozen=True)
class AliasRevision:
    """One move of an alias. `rollback` tells a way back from a way on, so that two rollbacks go back two steps.

    An alias that is `protected` moves only by force, or through a gate.
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
        """ValueError when that is not what `to_bytes` wrote."""
        try:
            found = json.loads(data)
            version, when = int(found["version"]), datetime.fromisoformat(found["when"])
            who, why, rollback = str(found["who"]), str(found["why"]), bool(found["rollback"])
            protected = bool(found.get("protected", False))  # which version 0.1 did not write
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
            raise ValueError(str(e)) from e
        return cls(alias, number, version, who, when, why, rollback, protected)


class AliasLog:
    """All moves that are kept, of every alias of every model. The highest generation of an alias counts."""

    def __init__(self, storage: StorageBackend) -> None:
        self._storage = storage

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model and the version it points to."""
        latest = self.latest_revisions(name)
        return {alias: self.read(name, alias, number).version for alias, number in latest.items()}

    def latest_revisions(self, name: str) -> dict[str, int]:
        """Every alias of a model and its highest generation."""
        return model_index(self._storage, name, "aliases/*/*").latest_revisions

    def head(self, name: str, alias: str) -> AliasRevision | None:
        """The move that counts, where there is one."""
        numbers = self._numbers(name, alias)
        return self.read(name, alias, numbers[-1]) if numbers else None

    def history(self, name: str, alias: str) -> list[AliasRevision]:
        """Every move of an alias, oldest first."""
        return [self.read(name, alias, number) for number in self._numbers(name, alias)]

    def read(self, name: str, alias: str, number: int) -> AliasRevision:
        location = f"{self._storage.location}/{_key(name, alias, number)}"
        with translate_os_errors(location, "read an alias"):
            data = self._storage.get(_key(name, alias, number))
        try:
            return AliasRevision.from_bytes(alias, number, data)
        except ValueError as e:
            raise StoreError(f"{location}: expected a move of an alias, found {data[:60]!r}") from e

    def append(self, name: str, move: AliasRevision) -> None:
        """ConflictError when somebody else was first."""
        key, data = _key(name, move.alias, move.number), move.to_bytes()
        if len(data) > MAX_SMALL_OBJECT_BYTES:
            problem = f"expected a reason of {MAX_SMALL_OBJECT_BYTES} bytes at most, found a longer one"
            raise StoreError(f"{name}/{move.alias}: {problem}")
        with translate_os_errors(f"{self._storage.location}/{key}", "move an alias"):
            if not put_object(self._storage, key, data):
                raise ConflictError(f"{name}/{move.alias}: somebody else moved it just now; look, and try again")

    def _numbers(self, name: str, alias: str) -> list[int]:
        return sorted(model_index(self._storage, name, f"aliases/{alias}/*").revisions.get(alias, []))


def _key(name: str, alias: str, number: int) -> str:
    return f"{name}/aliases/{alias}/{number}.json"


def rollback_stack(moves: list[AliasRevision], versions: list[int]) -> list[int]:
    """The versions that an alias went through on the way to where it is, without the ways it came back from."""
    if not moves:
        return versions
    first = moves[0]
    found = [*(number for number in versions if first.rollback and number < first.version), first.version]
    for move in moves:
        if move.rollback:
            while found and found[-1] != move.version:
                found = found[:-1]
        if not found or found[-1] != move.version:
            found = [*found, move.version]
    return found


def is_protected(name: str, head: AliasRevision | None, force: bool) -> bool:
    """Whether the alias is; ConflictError where that keeps it from moving."""
    if head is None or not head.protected:
        return False
    if not force:
        raise ConflictError(f"{name}/{head.alias}: it is protected; promote a version through a gate, or use --force")
    return True
