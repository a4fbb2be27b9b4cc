"""The store: names, their immutable versions, and aliases that move between versions; here, in a directory.

    <root>/<name>/<version>.npz                          an artifact; versions count 1, 2, 3 ...
    <root>/<name>/<version>.removed                      a tombstone: that version is gone, its number stays used
    <root>/<name>/aliases/<alias>/<generation>.json      where the alias points: version, who, when, why

One primitive does everything: put an object whole under a name that nobody has taken. A hidden temporary file is
written and synced, `link(2)` gives it its name or says that somebody was first, and the directory is synced. Nothing is
ever overwritten, so a crash leaves the new object or none. Publishing takes the next free number. Moving an alias
adds a generation, and the highest counts: compare-and-swap, history and rollback in one. Readers write nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import EllipsisType
from typing import Any, BinaryIO

from model_store import artifact
from model_store.errors import ConflictError, NotFoundError, StoreError, did_you_mean
from model_store.model import Model

DEFAULT = "default"
LATEST = "latest"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_VERSION_FILE = re.compile(r"([1-9][0-9]{0,17})\.(npz|removed)")
_GENERATION_FILE = re.compile(r"([1-9][0-9]{0,17})\.json")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_MENDS = {
    errno.EACCES: "check who owns it and who may write there",
    errno.EPERM: "check who owns it, and that its file system has hard links",
    errno.EROFS: "it is mounted read-only: publish where it can be written",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EEXIST: "a file stands where a directory is wanted; choose another store",
    errno.ENOTDIR: "a file stands where a directory is wanted; choose another store",
    errno.ENOENT: "train a model first, or choose another store",
}


@dataclass(frozen=True)
class Version:
    """One published version. The file at `path` never changes."""

    name: str
    number: int
    digest: str
    path: Path


@dataclass(frozen=True)
class Generation:
    """One move of an alias. `rollback` tells a way back from a way on, so that two rollbacks go back two steps."""

    alias: str
    number: int
    version: int
    who: str
    when: datetime
    why: str
    rollback: bool = False


def open_store(address: str | os.PathLike[str]) -> Store:
    """The store at `address`: a directory, which need not exist before the first model is published."""
    text = os.fspath(address)
    if not text or "://" in text:
        raise StoreError(f"store: wanted the path of a directory, found {text!r}")
    return Store(Path(text).expanduser())


class Store:
    """A directory of models. Safe for any number of readers and writers at a time, in any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The models that have a version, by name."""
        with _explained(self.root, "read the model store"), os.scandir(self.root) as entries:
            names = sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir())
        return [name for name in names if self._versions(name)]

    def versions(self, name: str) -> list[int]:
        """The versions that are there, ascending."""
        versions = self._versions(name) if _NAME.fullmatch(name) else []
        if not versions:
            known = self.names()
            raise NotFoundError(f"no model {name!r} in {self.root}{_hint(name, known)}", known)
        return versions

    def resolve(self, name: str, ref: int | str | None = None) -> int:
        """The version a reference means: a number, an alias, "latest", or None: the alias "default", else latest."""
        versions = self.versions(name)
        if ref == LATEST:
            return versions[-1]
        if isinstance(ref, int) or (ref is not None and _NUMBER.fullmatch(ref)):
            number = int(ref)
        else:
            head = self._head(name, ref or DEFAULT) if ref is None or _NAME.fullmatch(ref) else None
            if head is None and ref is None:
                return versions[-1]
            if head is None:
                known = [*map(str, versions), *self.aliases(name), LATEST]
                raise NotFoundError(f"no version or alias {ref!r} of {name!r}{_hint(str(ref), known)}", known)
            number = head.version
        if number not in versions:
            known = [*map(str, versions), *self.aliases(name), LATEST]
            raise NotFoundError(f"no version {number} of {name!r}; there are: {', '.join(known)}", known)
        return number

    def path(self, name: str, number: int) -> Path:
        """The artifact of a version that is there."""
        return self._path(name, self.resolve(name, number))

    def load(self, name: str, ref: int | str | None = None) -> tuple[Version, Model]:
        """A version, verified. ArtifactError when its file is not what was published."""
        number = self.resolve(name, ref)
        path = self._path(name, number)
        model = artifact.read(path)
        return Version(name, number, model.digest or "", path), model

    def publish(self, name: str, model: Model) -> Version:
        """Add `model` as the next version: whole and on disk when this returns, readable by whoever reads the store.

        ArtifactError, and nothing published, when the written file does not answer as the model did in training.
        """
        _check_name("model", name)
        directory = self.root / name
        with _explained(directory, "publish"):
            _make_directory(directory)
            with _staged(directory) as (staged, file):
                digest = artifact.write(file, model)
                _sync(file)
                artifact.read(staged).check_golden()
                number = max(self._numbers(name), default=0)
                while True:
                    number += 1
                    path = self._path(name, number)
                    # A number can be free of its file and used all the same: see `remove`.
                    if _link(staged, path):
                        if not self._tombstone(name, number).exists():
                            return Version(name, number, digest, path)
                        path.unlink()

    def check_writable(self, name: str) -> None:
        """StoreError now, where `publish` would fail for want of a place to write to. Leaves nothing behind."""
        _check_name("model", name)
        directory = self.root / name
        with _explained(directory, "publish"):
            while not directory.exists():
                directory = directory.parent
            with _staged(directory) as (staged, _):
                twin = staged.with_name(f"{staged.name}-link")
                os.link(staged, twin)
                twin.unlink()

    def remove(self, name: str, number: int) -> None:
        """Remove a version for good; its number is never used again. ConflictError while an alias points to it."""
        number = self.resolve(name, number)
        tombstone = self._tombstone(name, number)
        self._check_unaliased(name, number)
        with _explained(tombstone, "remove a version"):
            with _staged(tombstone.parent) as (staged, _):
                if not _link(staged, tombstone):
                    raise ConflictError(f"{name}/{number}: somebody else removed it just now")
            # The version is invisible now. An alias that moved to it in between shows here, and the version stays.
            try:
                self._check_unaliased(name, number)
            except ConflictError:
                tombstone.unlink(missing_ok=True)
                raise
            self._path(name, number).unlink(missing_ok=True)
            _sync_directory(tombstone.parent)

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model and the version it points to."""
        self.versions(name)
        return self._aliases(name)

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
    ) -> Generation:
        """Point `alias` to a version (a number or another alias).

        ConflictError when somebody else moved it at the same time, or when it does not point to `expected` (None:
        nowhere) any more.
        """
        _check_name("alias", alias)
        number = self.resolve(name, version)
        head = self._head(name, alias)
        present = None if head is None else head.version
        if expected is not ... and expected != present:
            raise ConflictError(
                f"{name}/{alias}: wanted it to point to {expected or 'nothing'}, found {present or 'nothing'}"
            )
        count = 1 if head is None else head.number + 1
        return self._append(name, Generation(alias, count, number, who, when.astimezone(UTC), why))

    def history(self, name: str, alias: str = DEFAULT) -> list[Generation]:
        """Every move of an alias, oldest first."""
        aliases = self.aliases(name)
        if alias not in aliases:
            raise NotFoundError(f"no alias {alias!r} of {name!r}{_hint(alias, aliases)}", list(aliases))
        return [self._generation(name, alias, number) for number in self._generations(name, alias)]

    def rollback(self, name: str, alias: str = DEFAULT, *, who: str, why: str, when: datetime) -> Generation:
        """Point `alias` to the version it had before; once more goes back one more. Removed versions are passed over.

        Where "default" was never set, the newest version answers, and the way back is to the one before.
        """
        versions = self.versions(name)
        moves = [] if alias == DEFAULT and alias not in self._aliases(name) else self.history(name, alias)
        trail = _trail(moves, versions)
        before = [number for number in trail[:-1] if number in versions]
        if not before:
            raise ConflictError(f"{name}/{alias}: no version to roll back to, found only {trail[-1]}")
        move = Generation(alias, len(moves) + 1, before[-1], who, when.astimezone(UTC), why, rollback=True)
        return self._append(name, move)

    def state(self) -> dict[str, dict[str, Any]]:
        """All names with their versions and aliases: what followers compare, without opening an artifact."""
        return {
            name: {"versions": tuple(self._versions(name)), "aliases": self._aliases(name)} for name in self.names()
        }

    def _path(self, name: str, number: int) -> Path:
        return self.root / name / f"{number}.npz"

    def _tombstone(self, name: str, number: int) -> Path:
        return self.root / name / f"{number}.removed"

    def _numbers(self, name: str) -> dict[int, bool]:
        """Every number that was ever used, and whether its version is still there."""
        numbers: dict[int, bool] = {}
        for match in _matches(self.root / name, _VERSION_FILE):
            number = int(match[1])
            numbers[number] = match[2] == "npz" and numbers.get(number, True)
        return numbers

    def _versions(self, name: str) -> list[int]:
        return sorted(number for number, there in self._numbers(name).items() if there)

    def _aliases(self, name: str) -> dict[str, int]:
        found = sorted(match[0] for match in _matches(self.root / name / "aliases", _NAME))
        heads = {alias: self._head(name, alias) for alias in found}
        return {alias: head.version for alias, head in heads.items() if head is not None}

    def _check_unaliased(self, name: str, number: int) -> None:
        holders = [alias for alias, version in self._aliases(name).items() if version == number]
        if holders:
            raise ConflictError(f"{name}/{number}: wanted no alias on it, found {', '.join(holders)}; move that first")

    def _generations(self, name: str, alias: str) -> list[int]:
        directory = self.root / name / "aliases" / alias
        return sorted(int(match[1]) for match in _matches(directory, _GENERATION_FILE))

    def _head(self, name: str, alias: str) -> Generation | None:
        numbers = self._generations(name, alias)
        return self._generation(name, alias, numbers[-1]) if numbers else None

    def _generation(self, name: str, alias: str, number: int) -> Generation:
        path = self.root / name / "aliases" / alias / f"{number}.json"
        with _explained(path, "read an alias"):
            data = path.read_bytes()
        try:
            found = json.loads(data)
            version, when = int(found["version"]), datetime.fromisoformat(found["when"])
            who, why, rollback = str(found["who"]), str(found["why"]), bool(found["rollback"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as e:
            raise StoreError(f"{path}: wanted a move of an alias, found {data[:60]!r}") from e
        return Generation(alias, number, version, who, when, why, rollback)

    def _append(self, name: str, move: Generation) -> Generation:
        path = self.root / name / "aliases" / move.alias / f"{move.number}.json"
        record = {
            "version": move.version,
            "who": move.who,
            "when": move.when.isoformat(),
            "why": move.why,
            "rollback": move.rollback,
        }
        with _explained(path, "move an alias"):
            _make_directory(path.parent)
            with _staged(path.parent) as (staged, file):
                file.write(json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")
                _sync(file)
                if not _link(staged, path):
                    raise ConflictError(f"{name}/{move.alias}: somebody else moved it just now; look, and try again")
        if move.version not in self._versions(name):
            raise ConflictError(f"{name}/{move.version}: removed while {move.alias!r} moved to it; move it once more")
        return move


def _trail(moves: list[Generation], versions: list[int]) -> list[int]:
    """The versions that an alias went through on the way to where it is, without the ways it came back from."""
    if not moves:
        return versions
    first = moves[0]
    trail = [*(number for number in versions if first.rollback and number < first.version), first.version]
    for move in moves:
        if move.rollback:
            while trail and trail[-1] != move.version:
                trail = trail[:-1]
        if not trail or trail[-1] != move.version:
            trail = [*trail, move.version]
    return trail


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise StoreError(f"{kind} {name!r}: wanted a letter or digit, then up to 99 more of them or '.', '_', '-'")
    if kind == "alias" and (name == LATEST or name.isdigit()):
        raise StoreError(f"alias {name!r}: wanted a word, since numbers and 'latest' mean versions already")


def _hint(word: str, known: Any) -> str:
    mend = did_you_mean(word, known)
    return "; " + (mend or (f"there are: {', '.join(known)}" if known else "there are none"))


def _matches(directory: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The names in a directory that match; none where there is no such directory."""
    with _explained(directory, "read the model store"):
        try:
            with os.scandir(directory) as entries:
                return [match for entry in entries if (match := pattern.fullmatch(entry.name))]
        except (FileNotFoundError, NotADirectoryError):
            return []


@contextmanager
def _explained(place: Path, deed: str) -> Iterator[None]:
    """An OSError as a StoreError that says what it kept us from doing, where, and what may help."""
    try:
        yield
    except OSError as e:
        mend = _MENDS.get(e.errno or 0)
        raise StoreError(f"{place}: cannot {deed}: {e.strerror or e}" + (f"; {mend}" if mend else "")) from e


@contextmanager
def _staged(directory: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A hidden new file, gone at the end; `_link` keeps what was written. Nobody may write to it later."""
    path = directory / f".tmp-{os.urandom(8).hex()}"
    try:
        with os.fdopen(os.open(path, _CREATE, 0o444), "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


def _link(staged: Path, target: Path) -> bool:
    """Give a staged file its name for good; False when the name is taken."""
    try:
        os.link(staged, target)
    except FileExistsError:
        return False
    _sync_directory(target.parent)
    return True


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directory(directory: Path) -> None:
    if not directory.is_dir():
        _make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        _sync_directory(directory.parent)
