"""The strata of a stream's rows: the classes of the target, or its tenths; and their division into folds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.streaming.part_plan import NumberCounts
from training.data.streaming.source import DataSource


class Strata:
    """Tells the stratum of records: the code of a class, the tenth of a quantity that is counted, or 0."""

    def __init__(self, source: DataSource, counts: NumberCounts | None) -> None:
        self._target, self._is_class, self._counts = source.target_names[0], source.task == "classification", counts

    def of(self, records: NDArray[Any]) -> NDArray[np.int64]:
        """Return the stratum of each record."""
        target = records[self._target]
        if self._is_class:
            return np.asarray(target.astype(np.int64))
        return np.zeros(len(records), np.int64) if self._counts is None else self._counts.quantile_classes(target)


def fold_places(strata: NDArray[np.int64], seen: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each row, from 0: of `count` successive rows of a stratum, one is in each fold, at random.

    seen: the rows of each stratum before these.
    """
    order = np.argsort(strata, kind="stable")
    sizes = np.bincount(strata, minlength=len(seen))
    place = np.empty(len(strata), np.int64)
    place[order] = np.arange(len(strata)) - np.repeat(sizes.cumsum() - sizes, sizes) + np.repeat(seen, sizes)
    run = place - place % count
    start = np.array(seed, np.uint64) ^ _mix(strata.astype(np.uint64))
    own = _mix(start + place.astype(np.uint64))
    # The fold is the rank of the row's random number among those of its run.
    return np.asarray(sum((_mix(start + (run + i).astype(np.uint64)) < own).astype(np.int64) for i in range(count)))


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return random numbers that are a function of `numbers`: SplitMix64; Steele, Lea & Flood 2014."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
