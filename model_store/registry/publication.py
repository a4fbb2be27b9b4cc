"""The publication record: who published a version and when, as one small JSON object beside the artifact.

    {"who": "ada", "when": "2026-01-02T03:04:05+00:00", "recorded": true,
     "copies": [{"source": "./models/penguins/3", "who": "bob", "when": "2026-01-05T09:00:00+00:00"}]}

It is not part of the artifact, whose bytes depend on the job, the data and the seed alone. It is put after the
artifact, so a process that dies in between leaves a version without a record. `copies` has every copy from another
store, oldest first; `who` and `when` stay those of the original. The record is not signed: it says what the machine of
its writer said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from model_store.errors import StoreError
from model_store.storage.base import (
    MAX_SMALL_OBJECT_BYTES,
    StagedObject,
    StorageBackend,
    put_object,
    translate_os_errors,
)
from model_store.utils.printable import valid_unicode


@dataclass(frozen=True)
class Copy:
    """A copy of a version from `source`, the location of the version in the other store."""

    source: str
    who: str
    when: datetime


@dataclass(frozen=True)
class Publication:
    """Who published a version and when. Without a record, `when` is the date of the artifact's file or object."""

    who: str | None
    when: datetime
    recorded: bool = True
    copies: tuple[Copy, ...] = ()

    def copied(self, source: str, who: str, when: datetime) -> Publication:
        """Return the record of a copy of this version. A `source` whose path is not UTF-8 is escaped."""
        return replace(self, copies=(*self.copies, Copy(valid_unicode(source), who, when)))

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        copies = [{"source": one.source, "who": one.who, "when": _format(one.when)} for one in self.copies]
        return {"who": self.who, "when": _format(self.when), "recorded": self.recorded, "copies": copies}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Publication:
        """Parse what `as_dict` returned. ValueError for anything else."""
        try:
            who = None if record["who"] is None else _text(record["who"])
            copies = tuple(
                Copy(_text(one["source"]), _text(one["who"]), _parse(one["when"])) for one in record["copies"]
            )
            return cls(who, _parse(record["when"]), bool(record["recorded"]), copies)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as e:
            raise ValueError(str(e)) from e


def publication_key(name: str, number: int) -> str:
    """Return the key of a version's record."""
    return f"{name}/{number}.json"


def encode_publication(name: str, publication: Publication) -> bytes:
    """Return a record as it is stored. StoreError for one that readers would reject."""
    try:
        record = publication.as_dict()
        Publication.from_dict(record)
        data = json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n"
    except (ValueError, TypeError, AttributeError, OverflowError) as e:
        raise StoreError(f"{name}: expected a publication record of a text `who` and a time `when`; {e}") from e
    if len(data) > MAX_SMALL_OBJECT_BYTES:
        problem = f"expected a publication record of {MAX_SMALL_OBJECT_BYTES} bytes at most, found {len(data)}"
        raise StoreError(f"{name}: {problem}; shorten `who`")
    return data


def put_publication(storage: StorageBackend, name: str, number: int, data: bytes) -> bool:
    """Put the record of a version, as `encode_publication` returned it. Return False if it has one."""
    key = publication_key(name, number)
    with translate_os_errors(f"{storage.location}/{key}", f"record who published {name}/{number}, which is published"):
        return put_object(storage, key, data)


def commit_version(
    storage: StorageBackend, staged: StagedObject, name: str, last_number: int, publication: Publication
) -> int:
    """Put a staged artifact under the first free number above `last_number`, then its record. Return the number.

    StoreError, and nothing is put, if the record is one that readers would reject.
    """
    record = encode_publication(name, publication)
    number = last_number
    while True:
        number += 1
        if staged.commit(f"{name}/{number}.npz"):
            put_publication(storage, name, number, record)
            # The key of a removed version is free, but its number is used: see `Store.remove`.
            if not storage.keys(f"{name}/{number}.removed"):
                return number
            storage.delete(f"{name}/{number}.npz")
            storage.delete(publication_key(name, number))


def read_publication(storage: StorageBackend, name: str, number: int) -> Publication | None:
    """Return the record of a version, None if it has none. StoreError if it cannot be read."""
    key = publication_key(name, number)
    location = f"{storage.location}/{key}"
    with translate_os_errors(location, "read who published a version"):
        try:
            data = storage.get(key)
        except FileNotFoundError:
            return None
    try:
        return Publication.from_dict(json.loads(data))
    except (ValueError, RecursionError) as e:
        fix = "delete it; the version stays"
        # Not a byte of it: a link may lead to any file that the reader can read.
        raise StoreError(f"{location}: expected a publication record, found {len(data)} other bytes; {fix}") from e


def _format(when: datetime) -> str:
    return when.astimezone(UTC).isoformat()


def _text(value: Any) -> str:
    """Return a string. TypeError for another value, ValueError for lone surrogates, which JSON can escape."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r:.60}")
    value.encode()
    return value


def _parse(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(f"expected a time zone, found {text!r}")
    return when.astimezone(UTC)
