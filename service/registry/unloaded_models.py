"""The models that an operator unloaded: one file each in a directory that all workers share.

The list lasts until the service stops. To remove a model permanently, remove it from the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


class UnloadedModels:
    def __init__(self, directory: Path) -> None:
        """Create the directory, which must not exist."""
        directory.mkdir(mode=0o700)
        self._directory = directory

    def __contains__(self, name: str) -> bool:
        return (self._directory / name).exists()

    def __iter__(self) -> Iterator[str]:
        """Return all of them, by one look at the directory."""
        return (path.name for path in self._directory.iterdir())

    def add(self, name: str) -> None:
        (self._directory / name).touch(mode=0o600)

    def discard(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
