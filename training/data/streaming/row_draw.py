"""Which rows of a stream are held out: drawn while it is read, or as a column says, or those of a fold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.config.settings import SplitSection
from training.data.splitting import Fold, check_folds, check_part_sizes, check_stratified, divide_rows, part_sizes
from training.data.streaming.held_out import AssignedRows, HeldOutSampler, RowNumbers
from training.data.streaming.part_plan import GroupPlan, count_targets, plan_parts
from training.data.streaming.source import FOLD_FIELD, NUMBER_FIELD, DataSource, DictionaryColumn
from training.data.streaming.strata import Strata, fold_places
from training.errors import DataError

MAX_HELD_OUT_ROWS = 200_000  # about, each for validation and test

HeldOut = tuple[NDArray[Any], RowNumbers]


class RowDraw:
    """Draws the validation and test rows of a stream by the rules of splitting.py and column_splitting.py.

    With a `fold`, its rows are the test rows. For an `ensemble` of so many networks there are no validation rows, and
    each record gets a fold.
    """

    def __init__(
        self,
        source: DataSource,
        shares: SplitSection,
        rng: np.random.Generator,
        fold: Fold | None = None,
        ensemble: int | None = None,
    ) -> None:
        self._source, self._shares, self._rng, self._fold = source, shares, rng, fold
        if shares.by is None:
            check_stratified(shares, source.task, source.name)
        if shares.stratify and source.task == "multi_label":
            problem = "rows with several labels are stratified in memory only, found a stream"
            fix = "remove it, or write stream = false in [data]"
            raise DataError(source.name, [Fault("split.stratify", problem, fix)])
        self._most = MAX_HELD_OUT_ROWS / max(1, source.rows)
        self._test, self._validation = (min(share, self._most) for share in (shares.test, shares.validation))
        capped = replace(shares, test=self._test, validation=self._validation)
        self._plan = None if shares.by is None else plan_parts(source, capped, rng, fold)
        self._ensemble, self._folds, self._places = ensemble, np.zeros(0, np.uint8), np.zeros(0, np.int64)
        # As in memory, a model without test rows is evaluated on its training rows.
        has_test = bool(shares.test or shares.test_file is not None or fold is not None)
        self.evaluates_training = ensemble is None and not has_test
        if ensemble is not None:
            self._validation = 0.0
            if isinstance(self._plan, GroupPlan):
                self._folds = self._plan.divide(ensemble, rng, source.name)
        self._strata = Strata(source, count_targets(source) if shares.stratify else None)
        drawn = self._test + self._validation if fold is None else self._validation * fold.count / (fold.count - 1)
        self._sampler = HeldOutSampler(drawn, rng)
        sizes = [0, 0, -(-source.rows // fold.count)] if fold is not None else [0, 0, 0]
        self._assigned = AssignedRows(sizes if self._plan is None else self._plan.sizes, MAX_HELD_OUT_ROWS)
        self._seed = 0 if fold is None else int(rng.integers(2**63))
        self._ensemble_seed = 0 if ensemble is None else int(rng.integers(2**63))
        self._tested = np.zeros(0, np.int64)  # rows of each stratum that are in the fold

    def with_folds(self, records: NDArray[Any], numbers: RowNumbers, cells: DictionaryColumn | None) -> NDArray[Any]:
        """Return records, which are in order, with their numbers and folds.

        Without an ensemble all are in fold 0 if the model is evaluated on training rows, and else without both.
        """
        if self._ensemble is None and not self.evaluates_training:
            return records
        found = np.empty(len(records), [*records.dtype.descr, (FOLD_FIELD, np.uint8), (NUMBER_FIELD, np.int64)])
        for name in records.dtype.names or ():
            found[name] = records[name]
        found[NUMBER_FIELD] = numbers
        if self._ensemble is None:
            found[FOLD_FIELD] = 0
        elif isinstance(self._plan, GroupPlan) and cells is not None:
            found[FOLD_FIELD] = self._folds.take(self._plan.index(cells))
        else:
            strata = self._strata.of(records)
            size = max(len(self._places), int(strata.max(initial=-1)) + 1)
            self._places = np.pad(self._places, (0, size - len(self._places)))
            found[FOLD_FIELD] = fold_places(strata, self._places, self._ensemble, self._ensemble_seed)
            self._places += np.bincount(strata, minlength=size)
        return found

    def add(self, records: NDArray[Any], numbers: RowNumbers, cells: DictionaryColumn | None) -> NDArray[Any]:
        """Add rows in order, with the `cells` of the split's column. Return those that are training rows now."""
        if self._plan is not None and cells is not None:
            return self._assigned.add(records, numbers, self._plan.assign(cells))
        strata = self._strata.of(records)
        if self._fold is None:
            return self._sampler.add(records, numbers, strata)
        size = max(len(self._tested), int(strata.max(initial=-1)) + 1)
        seen = np.zeros(size, np.int64)
        seen[: len(self._sampler.counts)] += self._sampler.counts
        seen[: len(self._tested)] += self._tested
        is_tested = fold_places(strata, seen, self._fold.count, self._seed) == self._fold.number - 1
        self._tested = np.bincount(strata[is_tested], minlength=size) + np.pad(
            self._tested, (0, size - len(self._tested))
        )
        self._assigned.add(records, numbers, np.where(is_tested, 2, -1).astype(np.int8))
        kept = ~is_tested
        return self._sampler.add(records.compress(kept), numbers[kept], strata[kept])

    def draw(self, class_of: NDArray[np.int64] | None) -> tuple[list[HeldOut], NDArray[Any], list[str]]:
        """Return the validation and the test rows, other training rows, and notes.

        class_of: the class of each stratum, if several strata are one class.
        """
        notes = []
        shares = self._shares
        test, validation = self._test, self._validation
        wanted = shares.test if self._fold is None else 1 / self._fold.count
        if wanted > self._most or (validation < shares.validation and self._ensemble is None):
            notes.append(f"at most about {MAX_HELD_OUT_ROWS} rows each are held out for validation and test")
        if self._plan is not None:
            held_out = self._assigned.draw()
            return held_out, held_out[0][0][:0], [*notes, self._plan.describe()]
        strata = max(1, len(self._sampler.counts), len(self._tested))
        class_of = np.arange(strata) if class_of is None else class_of
        counts, tested = (
            np.bincount(class_of[: len(found)], found, int(class_of.max()) + 1).astype(np.int64)
            for found in (self._sampler.counts, self._tested)
        )
        if self._fold is not None:
            counts = counts + tested
            check_folds(counts, self._fold, self._source.name)
            sizes = divide_rows(validation, counts, counts - 1 - tested, self._rng)
            check_part_sizes(counts, {"validation": (validation, sizes)}, self._source.name)
            (drawn,), left_over = self._sampler.draw([sizes], class_of)
            records, numbers = self._assigned.draw()[1]
            # A class whose rows are all in the fold, as it has one, keeps them for training.
            is_tested = (tested < counts)[class_of[self._strata.of(records)]]
            left_over = np.concatenate([left_over, records[~is_tested]])
            return [drawn, (records[is_tested], numbers[is_tested])], left_over, notes
        test_sizes, validation_sizes = part_sizes(counts, test, validation, self._rng)
        parts = {"test": (test, test_sizes), "validation": (validation, validation_sizes)}
        check_part_sizes(counts, parts, self._source.name)
        return *self._sampler.draw([validation_sizes, test_sizes], class_of), notes
