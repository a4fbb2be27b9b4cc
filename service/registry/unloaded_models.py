"""The withdrawals: the models that an operator has unloaded, a file for each in a directory that all workers see.

They last as long as the service runs: a model that should be gone for good is removed from its store.
"""

from __future__ import annotations

from pathlib import Path


class UnloadedModels:
    def __init__(self, directory: Path) -> None:
        """Makes the directory, which nobody else may have."""
        directory.mkdir(mode=0o700)
        self._directory = directory

    def __contains__(self, name: str) -> bool:
        return (self._directory / name).exists()

    def add(self, name: str) -> None:
        (self._directory / name).touch(mode=0o600)

    def discard(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
