"""The cache of extra versions in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from service.registry.version_cache import VersionCache


def version(number: int) -> Any:
    return SimpleNamespace(number=number, digest=f"digest {number}")


def numbers(cache: VersionCache) -> list[int]:
    return [each.number for each in cache.versions()]


def filled(*added: int) -> VersionCache:
    cache = VersionCache(2)
    for number in added:
        cache.put(("price", number), version(number))
    return cache


def test_the_least_recently_used_version_is_evicted() -> None:
    cache = filled(1, 2)
    cache.get(("price", 1))
    cache.put(("price", 3), version(3))
    assert numbers(cache) == [1, 3]
    assert cache.get(("price", 2)) is None


def test_only_the_given_versions_are_kept() -> None:
    cache = filled(1, 2)
    cache.evict_except({("price", 2), ("other", 1)})
    assert numbers(cache) == [2]


def test_a_limit_of_zero_keeps_no_version() -> None:
    cache = VersionCache(0)
    cache.put(("price", 1), version(1))
    assert cache.get(("price", 1)) is None


def test_the_digests_of_evicted_versions_are_remembered_until_these_are_loaded_or_leave_the_store() -> None:
    cache = filled(1, 2, 3, 4, 5)
    assert cache.evicted_digests() == ["digest 3", "digest 2", "digest 1"]
    cache.put(("price", 2), version(2))
    assert cache.evicted_digests() == ["digest 4", "digest 3", "digest 1"]
    cache.evict_except({("price", 4), ("price", 5)})
    assert (numbers(cache), cache.evicted_digests()) == ([5], ["digest 4"])


def test_few_evicted_versions_are_remembered() -> None:
    assert len(filled(*range(1000)).evicted_digests()) == 100
