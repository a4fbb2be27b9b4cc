"""The model store: names, immutable versions, and aliases that move between versions.

    <name>/<version>.npz                        an artifact; versions count 1, 2, 3 ...
    <name>/<version>.json                       who published it and when (publication.py)
    <name>/<version>.html                       its report for people; everything in it is in the artifact, too
    <name>/<version>.removed                    a tombstone: the version is removed, its number stays used
    <name>/aliases/<alias>/<revision>.json      where the alias points: version, who, when, why
    <name>/signatures/<version>/<key>.sig       a signature of the version by the holder of a key (signing.py)

These are keys of objects (storage/base.py), and one primitive does everything: put an object whole under a key
that is not taken. Publishing takes the next free number. Moving an alias adds a revision, and the highest revision
counts: compare-and-swap, history and rollback in one. Nothing is ever overwritten. Readers write nothing.
"""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.errors import ConflictError, NotFoundError, StoreError, did_you_mean
from model_store.registry.alias_log import (
    DEFAULT_ALIAS,
    AliasLog,
    AliasRevision,
)
from model_store.registry.alias_moves import AliasMoves
from model_store.registry.garbage_collection import GarbageObject, find_garbage
from model_store.registry.index import LATEST, ModelIndex, check_name, read_all_indexes, read_model_index
from model_store.registry.publication import Publication, commit_version, publication_key, read_publication
from model_store.registry.state import model_state, unreadable_state
from model_store.storage.base import StorageBackend, put_object, translate_os_errors
from model_store.storage.local import LocalStorage
from model_store.storage.open_storage import open_storage
from model_store.utils.current_user import current_user
from model_store.utils.values import NAME_PATTERN, is_name, list_names

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_SIGNATURE_KEY = re.compile(rf"({NAME_PATTERN})/signatures/([1-9][0-9]{{0,17}})/([0-9a-f]{{16}})\.sig")


@dataclass(frozen=True)
class Version:
    """One published version. The content at `location`, a path or a URL, never changes."""

    name: str
    number: int
    digest: str
    location: str


def open_store(location: str | os.PathLike[str], cache_dir: Path | None = None) -> Store:
    """Open the store at a directory, which need not exist before the first model is published, or at a bucket's URL.

    `cache_dir` holds copies of a bucket's artifacts; by default it is in the user's cache directory.
    """
    return Store(open_storage(location, cache_dir))


class Store(AliasMoves):
    """Models by name. Safe for any number of concurrent readers and writers, in any number of processes."""

    def __init__(self, storage: StorageBackend) -> None:
        self.storage = storage
        self._alias_log = AliasLog(storage)

    @property
    def root(self) -> Path:
        """The directory of a local store. StoreError for any other store."""
        if isinstance(self.storage, LocalStorage):
            return self.storage.root
        raise StoreError(f"{self.storage.location}: expected a directory, found a store of another kind")

    def names(self) -> list[str]:
        """Return the models that have a version, and those whose folder cannot be read, sorted by name."""
        unreadable: dict[str, OSError] = {}
        found = read_all_indexes(self.storage, "*/*", unreadable=unreadable)
        return sorted({name for name, index in found.items() if index.versions} | unreadable.keys())

    def versions(self, name: str) -> list[int]:
        """Return the versions that exist, ascending. NotFoundError if there are none."""
        versions = self._versions(name) if is_name(name) else []
        if not versions:
            known = self.names()
            raise NotFoundError(f"no model {name!r} in {self.storage.location}{_did_you_mean_hint(name, known)}", known)
        return versions

    def resolve(self, name: str, ref: int | str | None = None) -> int:
        """Return the version of a reference: a number, an alias, "latest", or None: the default version.

        That is the version of the alias "default", or the newest one while that alias is not set.
        """
        ref = DEFAULT_ALIAS if ref is None else ref
        head, number = None, None
        if isinstance(ref, int) or _NUMBER.fullmatch(ref):
            number = int(ref)
        elif ref != LATEST and is_name(name) and is_name(ref):
            # Read the alias before the versions: a version is published before an alias moves to it.
            head = self._alias_log.head(name, ref)
            number = None if head is None else head.version
        versions = self.versions(name)
        if number in versions:
            return number
        if number is None and ref in {DEFAULT_ALIAS, LATEST}:
            return versions[-1]
        if head is not None and head != self._alias_log.head(name, head.alias):
            return self.resolve(name, ref)  # the alias has moved, and the version it pointed to is removed
        known = [*map(str, versions), *self.aliases(name), LATEST]
        if number is None:
            raise NotFoundError(f"no version or alias {ref!r} of {name!r}{_did_you_mean_hint(str(ref), known)}", known)
        raise NotFoundError(f"no version {number} of {name!r}; there are: {', '.join(known)}", known)

    def path(self, name: str, number: int) -> Path:
        """Return the artifact of a version as a file: the store's own, or a verified copy of a bucket's object."""
        return self._local_path(f"{name}/{self._check_exists(name, number)}.npz")

    def manifest(self, name: str, number: int) -> tuple[Version, dict[str, Any]]:
        """Return a version and its manifest. Its arrays are neither fetched nor verified."""
        key = f"{name}/{self.resolve(name, number)}.npz"
        with self._translate_errors(key, "read a version"):
            manifest, digest = self.storage.read_manifest(key)
        return Version(name, number, digest, self._location(key)), manifest

    def size_bytes(self, name: str, number: int) -> int:
        """Return the size of a version's artifact."""
        key = f"{name}/{number}.npz"
        with self._translate_errors(key, "read a version's size"):
            return self.storage.object_info(key).size

    def load(self, name: str, ref: int | str | None = None) -> tuple[Version, Model]:
        """Load and verify a version. ArtifactError if its file differs from what was published."""
        number = self.resolve(name, ref)
        key = f"{name}/{number}.npz"
        model = npz.read(self._local_path(key, refresh=True))
        return Version(name, number, model.digest or "", self._location(key)), model

    def publish(self, name: str, model: Model, *, who: str | None = None, when: datetime | None = None) -> Version:
        """Add `model` as the next version: complete, durable and readable by everyone when this returns.

        `who` and `when` are recorded beside it; by default the current user and the current time. ArtifactError, and
        nothing is published, if the written file does not reproduce the model's golden outputs.
        """
        check_name("model", name)
        publication = Publication(who or current_user(), when or datetime.now(UTC))
        with self._translate_errors(name, "publish"), self.storage.stage(f"{name}/1.npz") as staged:
            digest = npz.write(staged.file, model)
            staged.file.flush()
            npz.read(staged.path).check_golden()
            number = commit_version(self.storage, staged, name, max(self._numbers(name), default=0), publication)
        return Version(name, number, digest, self._location(f"{name}/{number}.npz"))

    def publication(self, name: str, number: int) -> Publication:
        """Return who published a version and when. Without a record, the date of its artifact and no name."""
        found = read_publication(self.storage, name, number)
        if found is not None:
            return found
        key = f"{name}/{number}.npz"
        with self._translate_errors(key, "read a version's date"):
            return Publication(None, self.storage.object_info(key).modified, recorded=False)

    def check_writable(self, name: str) -> None:
        """Raise StoreError if `publish` could not write. Leave nothing behind."""
        check_name("model", name)
        with self._translate_errors(name, "publish"):
            self.storage.check_writable(f"{name}/1.npz")

    def add_report(self, version: Version, html: str) -> str:
        """Put a version's report, unless it has one. Return its location."""
        key = f"{version.name}/{version.number}.html"
        with self._translate_errors(key, "write a report"):
            # A concurrent `remove` either sees the report and deletes it, or its tombstone is seen here.
            if put_object(self.storage, key, html.encode()) and version.number not in self._versions(version.name):
                self.storage.delete(key)
        return f"{self.storage.location}/{key}"

    def report_location(self, name: str, number: int) -> str | None:
        """Return the location of a version's report, None if it has none."""
        key = f"{name}/{number}.html"
        with self._translate_errors(key, "look for a report"):
            return f"{self.storage.location}/{key}" if self.storage.keys(key) else None

    def add_signature(self, name: str, number: int, fingerprint: str, signature: bytes) -> bool:
        """Put the signature of a version by the key of that fingerprint. Return False if it is there already."""
        key = _signature_key(name, number, fingerprint)
        with self._translate_errors(key, "sign a version"):
            if put_object(self.storage, key, signature):
                return True
        if self.signature(name, number, fingerprint) != signature:
            problem = "expected no other signature by this key, found an invalid one; remove the file"
            raise ConflictError(f"{self._location(key)}: {problem}")
        return False

    def signature(self, name: str, number: int, fingerprint: str) -> bytes | None:
        """Return the unverified signature of a version by the key of that fingerprint, None if there is none."""
        key = _signature_key(name, number, fingerprint)
        with self._translate_errors(key, "read a signature"):
            return self.storage.get(key) if self.storage.keys(key) else None

    def signing_keys(self, name: str, number: int) -> list[str]:
        """Return the fingerprints of the keys that signed a version. The signatures are not verified."""
        with self._translate_errors("", "read the model store"):
            keys = self.storage.keys(f"{name}/signatures/{number}/*")
        return [match[3] for key in keys if (match := _SIGNATURE_KEY.fullmatch(key))]

    def remove(self, name: str, number: int) -> None:
        """Remove a version for good; its number is never used again. ConflictError if an alias points to it."""
        number = self.resolve(name, number)
        tombstone = f"{name}/{number}.removed"
        self._check_unaliased(name, number)
        with self._translate_errors(tombstone, "remove a version"):
            if not put_object(self.storage, tombstone, b""):
                raise ConflictError(f"{name}/{number}: another process has just removed it")
            # The version is now invisible. If an alias moved to it in the meantime, restore it.
            try:
                self._check_unaliased(name, number)
            except ConflictError:
                self.storage.delete(tombstone)
                raise
            self.storage.delete(f"{name}/{number}.npz")
            self.storage.delete(publication_key(name, number))
            self.storage.delete(f"{name}/{number}.html")
            for fingerprint in self.signing_keys(name, number):
                self.storage.delete(_signature_key(name, number, fingerprint))

    def aliases(self, name: str) -> dict[str, int]:
        """Return every alias of a model and the version it points to."""
        self.versions(name)
        return self._alias_log.aliases(name)

    def history(self, name: str, alias: str = DEFAULT_ALIAS) -> list[AliasRevision]:
        """Return every revision of an alias, oldest first."""
        aliases = self.aliases(name)
        if alias not in aliases:
            raise NotFoundError(f"no alias {alias!r} of {name!r}{_did_you_mean_hint(alias, aliases)}", list(aliases))
        return self._alias_log.history(name, alias)

    def recent_moves(self, name: str, limit: int) -> dict[str, list[AliasRevision]]:
        """Return the revisions of every alias, oldest first: at most the `limit` newest of each."""
        self.versions(name)
        return self._alias_log.recent(name, limit)

    def state(self) -> dict[str, dict[str, Any]]:
        """Return all names with their versions and aliases, for followers to compare (state.py).

        A model whose folder cannot be read has its reason under "error"; all others are unaffected.
        """
        unreadable: dict[str, OSError] = {}
        # List aliases before versions: a version is published before an alias moves to it.
        found = read_all_indexes(self.storage, "*/aliases/*/*", "*/*", unreadable=unreadable)
        states = {name: unreadable_state(e.strerror or str(e)) for name, e in unreadable.items()}
        for name in found.keys() - unreadable.keys():
            if found[name].versions:
                states[name] = model_state(self.storage, self._alias_log, name, found[name])
        return dict(sorted(states.items()))

    def find_garbage(self, *, now: datetime, grace: timedelta) -> list[GarbageObject]:
        """Return the objects that interrupted processes left, if they are older than `grace`."""
        with self._translate_errors("", "look for garbage"):
            return find_garbage(self.storage, self._aliased_versions, now=now, grace=grace)

    def delete_garbage(self, garbage: GarbageObject) -> None:
        with self._translate_errors(garbage.key, "delete garbage"):
            self.storage.delete(garbage.key)

    def _aliased_versions(self, name: str) -> set[int] | None:
        """Return the versions that aliases point to, None if an alias cannot be read."""
        index = read_model_index(self.storage, name, "aliases/*/*")
        state = model_state(self.storage, self._alias_log, name, index)
        return None if state["unreadable"] else set(state["aliases"].values())

    def _local_path(self, key: str, *, refresh: bool = False) -> Path:
        with self._translate_errors(key, "fetch a version"):
            return self.storage.local_path(key, refresh=refresh)

    def _numbers(self, name: str) -> dict[int, bool]:
        return read_model_index(self.storage, name, "*").exists_by_number

    def _versions(self, name: str) -> list[int]:
        return read_model_index(self.storage, name, "*").versions

    def _check_exists(self, name: str, number: int) -> int:
        """Return `number`; NotFoundError if the version does not exist. Looks up its own keys, whatever the others."""
        if is_name(name):
            keys = (f"{name}/{number}.{kind}" for kind in ("npz", "removed"))
            if number in read_all_indexes(self.storage, *keys).get(name, ModelIndex()).versions:
                return number
        return self.resolve(name, number)

    def _check_unaliased(self, name: str, number: int) -> None:
        aliases = [repr(alias) for alias, version in self._alias_log.aliases(name).items() if version == number]
        if aliases:
            subject = f"alias {aliases[0]} points" if len(aliases) == 1 else f"aliases {', '.join(aliases)} point"
            raise ConflictError(f"{name}/{number}: cannot remove it: {subject} to it; move the alias first")

    def _location(self, key: str) -> str:
        return f"{self.storage.location}/{key}" if key else self.storage.location

    def _translate_errors(self, key: str, action: str) -> AbstractContextManager[None]:
        return translate_os_errors(self._location(key), action)


def _signature_key(name: str, number: int, fingerprint: str) -> str:
    return f"{name}/signatures/{number}/{fingerprint}.sig"


def _did_you_mean_hint(word: str, known: Any) -> str:
    suggestion = did_you_mean(word, known)
    return "; " + (suggestion or (f"there are: {list_names(list(known))}" if known else "there are none"))
