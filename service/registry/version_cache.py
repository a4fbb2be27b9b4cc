"""The LRU cache of extra versions in memory: those that are neither a default nor have an alias.

A version is put in at its first request. Above the limit the least recently used one is evicted. The digests of the
evicted ones are remembered, so that their verified copies can be kept for the next request.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Set

from service.registry.loaded_version import LoadedVersion

_MAX_EVICTED = 100  # digests to remember

VersionKey = tuple[str, int]  # name and number


class VersionCache:
    """Loaded versions by name and number, at most `max_versions`; any thread may use it."""

    def __init__(self, max_versions: int) -> None:
        self._max_versions = max_versions
        self._versions: OrderedDict[VersionKey, LoadedVersion] = OrderedDict()
        self._evicted: OrderedDict[VersionKey, str] = OrderedDict()  # their digests, the last one evicted last
        self._lock = threading.Lock()

    def get(self, key: VersionKey) -> LoadedVersion | None:
        """Return a version and mark it as the most recently used; None if it is not in memory."""
        with self._lock:
            if key in self._versions:
                self._versions.move_to_end(key)
            return self._versions.get(key)

    def put(self, key: VersionKey, version: LoadedVersion) -> None:
        """Add a version; evict the least recently used ones above the limit."""
        with self._lock:
            self._versions[key] = version
            self._evicted.pop(key, None)
            while len(self._versions) > self._max_versions:
                evicted, oldest = self._versions.popitem(last=False)
                self._evicted[evicted] = oldest.digest
            while len(self._evicted) > _MAX_EVICTED:
                self._evicted.popitem(last=False)

    def evict_except(self, kept: Set[VersionKey]) -> None:
        """Evict and forget all versions whose keys are not in `kept`."""
        with self._lock:
            for key in self._versions.keys() - kept:
                del self._versions[key]
            for key in self._evicted.keys() - kept:
                del self._evicted[key]

    def evicted_digests(self) -> list[str]:
        """Return the digests of versions that left for others to be loaded, the last one evicted first."""
        with self._lock:
            return list(reversed(self._evicted.values()))

    def versions(self) -> list[LoadedVersion]:
        """Return the versions in memory, the least recently used first."""
        with self._lock:
            return list(self._versions.values())
