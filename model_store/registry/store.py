"""The store: names, their immutable versions, and aliases that move between versions.

    <name>/<version>.npz                          an artifact; versions count 1, 2, 3 ...
    <name>/<version>.html                         its report, for people; the artifact has all that is in it
    <name>/<version>.removed                      a tombstone: that version is gone, its number stays used
    <name>/aliases/<alias>/<generation>.json      where the alias points: version, who, when, why
    <name>/signatures/<version>/<key>.sig         that the holder of a key vouches for the version (signing.py)

These are the keys of objects (objects.py), and one primitive does everything: put an object whole under a key that
nobody has taken. Publishing takes the next free number. Moving an alias adds a generation, and the highest counts:
compare-and-swap, history and rollback in one. Nothing is ever overwritten. Readers write nothing.
"""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import EllipsisType
from typing import Any

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.errors import ConflictError, NotFoundError, StoreError, did_you_mean
from model_store.registry.alias_log import AliasLog, AliasRevision, is_protected, rollback_stack
from model_store.registry.garbage_collection import GarbageObject, find_garbage
from model_store.registry.index import ModelIndex, model_index, model_indexes
from model_store.storage.artifact_cache import default_cache_dir
from model_store.storage.base import StorageBackend, put_object, translate_os_errors
from model_store.storage.local import LocalStorage
from model_store.utils.values import NAME_PATTERN, is_name

BUCKET_SCHEMES = ("s3", "gs", "az")
DEFAULT_ALIAS = "default"
LATEST = "latest"

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_SIGNATURE_KEY = re.compile(rf"({NAME_PATTERN})/signatures/([1-9][0-9]{{0,17}})/([0-9a-f]{{16}})\.sig")


@dataclass(frozen=True)
class Version:
    """One published version. What is at `place`, a path or an address, never changes."""

    name: str
    number: int
    digest: str
    location: str


def open_store(location: str | os.PathLike[str], cache_dir: Path | None = None) -> Store:
    """The store at `address`: a directory, which need not exist before the first model is published, or a bucket.

    `cache_dir` is where copies of a bucket's artifacts are kept, if not in the user's usual place.
    """
    text = os.fspath(location)
    scheme, slashes, _ = text.partition("://")
    if slashes and scheme in BUCKET_SCHEMES:
        return Store(_open_bucket(text, cache_dir or default_cache_dir(os.environ)))
    if slashes or not text:
        kinds = ", ".join(f"{known}://" for known in BUCKET_SCHEMES)
        raise StoreError(f"store: expected the path of a directory, or an address with {kinds}; found {text!r}")
    return Store(LocalStorage(Path(text).expanduser()))


def _open_bucket(location: str, cache_dir: Path) -> StorageBackend:
    try:
        from model_store.storage.bucket import BucketStorage  # noqa: PLC0415 - an optional part, which needs a package of its own
    except ModuleNotFoundError as e:
        raise StoreError(f"{location}: needs obstore; install it with: pip install 'forward-pass[buckets]'") from e
    with translate_os_errors(location, "open the model store"):
        return BucketStorage(location, cache_dir)


class Store:
    """Models by name. Safe for any number of readers and writers at a time, in any number of processes."""

    def __init__(self, storage: StorageBackend) -> None:
        self.storage = storage
        self._alias_log = AliasLog(storage)

    @property
    def root(self) -> Path:
        """The directory of a store that is one."""
        if isinstance(self.storage, LocalStorage):
            return self.storage.root
        raise StoreError(f"{self.storage.location}: expected a directory, found a store of another kind")

    def names(self) -> list[str]:
        """The models that have a version, by name."""
        return sorted(name for name, found in model_indexes(self.storage, "*/*").items() if found.versions)

    def versions(self, name: str) -> list[int]:
        """The versions that are there, ascending."""
        versions = self._versions(name) if is_name(name) else []
        if not versions:
            known = self.names()
            raise NotFoundError(f"no model {name!r} in {self.storage.location}{_hint(name, known)}", known)
        return versions

    def resolve(self, name: str, ref: int | str | None = None) -> int:
        """The version a reference means: a number, an alias, "latest", or None: the alias "default", else latest."""
        head, number = None, None
        if isinstance(ref, int) or (ref is not None and _NUMBER.fullmatch(ref)):
            number = int(ref)
        elif ref != LATEST and is_name(name) and is_name(DEFAULT_ALIAS if ref is None else ref):
            # Before the versions: whoever moved it to a new one had published that before.
            head = self._alias_log.head(name, ref or DEFAULT_ALIAS)
            number = None if head is None else head.version
        versions = self.versions(name)
        if number in versions:
            return number
        if number is None and ref in {None, LATEST}:
            return versions[-1]
        if head is not None and head != self._alias_log.head(name, head.alias):
            return self.resolve(name, ref)  # it moved on, and where it was is removed
        known = [*map(str, versions), *self.aliases(name), LATEST]
        if number is None:
            raise NotFoundError(f"no version or alias {ref!r} of {name!r}{_hint(str(ref), known)}", known)
        raise NotFoundError(f"no version {number} of {name!r}; there are: {', '.join(known)}", known)

    def path(self, name: str, number: int) -> Path:
        """The artifact of a version that is there: its own file, or a verified copy of one that is elsewhere."""
        return self._file(f"{name}/{self.resolve(name, number)}.npz")

    def manifest(self, name: str, number: int) -> tuple[Version, dict[str, Any]]:
        """A version and what it says of itself. Its arrays are neither fetched nor verified."""
        key = f"{name}/{self.resolve(name, number)}.npz"
        with self._explained(key, "read a version"):
            manifest, digest = self.storage.read_manifest(key)
        return Version(name, number, digest, self._place(key)), manifest

    def size_bytes(self, name: str, number: int) -> int:
        """The bytes of a version."""
        key = f"{name}/{number}.npz"
        with self._explained(key, "look at a version"):
            return self.storage.object_info(key).size

    def load(self, name: str, ref: int | str | None = None) -> tuple[Version, Model]:
        """A version, verified. ArtifactError when its file is not what was published."""
        number = self.resolve(name, ref)
        key = f"{name}/{number}.npz"
        model = npz.read(self._file(key, refresh=True))
        return Version(name, number, model.digest or "", self._place(key)), model

    def publish(self, name: str, model: Model) -> Version:
        """Add `model` as the next version: whole and on disk when this returns, readable by whoever reads the store.

        ArtifactError, and nothing published, when the written file does not answer as the model did in training.
        """
        _check_name("model", name)
        with self._explained(name, "publish"), self.storage.stage(f"{name}/1.npz") as staged:
            digest = npz.write(staged.file, model)
            staged.file.flush()
            npz.read(staged.path).check_golden()
            number = max(self._numbers(name), default=0)
            while True:
                number += 1
                key = f"{name}/{number}.npz"
                # A number can be free of its file and used all the same: see `remove`.
                if staged.commit(key):
                    if not self.storage.keys(f"{name}/{number}.removed"):
                        return Version(name, number, digest, self._place(key))
                    self.storage.delete(key)

    def check_writable(self, name: str) -> None:
        """StoreError now, where `publish` would fail for want of a place to write to. Leaves nothing behind."""
        _check_name("model", name)
        with self._explained(name, "publish"):
            self.storage.check_writable(f"{name}/1.npz")

    def add_report(self, version: Version, html: str) -> str:
        """Put a version's report beside it, unless one is there already, and say where it is."""
        key = f"{version.name}/{version.number}.html"
        with self._explained(key, "write a report"):
            # Whoever removes the version at this moment either sees the report, or is seen here.
            if put_object(self.storage, key, html.encode()) and version.number not in self._versions(version.name):
                self.storage.delete(key)
        return f"{self.storage.location}/{key}"

    def report_location(self, name: str, number: int) -> str | None:
        """Where the report of a version is, if it has one."""
        key = f"{name}/{number}.html"
        with self._explained(key, "look for a report"):
            return f"{self.storage.location}/{key}" if self.storage.keys(key) else None

    def add_signature(self, name: str, number: int, key: str, signature: bytes) -> bool:
        """Put the signature of a version by the key of that fingerprint beside it; False where it is there already."""
        location = self._signature_key(name, number, key)
        with self._explained(location, "sign a version"):
            if put_object(self.storage, location, signature):
                return True
        if self.signature(name, number, key) != signature:
            raise ConflictError(
                f"{self._place(location)}: expected room for a signature, found a wrong one; remove the file"
            )
        return False

    def signature(self, name: str, number: int, key: str) -> bytes | None:
        """The signature of a version by the key of that fingerprint, unchecked, if there is one."""
        location = self._signature_key(name, number, key)
        with self._explained(location, "read a signature"):
            return self.storage.get(location) if self.storage.keys(location) else None

    def signing_keys(self, name: str, number: int) -> list[str]:
        """The fingerprints of the keys that a version has signatures of, unchecked."""
        with self._explained("", "read the model store"):
            keys = self.storage.keys(self._signature_key(name, number, "*"))
        return [match[3] for key in keys if (match := _SIGNATURE_KEY.fullmatch(key))]

    def remove(self, name: str, number: int) -> None:
        """Remove a version for good; its number is never used again. ConflictError while an alias points to it."""
        number = self.resolve(name, number)
        tombstone = f"{name}/{number}.removed"
        self._check_unaliased(name, number)
        with self._explained(tombstone, "remove a version"):
            if not put_object(self.storage, tombstone, b""):
                raise ConflictError(f"{name}/{number}: somebody else removed it just now")
            # The version is invisible now. An alias that moved to it in between shows here, and the version stays.
            try:
                self._check_unaliased(name, number)
            except ConflictError:
                self.storage.delete(tombstone)
                raise
            self.storage.delete(f"{name}/{number}.npz")
            self.storage.delete(f"{name}/{number}.html")
            for key in self.signing_keys(name, number):
                self.storage.delete(self._signature_key(name, number, key))

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model and the version it points to."""
        self.versions(name)
        return self._alias_log.aliases(name)

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int | str,
        *,
        who: str,
        why: str,
        when: datetime,
        expected: int | EllipsisType | None = ...,
        force: bool = False,
    ) -> AliasRevision:
        """Point `alias` to a version (a number or another alias).

        ConflictError when somebody else moved it at the same time, when it does not point to `expected` (None:
        nowhere) any more, or when it is protected. `force` moves it all the same, and mends it if it cannot be read.
        """
        _check_name("alias", alias)
        number = self.resolve(name, version)
        generation = self._alias_log.latest_revisions(name).get(alias, 0)
        try:
            head = self._alias_log.read(name, alias, generation) if generation else None
        except StoreError:
            if not force:
                raise
            head = None
        present = None if head is None else head.version
        if expected is not ... and expected != present:
            raise ConflictError(
                f"{name}/{alias}: expected it to point to {expected or 'nothing'}, found {present or 'nothing'}"
            )
        protected = is_protected(name, head, force)
        return self._move(
            name, AliasRevision(alias, generation + 1, number, who, when.astimezone(UTC), why, protected=protected)
        )

    def protect(self, name: str, alias: str, *, protected: bool, who: str, why: str, when: datetime) -> AliasRevision:
        """Protect an alias where it is, or end its protection: a move to the same version, for the record."""
        head = self.history(name, alias)[-1]
        move = AliasRevision(alias, head.number + 1, head.version, who, when.astimezone(UTC), why, protected=protected)
        return self._move(name, move)

    def history(self, name: str, alias: str = DEFAULT_ALIAS) -> list[AliasRevision]:
        """Every move of an alias, oldest first."""
        aliases = self.aliases(name)
        if alias not in aliases:
            raise NotFoundError(f"no alias {alias!r} of {name!r}{_hint(alias, aliases)}", list(aliases))
        return self._alias_log.history(name, alias)

    def rollback(
        self, name: str, alias: str = DEFAULT_ALIAS, *, who: str, why: str, when: datetime, force: bool = False
    ) -> AliasRevision:
        """Point `alias` to the version it had before; once more goes back one more. Removed versions are passed over.

        Where "default" was never set, the newest version answers, and the way back is to the one before. ConflictError
        when the alias is protected, unless by `force`.
        """
        versions = self.versions(name)
        moves = (
            [] if alias == DEFAULT_ALIAS and alias not in self._alias_log.aliases(name) else self.history(name, alias)
        )
        path = rollback_stack(moves, versions)
        before = [number for number in path[:-1] if number in versions]
        if not before:
            raise ConflictError(f"{name}/{alias}: no version to roll back to, found only {path[-1]}")
        protected = is_protected(name, moves[-1] if moves else None, force)
        move = AliasRevision(alias, len(moves) + 1, before[-1], who, when.astimezone(UTC), why, True, protected)
        return self._move(name, move)

    def state(self) -> dict[str, dict[str, Any]]:
        """All names with their versions and aliases: what followers compare, without opening an artifact.

        An alias whose file cannot be read is among "unreadable", with the reason; all others are none the worse.
        """
        # Versions after aliases: whoever moves one to a new version has published that before.
        found = model_indexes(self.storage, "*/aliases/*/*", "*/*")
        return {name: self._state(name, found[name]) for name in sorted(found) if found[name].versions}

    def _state(self, name: str, found: ModelIndex) -> dict[str, Any]:
        aliases: dict[str, int] = {}
        unreadable: dict[str, str] = {}
        for alias, generation in found.latest_revisions.items():
            try:
                aliases[alias] = self._alias_log.read(name, alias, generation).version
            except StoreError as e:
                unreadable[alias] = str(e)
        return {"versions": tuple(found.versions), "aliases": aliases, "unreadable": unreadable}

    def find_garbage(self, *, now: datetime, grace: timedelta) -> list[GarbageObject]:
        """What the dead left, and may be collected."""
        with self._explained("", "look for garbage"):
            return find_garbage(self.storage, self._aliased_versions, now=now, grace=grace)

    def delete_garbage(self, garbage: GarbageObject) -> None:
        with self._explained(garbage.key, "collect garbage"):
            self.storage.delete(garbage.key)

    def _aliased_versions(self, name: str) -> set[int] | None:
        state = self._state(name, model_index(self.storage, name, "aliases/*/*"))
        return None if state["unreadable"] else set(state["aliases"].values())

    def _file(self, key: str, *, refresh: bool = False) -> Path:
        with self._explained(key, "fetch a version"):
            return self.storage.local_path(key, refresh=refresh)

    def _numbers(self, name: str) -> dict[int, bool]:
        return model_index(self.storage, name, "*").exists_by_number

    def _versions(self, name: str) -> list[int]:
        return model_index(self.storage, name, "*").versions

    def _check_unaliased(self, name: str, number: int) -> None:
        holders = [alias for alias, version in self._alias_log.aliases(name).items() if version == number]
        if holders:
            raise ConflictError(
                f"{name}/{number}: expected no alias on it, found {', '.join(holders)}; move that first"
            )

    def _move(self, name: str, move: AliasRevision) -> AliasRevision:
        self._alias_log.append(name, move)
        if move.version not in self._versions(name):
            raise ConflictError(f"{name}/{move.version}: removed while {move.alias!r} moved to it; move it once more")
        return move

    @staticmethod
    def _signature_key(name: str, number: int, key: str) -> str:
        return f"{name}/signatures/{number}/{key if key == '*' else f'{key}.sig'}"

    def _place(self, key: str) -> str:
        return f"{self.storage.location}/{key}" if key else self.storage.location

    def _explained(self, key: str, deed: str) -> AbstractContextManager[None]:
        return translate_os_errors(self._place(key), deed)


def _check_name(kind: str, name: str) -> None:
    if not is_name(name):
        raise StoreError(f"{kind} {name!r}: expected a letter or digit, then up to 99 more of them or '.', '_', '-'")
    if kind == "alias" and (name == LATEST or name.isdigit()):
        raise StoreError(f"alias {name!r}: expected a word, since numbers and 'latest' mean versions already")


def _hint(word: str, known: Any) -> str:
    fix = did_you_mean(word, known)
    return "; " + (fix or (f"there are: {', '.join(known)}" if known else "there are none"))
