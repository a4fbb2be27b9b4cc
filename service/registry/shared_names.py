"""Sets of names that all workers share: one empty file each in a directory of the service. They last until it stops.

The models that an operator unloaded are one; to remove a model permanently, remove it from the store. The digests whose
golden predictions a worker has checked are another: the workers run the same code on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class NameSet(Protocol):
    """A set to which names are added; `set[str]` is one."""

    def __contains__(self, name: object, /) -> bool: ...

    def add(self, name: str, /) -> None: ...


class SharedNames:
    def __init__(self, directory: Path) -> None:
        """Create the directory, which must not exist."""
        directory.mkdir(mode=0o700)
        self._directory = directory

    def __contains__(self, name: object) -> bool:
        return (self._directory / str(name)).exists()

    def __iter__(self) -> Iterator[str]:
        """Return all of them, by one look at the directory."""
        return (path.name for path in self._directory.iterdir())

    def add(self, name: str) -> None:
        (self._directory / name).touch(mode=0o600)

    def discard(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
