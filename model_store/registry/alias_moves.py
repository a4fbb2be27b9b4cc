"""Moves of an alias: to a version, back to the version before, and under protection.

    store.set_alias("penguins", "default", 3, who="ada", why="better", when=now)
    store.rollback("penguins", who="ada", why="confuses Chinstraps", when=now)

Each move appends a revision to the alias log (alias_log.py). Gates are evaluated before, in promotion.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import UTC, datetime
from types import EllipsisType

from model_store.errors import ConflictError, StoreError
from model_store.registry.alias_log import (
    DEFAULT_ALIAS,
    AliasLog,
    AliasRevision,
    check_protection,
    encode_revision,
    rollback_stack,
)
from model_store.registry.index import check_name


class AliasMoves(ABC):
    """The part of a store that moves aliases."""

    _alias_log: AliasLog

    @abstractmethod
    def versions(self, name: str) -> list[int]: ...

    @abstractmethod
    def resolve(self, name: str, ref: int | str | None = None) -> int: ...

    @abstractmethod
    def history(self, name: str, alias: str = DEFAULT_ALIAS) -> list[AliasRevision]: ...

    @abstractmethod
    def _versions(self, name: str) -> list[int]: ...

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
        """Point `alias` to a version, given as a number or another alias.

        ConflictError if another process moves it at the same time, if it no longer points to `expected` (None: it is
        not set), or if it is protected. `force` moves a protected alias, and one whose last revision is unreadable.

        The first move of "default" to a version other than the newest is preceded by a revision with the newest one,
        which requests without a version got until then (`pin_default`), so that a rollback leads back there.
        """
        check_name("alias", alias)
        number = self.resolve(name, version)
        latest = self._alias_log.latest_revisions(name).get(alias, 0)
        try:
            head = self._alias_log.read(name, alias, latest) if latest else None
        except StoreError:
            if not force:
                raise
            head = None
        present = None if head is None else head.version
        if expected is not ... and expected != present:
            raise ConflictError(
                f"{name}/{alias}: expected it to point to {expected or 'nothing'}, found {present or 'nothing'}"
            )
        protected = check_protection(name, head, force)
        revision = AliasRevision(alias, latest + 1, number, who, when.astimezone(UTC), why, protected=protected)
        if alias == DEFAULT_ALIAS and not latest and number != self.versions(name)[-1]:
            encode_revision(name, revision)  # rejected before the first of two moves
            self.pin_default(name, who=who, when=when)
            revision = replace(revision, number=2)
        return self._append(name, revision)

    def pin_default(self, name: str, *, who: str, when: datetime) -> AliasRevision | None:
        """Set the alias "default" to the newest version, so that requests without a version keep getting it.

        Return None, and do nothing, if the alias was ever set or there is no version.
        """
        versions = self._versions(name)
        if not versions or DEFAULT_ALIAS in self._alias_log.latest_revisions(name):
            return None
        why = "the newest version, which requests without a version got until now"
        return self._append(name, AliasRevision(DEFAULT_ALIAS, 1, versions[-1], who, when.astimezone(UTC), why))

    def protect(self, name: str, alias: str, *, protected: bool, who: str, why: str, when: datetime) -> AliasRevision:
        """Protect an alias, or end its protection: a revision with the same version."""
        head = self.history(name, alias)[-1]
        revision = AliasRevision(
            alias, head.number + 1, head.version, who, when.astimezone(UTC), why, protected=protected
        )
        return self._append(name, revision)

    def rollback(
        self, name: str, alias: str = DEFAULT_ALIAS, *, who: str, why: str, when: datetime, force: bool = False
    ) -> AliasRevision:
        """Point `alias` to its previous version; a second rollback goes back one more. Removed versions are skipped.

        If "default" was never set, the newest version serves, and rollback goes to the one before. ConflictError if
        the alias is protected, unless `force`.
        """
        versions = self.versions(name)
        unset = alias == DEFAULT_ALIAS and alias not in self._alias_log.aliases(name)
        history = [] if unset else self.history(name, alias)
        stack = rollback_stack(history, versions)
        before = [number for number in stack[:-1] if number in versions]
        if not before:
            raise ConflictError(f"{name}/{alias}: no version to roll back to, found only {stack[-1]}")
        protected = check_protection(name, history[-1] if history else None, force)
        revision = AliasRevision(alias, len(history) + 1, before[-1], who, when.astimezone(UTC), why, True, protected)
        return self._append(name, revision)

    def _append(self, name: str, revision: AliasRevision) -> AliasRevision:
        self._alias_log.append(name, revision)
        if revision.version not in self._versions(name):
            problem = f"was removed while alias {revision.alias!r} moved to it; move the alias again"
            raise ConflictError(f"{name}/{revision.version}: {problem}")
        return revision
