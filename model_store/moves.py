"""The moves of an alias: each is one small object of JSON, and all together are its history."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from model_store.errors import ConflictError


@dataclass(frozen=True)
class Generation:
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
    def from_bytes(cls, alias: str, number: int, data: bytes) -> Generation:
        """ValueError when that is not what `to_bytes` wrote."""
        try:
            found = json.loads(data)
            version, when = int(found["version"]), datetime.fromisoformat(found["when"])
            who, why, rollback = str(found["who"]), str(found["why"]), bool(found["rollback"])
            protected = bool(found.get("protected", False))  # which version 0.1 did not write
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
            raise ValueError(str(e)) from e
        return cls(alias, number, version, who, when, why, rollback, protected)


def trail(moves: list[Generation], versions: list[int]) -> list[int]:
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


def is_protected(name: str, head: Generation | None, force: bool) -> bool:
    """Whether the alias is; ConflictError where that keeps it from moving."""
    if head is None or not head.protected:
        return False
    if not force:
        raise ConflictError(f"{name}/{head.alias}: it is protected; promote a version through a gate, or use --force")
    return True
