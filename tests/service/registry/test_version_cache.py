"""The cache of extra versions in memory."""

from __future__ import annotations

from typing import Any

from service.registry.version_cache import VersionCache


def filled(*numbers: int) -> VersionCache:
    cache = VersionCache(2)
    for number in numbers:
        version: Any = f"version {number}"
        cache.put(("price", number), version)
    return cache


def test_the_least_recently_used_version_is_evicted() -> None:
    cache = filled(1, 2)
    cache.get(("price", 1))
    added: Any = "version 3"
    cache.put(("price", 3), added)
    assert cache.versions() == ["version 1", "version 3"]
    assert cache.get(("price", 2)) is None


def test_only_the_given_versions_are_kept() -> None:
    cache = filled(1, 2)
    cache.evict_except({("price", 2), ("other", 1)})
    assert cache.versions() == ["version 2"]


def test_a_limit_of_zero_keeps_no_version() -> None:
    cache = VersionCache(0)
    version: Any = "version 1"
    cache.put(("price", 1), version)
    assert cache.get(("price", 1)) is None
