"""The rows of a stream that are held out, drawn while it is read, before the sizes of its classes are known.

The rows of a class are divided into runs of `1 / fraction` rows, rounded down, and one row of each run is a candidate,
drawn by reservoir sampling with one place (Vitter 1985). So a class has enough candidates after any number of rows,
and equally likely ones, except in its last run, which may be shorter. At the end, `part_sizes` says how many of them
are needed, and the others become training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

RowNumbers = NDArray[np.int64]


class HeldOutSampler:
    """Draws a fraction of the rows of each class as candidates. Rows of a regression are of class 0."""

    def __init__(self, fraction: float, rng: np.random.Generator) -> None:
        self.run_rows = int(1 / fraction + 1e-9) if fraction else 0
        self._rng = rng
        self.counts = np.zeros(0, np.int64)  # of the rows seen of each class
        self._closed: list[tuple[NDArray[Any], ...]] = []  # records, row numbers, classes and keys of candidates
        self._open: tuple[NDArray[Any], ...] = ()  # the candidates of the last runs, which a later row may replace

    def add(self, records: NDArray[Any], numbers: RowNumbers, classes: NDArray[np.int64]) -> NDArray[Any]:
        """Add rows in order of their numbers. Return the training rows: those that are no candidates any more."""
        rows: tuple[NDArray[Any], ...] = (records, numbers, classes, self._rng.random(len(records)))
        added = np.bincount(classes, minlength=len(self.counts))
        seen = np.pad(self.counts, (0, len(added) - len(self.counts)))
        self.counts = seen + added
        if not self.run_rows or not len(records):
            self._closed = self._closed or [tuple(part[:0] for part in rows)]
            return records
        if self._open:
            rows = tuple(np.concatenate(pair) for pair in zip(self._open, rows, strict=True))
            seen -= np.bincount(self._open[2], minlength=len(seen))
        _, _, classes, keys = rows
        order = np.argsort(classes.astype(np.min_scalar_type(len(seen))), kind="stable")  # small integers: radix sort
        classes, keys = classes[order], keys[order]
        totals = self.counts - seen
        runs = (np.arange(len(order)) + np.repeat(seen - (totals.cumsum() - totals), totals)) // self.run_rows
        starts = np.flatnonzero((np.diff(classes, prepend=-1) != 0) | (np.diff(runs, prepend=-1) != 0))
        lowest = np.minimum.reduceat(keys, starts)
        candidates = np.flatnonzero(keys == np.repeat(lowest, np.diff(starts, append=len(order))))
        is_open = runs[candidates] == ((self.counts - 1) // self.run_rows)[classes[candidates]]
        self._open = tuple(part.take(order[candidates[is_open]]) for part in rows)
        self._closed.append(tuple(part.take(order[candidates[~is_open]]) for part in rows))
        is_training = np.ones(len(order), bool)
        is_training[order[candidates]] = False
        return rows[0].compress(is_training)

    def draw(
        self, sizes: Sequence[NDArray[np.int64]], class_of: NDArray[np.int64]
    ) -> tuple[list[tuple[NDArray[Any], RowNumbers]], NDArray[Any]]:
        """Draw parts from the candidates: `sizes` holds the rows of each class for each part.

        class_of: the class that each class of `add` belongs to.
        Return the records and row numbers of each part, in order of the numbers, and the records left over.
        """
        closed = [*self._closed, self._open] if self._open else self._closed
        records, numbers, classes, _ = (np.concatenate(part) for part in zip(*closed, strict=True))
        order = self._rng.permutation(np.argsort(numbers))
        order = order[np.argsort(class_of[classes[order]], kind="stable")]
        classes = class_of[classes[order]]
        counts = np.bincount(classes, minlength=len(sizes[0]))
        place = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)  # within the class
        ends = np.cumsum([np.zeros_like(sizes[0]), *sizes], axis=0)
        drawn = [order[(place >= first[classes]) & (place < end[classes])] for first, end in pairwise(ends)]
        parts = [rows[np.argsort(numbers[rows])] for rows in drawn]
        left = order[place >= ends[-1][classes]]
        return [(records[rows], numbers[rows]) for rows in parts], records[left[np.argsort(numbers[left])]]


class AssignedRows:
    """Keeps the rows of parts that are decided before, evenly spaced ones if there are too many.

    `sizes` holds the number of rows of each part, of training rows first, `most` those to keep of another part.
    """

    def __init__(self, sizes: Sequence[int], most: int) -> None:
        self.steps = [-(-size // most) for size in sizes]
        self._seen = [0] * len(sizes)
        self._kept: list[list[tuple[NDArray[Any], RowNumbers]]] = [[] for _ in sizes]

    def add(self, records: NDArray[Any], numbers: RowNumbers, parts: NDArray[np.int8]) -> NDArray[Any]:
        """Add rows in order of their numbers. Return the training rows."""
        for part in range(1, len(self.steps)):
            rows = np.flatnonzero(parts == part)
            kept = rows[-self._seen[part] % max(1, self.steps[part]) :: max(1, self.steps[part])]
            self._seen[part] += len(rows)
            self._kept[part].append((records[kept], numbers[kept]))
        return records.compress(parts == 0)

    def draw(self) -> list[tuple[NDArray[Any], RowNumbers]]:
        """Return the records and row numbers of each part."""
        found = []
        for kept in self._kept[1:]:
            records, numbers = zip(*kept, strict=True)
            found.append((np.concatenate(records), np.concatenate(numbers)))
        return found
