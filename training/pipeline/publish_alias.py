"""Move the alias of a job to its new version, without changing what callers get.

Requests without a version get the version of the alias "default", or the newest one while that alias was never set. So
a version that is published under another alias would be live at once. Before it is published, "default" is therefore
set to the version that callers get.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from model_store.errors import ConflictError, StoreError
from model_store.registry.alias_log import DEFAULT_ALIAS, why_default
from model_store.registry.store import Store, Version
from training.pipeline.job import Job


@dataclass(frozen=True)
class PublishedAliases:
    """The alias that points to the new version, and the version that requests without a version get, and why."""

    alias: str | None
    default: int
    why_default: str
    error: StoreError | None = None  # why the alias of the job did not move


class AliasMover:
    """Moves the alias of one job. `who` and `when` are for the history."""

    def __init__(self, store: Store, job: Job, who: str, when: datetime) -> None:
        self._store, self._job, self._who, self._when = store, job, who, when
        self._pinned = False

    def pin_default(self) -> None:
        """Before the new version is published: set "default" to the version that callers get now, if it is not set."""
        name, alias = self._job.settings.model.name, self._job.settings.publish.alias
        if alias in {None, DEFAULT_ALIAS}:
            return
        try:
            self._pinned = self._store.pin_default(name, who=self._who, when=self._when) is not None
        except ConflictError:  # another process has just set it
            self._pinned = False

    def move(self, version: Version) -> PublishedAliases:
        """Point the alias to the new version. StoreError if the aliases cannot be read."""
        store, name, number = self._store, version.name, version.number
        alias, problem = self._job.settings.publish.alias, None
        if alias is not None:
            why = f"published by train {Path(self._job.source).name}"
            try:
                store.set_alias(name, alias, number, who=self._who, why=why, when=self._when)
            except StoreError as error:
                problem = StoreError(f"{name}/{number} is published, but alias {alias!r} was not moved: {error}")
                problem.__cause__ = error
                alias = None
        try:
            default, why = store.resolve(name), why_default(store.aliases(name))
        except StoreError as error:
            raise StoreError(f"{name}/{number} is published, but its aliases cannot be read: {error}") from error
        if self._pinned:
            why += ", set before publishing"
        return PublishedAliases(alias, default, why, problem)
