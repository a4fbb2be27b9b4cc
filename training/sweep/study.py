"""A study: the trials of a search, shared by all of its processes, each set of values evaluated once.

Every trial is written with its values before it runs, and its lock (locks.py) is held while it runs. If its process is
killed, another one finds the lock free, marks the trial as failed and tries the same values once more. The choice of
the next trial is serialized, so `trials` is the exact number of sets that all processes try together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from model_store.errors import Fault
from model_store.utils.values import describe_value, is_finite_number
from training.config.fields import quoted
from training.config.settings import SearchSection
from training.engine.checkpoint import find_differences
from training.sweep.errors import OtherStudyError, StudyError, StudyInUseError
from training.sweep.locks import CLAIM, FIRST_TRIAL, SEARCH, Locks, hold
from training.sweep.sampling import SpaceCodec, draw, params_key

_IDENTITY, _PUBLISHED, _REASON, _EPOCHS = "identity", "published", "reason", "epochs"
KILLED, INTERRUPTED = "its process was killed", "it was interrupted"  # reasons for another attempt
_OTHER_STUDY = "begin another study with --study NAME or --storage FILE"
_MAX_KILLED = 2  # attempts at one set of values whose process was killed
_STARTUP_TRIALS, _WARM_UP_EPOCHS, _REDUCTION = 5, 3, 3


@dataclass
class Tried:
    """A set of values and the trials that had it: the last one counts. `number` counts sets, from 1."""

    number: int
    values: dict[str, Any]
    attempts: list[FrozenTrial] = field(default_factory=list)

    @property
    def last(self) -> FrozenTrial:
        return self.attempts[-1]

    @property
    def reason(self) -> str:
        return str(self.last.user_attrs.get(_REASON, ""))

    @property
    def is_repeatable(self) -> bool:
        """Whether the values are to be tried again, because their process was killed once, or interrupted."""
        if self.last.state is not TrialState.FAIL or self.reason not in (KILLED, INTERRUPTED):
            return False
        return [one.user_attrs.get(_REASON) for one in self.attempts].count(KILLED) < _MAX_KILLED

    @property
    def state(self) -> str:
        """Return complete, pruned, failed, running or waiting."""
        if self.is_repeatable:
            return "waiting"
        return {
            TrialState.COMPLETE: "complete",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
        }.get(self.last.state, "running")

    @property
    def value(self) -> float | None:
        return self.last.value if self.last.state is TrialState.COMPLETE else None

    @property
    def epochs(self) -> int | None:
        found: int | None = self.last.user_attrs.get(_EPOCHS)
        return found


@dataclass(frozen=True)
class Claim:
    """A trial that this process runs: its number in the study, the number of its set, and the values of the job."""

    trial: Trial
    index: int
    number: int
    values: dict[str, Any]


class Study:
    """The study of one search in a storage, with its locks.

    identity: what the study belongs to. OtherStudyError if it was begun with another one.
    """

    def __init__(
        self,
        storage: BaseStorage,
        locks: Locks,
        name: str,
        search: SearchSection,
        *,
        higher_is_better: bool,
        max_epochs: int,
        seed: int,
        identity: Mapping[str, Any],
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name, self.search, self.seed, self._locks, self._warn = name, search, seed, locks, warn
        self.codec = SpaceCodec(search.space)
        self.direction = StudyDirection.MAXIMIZE if higher_is_better else StudyDirection.MINIMIZE
        self.pruner = make_pruner(search.pruning, max_epochs)
        with self._claiming():
            self._study = self._open(storage)
            self._storage, self._id = storage, storage.get_study_id_from_name(name)
            self._check_identity(identity)
            if (directions := self._study.directions) != [self.direction]:
                found = ", ".join(one.name.lower() for one in directions) or "none"
                raise StudyError(f"study {name}: expected {self.direction.name.lower()}, found {found}; {_OTHER_STUDY}")

    def _open(self, storage: BaseStorage) -> optuna.Study:
        sampler = optuna.samplers.RandomSampler()  # draws nothing: see `draw`
        try:
            return optuna.load_study(storage=storage, study_name=self.name, pruner=self.pruner, sampler=sampler)
        except KeyError:
            return optuna.create_study(
                storage=storage,
                study_name=self.name,
                direction=self.direction,
                pruner=self.pruner,
                sampler=sampler,
            )

    def tried(self) -> list[Tried]:
        """Return the sets of values that were begun, in the order of their first trial."""
        return self._tried(self._trials())

    def _tried(self, trials: Sequence[FrozenTrial]) -> list[Tried]:
        found: dict[str, Tried] = {}
        for trial in trials:
            key = params_key(trial.params)
            if key not in found:
                found[key] = Tried(len(found) + 1, self.codec.decode(trial.params))
            found[key].attempts.append(trial)
        return list(found.values())

    def best(self) -> Tried | None:
        """Return the complete set with the best value, the first of equal ones."""
        complete = [one for one in self.tried() if one.value is not None]
        sign = -1 if self.direction is StudyDirection.MAXIMIZE else 1
        return min(complete, key=lambda one: sign * (one.value or 0.0), default=None)

    def enter_search(self, *, alone: bool) -> bool:
        """Join the processes that search. Return False while another process trains the best settings.

        alone: StudyInUseError if another process searches.
        """
        with self._claiming():
            if alone and not self._locks.take(SEARCH):
                problem = f"other processes work on the study {self.name}"
                raise StudyInUseError(f"{problem}; join them with --join, or wait until they end")
            if alone:
                self._locks.release(SEARCH)
            return self._locks.take(SEARCH, shared=True)

    def leave_search(self) -> None:
        self._locks.release(SEARCH, shared=True)

    def begin_finish(self) -> bool:
        """Return True if no process searches or finishes; this one may then train the best settings."""
        return self._locks.take(SEARCH)

    def end_finish(self) -> None:
        self._locks.release(SEARCH)

    def claim(self, initial: Mapping[str, Any] | None = None) -> Claim | None:
        """Begin the next trial: values whose process was killed, or new ones; None if there are none to try.

        initial: the values of the first trial.
        """
        with self._claiming():
            trials = self._trials_without_killed()
            tried = self._tried(trials)
            for one in tried:
                if one.is_repeatable:
                    return self._begin(one.last.params, one.number, len(trials))
            if len(tried) >= self.search.trials:
                return None
            if not tried and initial is not None:
                return self._begin(self.codec.encode(initial), 1, 0)
            keys = {params_key(one.last.params) for one in tried}
            study = (self.name, self.direction, self.pruner)
            params = draw(self.codec, trials, keys, self.seed, study)
            return None if params is None else self._begin(params, len(tried) + 1, len(trials))

    def has_work(self) -> bool:
        """Return True if a killed process has left a trial that is to be repeated."""
        with self._claiming():
            return any(one.is_repeatable for one in self._tried(self._trials_without_killed()))

    def complete(self, claim: Claim, value: float, epochs: int) -> bool:
        """Record the result of a trial. Return False if it was given to another process meanwhile."""
        return self._end(claim, TrialState.COMPLETE, value, **{_EPOCHS: epochs})

    def prune(self, claim: Claim, epochs: int) -> bool:
        """Record that a trial was pruned."""
        return self._end(claim, TrialState.PRUNED, None, **{_EPOCHS: epochs})

    def fail(self, claim: Claim, reason: str) -> bool:
        """Record that a trial has failed."""
        return self._end(claim, TrialState.FAIL, None, **{_REASON: reason})

    def importance(self) -> dict[str, float]:
        """Return the share of each parameter in what sets the best trials apart (PED-ANOVA); empty if it is undefined.

        Watanabe, Bansal & Hutter (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
        Subspaces".
        """
        values = {one.value for one in self.tried() if one.value is not None}
        if len(values) < 4:  # two in the best tenth and beyond
            return {}
        return dict(optuna.importance.get_param_importances(self._study))

    @property
    def published(self) -> dict[str, Any] | None:
        """The publication of the best settings: the set's number, the number of sets, and the version."""
        found: dict[str, Any] | None = self._storage.get_study_user_attrs(self._id).get(_PUBLISHED)
        return found

    def record_publication(self, publication: Mapping[str, Any]) -> None:
        self._storage.set_study_user_attr(self._id, _PUBLISHED, dict(publication))

    def close(self) -> None:
        """Release all locks, and close the connections of a database."""
        self._locks.close()
        self._storage.remove_session()
        if isinstance(self._storage, RDBStorage):
            self._storage.engine.dispose()

    def _claiming(self) -> Any:
        return hold(self._locks, CLAIM, self._warn)

    def _trials(self) -> list[FrozenTrial]:
        """Return all trials. StudyError if one has not the form of those that a search writes."""
        try:
            trials = self._study.get_trials(deepcopy=False)
        except KeyError as error:
            raise StudyError(f"study {self.name}: it was deleted; {_OTHER_STUDY}") from error
        for trial in trials:
            if problem := self._find_problem(trial):
                raise StudyError(f"study {self.name}, trial {trial.number}: {problem}; {_OTHER_STUDY}")
        return trials

    def _find_problem(self, trial: FrozenTrial) -> str | None:
        space, epochs = self.codec.space.parameters, trial.user_attrs.get(_EPOCHS)
        if trial.params.keys() != space.keys():
            return f"expected values of {quoted(space)}, found values of {quoted(trial.params)}"
        if trial.distributions != self.codec.distributions:
            return "expected the distributions of [search], found others"
        for name, value in self.codec.decode(trial.params).items():
            if not space[name].contains(value):
                return f"{name}: expected a value of [search], found {describe_value(value)}"
        if trial.state is TrialState.COMPLETE and not (trial.values and all(map(is_finite_number, trial.values))):
            return f"expected the number that it was evaluated to, found {describe_value(trial.values)}"
        reports: Iterable[tuple[Any, Any]] = trial.intermediate_values.items()
        if not all(isinstance(step, int) and isinstance(value, float | int) for step, value in reports):
            return "expected a number for each epoch, found others"
        if epochs is not None and not isinstance(epochs, int):
            return f"expected the number of epochs, found {describe_value(epochs)}"
        return None

    def _begin(self, params: Mapping[str, Any], number: int, index: int) -> Claim:
        """Write a running trial with its values and take its lock."""
        trial = create_trial(
            state=TrialState.RUNNING, params=dict(params), distributions=dict(self.codec.distributions)
        )
        trial_id = self._storage.create_new_trial(self._id, trial)
        if not self._locks.take(FIRST_TRIAL + index):
            raise RuntimeError(f"the lock of trial {index} is taken")
        return Claim(Trial(self._study, trial_id), index, number, self.codec.decode(params))

    def _end(self, claim: Claim, state: TrialState, value: float | None, **attributes: Any) -> bool:
        trial_id = claim.trial._trial_id
        try:
            for key, found in attributes.items():
                self._storage.set_trial_user_attr(trial_id, key, found)
            self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])
        except UpdateFinishedTrialError:  # the connection of its lock was lost, so that it counted as killed
            return False
        finally:
            self._locks.release(FIRST_TRIAL + claim.index)
        return True

    def _trials_without_killed(self) -> list[FrozenTrial]:
        """Mark the running trials of killed processes, whose locks are free, as failed. Return all trials."""
        trials, killed = self._trials(), False
        for index, trial in enumerate(trials):
            if trial.state is not TrialState.RUNNING or not self._locks.take(FIRST_TRIAL + index):
                continue
            # It may have ended since it was read; its process releases the lock after that.
            if self._storage.get_trial(trial._trial_id).state is TrialState.RUNNING:
                self._storage.set_trial_user_attr(trial._trial_id, _REASON, KILLED)
                self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            killed = True
            self._locks.release(FIRST_TRIAL + index)
        return self._trials() if killed else trials

    def _check_identity(self, identity: Mapping[str, Any]) -> None:
        kept = self._storage.get_study_user_attrs(self._id).get(_IDENTITY)
        if kept is None:
            self._storage.set_study_user_attr(self._id, _IDENTITY, dict(identity))
            return
        fix = "restore the old value, or begin another study with --study NAME or --storage FILE"
        faults = [
            Fault(location, f"expected {old}, as when the study began; found {new}", fix)
            for location, old, new in find_differences(kept, identity)
        ]
        if faults:
            raise OtherStudyError(f"study {self.name}", faults)


def make_pruner(pruning: str, max_epochs: int) -> BasePruner:
    """Return Optuna's pruner of a job of so many epochs."""
    if pruning == "median":
        return MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=_WARM_UP_EPOCHS)
    if pruning == "hyperband":
        low = max(1, max_epochs // _REDUCTION**3)
        return HyperbandPruner(min_resource=low, max_resource=max(low, max_epochs), reduction_factor=_REDUCTION)
    return NopPruner()
