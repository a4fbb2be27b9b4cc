"""A sweep: the search of a job's settings by one process of a study, and the training of the best ones.

sweep = Sweep.open(content, folder, source)     # of a job file with [search]
study = sweep.open_study("penguins.study.journal")
search(sweep, study)                            # until no set of values is left
job = sweep.job(study.best().values)            # an ordinary job
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

from model_store.errors import Fault, InputError
from training.config.search_schema import with_overrides
from training.config.search_space import Range
from training.config.settings import SearchSection
from training.engine.early_stopping import EpochResult
from training.engine.loop import DivergedError
from training.engine.stop_signals import handle_stop_signals
from training.errors import FaultListError, JobError
from training.pipeline import job as jobs
from training.pipeline.prepared_job import Job, PreparedJob
from training.sweep.errors import InterruptedSweepError
from training.sweep.evaluation import (
    Evaluation,
    epoch_value,
    evaluate,
    is_higher_better,
    search_metric,
    without_test_rows,
)
from training.sweep.storage import open_storage
from training.sweep.study import INTERRUPTED, Claim, Study

_POLL_SECONDS = 0.5
_REPORT_GROWTH = 1.25  # epochs after which pruning is asked for: 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15 ...


class PrunedError(Exception):
    """The trial is worse than others were after as many epochs."""


@dataclass(frozen=True)
class Sweep:
    """A job file with `[search]`: its content, and the job without overrides, prepared without test rows."""

    content: Mapping[str, Any]
    folder: Path
    source: str
    prepared: PreparedJob
    search: SearchSection
    metric: str
    sizes: Mapping[str, int]  # of the split, with the test rows

    @classmethod
    def open(cls, content: Mapping[str, Any], folder: Path, source: str) -> Sweep:
        """Read the data of a job. JobError if it has no `[search]`, or one that does not fit the data."""
        job = jobs.from_dict(content, folder, source)
        if job.settings.search is None:
            fix = "write [search.train] with learning_rate = { log_uniform = [0.001, 0.1] }, for example"
            raise JobError(source, [Fault("search", "missing; expected what to search", fix)])
        prepared = jobs.prepare(job)
        metric = search_metric(prepared)
        return cls(content, folder, source, without_test_rows(prepared), job.settings.search, metric, prepared.sizes)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a study belongs to: the job, the data and the search without `trials` and `timeout`."""
        search = {
            "metric": self.metric,
            "pruning": self.search.pruning,
            "folds": self.search.folds,
            **self.search.space.template,
        }
        data = {**self.prepared.identity["data"], "rows": sum(self.sizes.values())}
        return {"job": self.prepared.identity["job"], "data": data, "search": search}

    @property
    def higher_is_better(self) -> bool:
        return is_higher_better(self.metric)

    @property
    def initial_values(self) -> dict[str, Any] | None:
        """The values of the first trial: those of the job itself, if they are in the space."""
        return self.search.space.initial_values(self.prepared.job.settings.as_dict())

    def job(self, values: Mapping[str, Any]) -> Job:
        """Return the job with the values of a trial. JobError if they do not fit each other."""
        overrides = self.search.space.overrides(values)
        return jobs.from_dict(with_overrides(self.content, overrides), self.folder, self.source)

    def prepare(self, values: Mapping[str, Any]) -> PreparedJob:
        """Return the prepared job of a trial, without test rows; with `folds` it is that of an ensemble."""
        rows = None if self.prepared.stream is not None else self.prepared.dataset
        job = self.job(values)
        if self.search.folds is not None:
            train = replace(job.settings.train, ensemble=self.search.folds)
            job = replace(job, settings=replace(job.settings, train=train))
        return without_test_rows(jobs.prepare(job, rows=rows))

    def open_study(self, address: str, name: str | None = None, warn: Callable[[str], None] = lambda _: None) -> Study:
        """Open the study of this sweep. StudyError, or OtherStudyError if it belongs to another job or other data."""
        name = name or self.prepared.job.settings.model.name
        storage, locks = open_storage(address, name)
        epochs = self.search.space.parameters.get("train.epochs")
        most = int(epochs.high) if isinstance(epochs, Range) else self.prepared.job.settings.train.epochs
        try:
            return Study(
                storage,
                locks,
                name,
                self.search,
                higher_is_better=self.higher_is_better,
                max_epochs=most,
                seed=self.prepared.job.settings.train.seed,
                identity=self.identity,
                warn=warn,
            )
        except BaseException:
            locks.close()
            raise


@dataclass(frozen=True)
class TrialEvent:
    """A trial of this process that has ended: its evaluation, or why it has none."""

    number: int
    values: Mapping[str, Any]
    evaluation: Evaluation | None
    reason: str
    seconds: float


def search(
    sweep: Sweep,
    study: Study,
    *,
    join: bool = True,
    on_trial: Callable[[TrialEvent], None] = lambda _: None,
    on_wait: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run trials until none is left, and wait until no other process runs one: this process may then finish the study.

    The caller ends with `study.end_finish()`. InterruptedSweepError after SIGINT or SIGTERM.

    join: False raises StudyInUseError if another process works on the study.
    on_wait: called once with the number of running trials if this process has to wait for them.
    """
    deadline = clock() + (sweep.search.timeout or math.inf)
    first, waited = True, False
    with stop_on_signals() as stop:
        while True:
            if clock() < deadline and study.enter_search(alone=first and not join):
                first = False
                try:
                    _run_trials(sweep, study, stop, on_trial, lambda: clock() >= deadline)
                finally:
                    study.leave_search()
            if study.begin_finish():
                if clock() >= deadline or not study.has_work():
                    return
                study.end_finish()
            elif not waited:
                waited = True
                on_wait(sum(one.state == "running" for one in study.tried()))
            stop.check()
            time.sleep(_POLL_SECONDS)


def _run_trials(
    sweep: Sweep, study: Study, stop: Stop, on_trial: Callable[[TrialEvent], None], is_over: Callable[[], bool]
) -> None:
    while not is_over():
        stop.check()
        claim = study.claim(sweep.initial_values)
        if claim is None:
            return
        on_trial(run_trial(sweep, study, claim, stop))


def run_trial(sweep: Sweep, study: Study, claim: Claim, stop: Stop) -> TrialEvent:
    """Evaluate the values of a trial and record the result in the study."""
    started = time.monotonic()

    def event(evaluation: Evaluation | None, reason: str) -> TrialEvent:
        return TrialEvent(claim.number, claim.values, evaluation, reason, time.monotonic() - started)

    epochs = 0
    section = sweep.prepared.job.settings.train.early_stopping
    watched = None if section is None else section.metric
    next_report = 1

    def on_epoch(epoch: EpochResult) -> None:
        nonlocal epochs, next_report
        stop.check()
        value = epoch_value(epoch, sweep.metric, watched)
        if value is None or sweep.search.pruning == "none":
            return
        epochs = epoch.number
        if epochs < next_report:
            return
        next_report = max(epochs + 1, int(epochs * _REPORT_GROWTH))
        claim.trial.report(value, epochs)
        if claim.trial.should_prune():
            raise PrunedError

    try:
        found = evaluate(sweep.prepare(claim.values), sweep.metric, on_epoch)
    except PrunedError:
        study.prune(claim, epochs)
        return event(None, f"pruned after {epochs} epochs")
    except DivergedError as error:
        reason = f"diverged in epoch {error.epoch}"
    except (FaultListError, InputError) as error:
        reason = "; ".join(map(str, error.faults[:3]))
    except UpdateFinishedTrialError:
        return event(None, "given to another process, because the connection of its lock was lost")
    except MemoryError as error:
        reason = f"not enough memory: {error}".removesuffix(": ")
    except (InterruptedSweepError, KeyboardInterrupt):
        study.fail(claim, INTERRUPTED)  # another process, or this one later, tries it again
        raise
    except Exception as error:
        study.fail(claim, f"{type(error).__name__}: {error}")
        raise
    else:
        study.complete(claim, found.value, found.epochs)
        return event(found, "")
    study.fail(claim, reason)
    return event(None, reason)


class Stop:
    """Whether a signal has asked the search to end."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def check(self) -> None:
        """Raise InterruptedSweepError after a signal."""
        if self.signal is not None:
            raise InterruptedSweepError(self.signal)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """End the search after the epoch on SIGTERM or SIGINT; a second signal ends it at once."""
    stop = Stop()

    def note(number: int) -> None:
        stop.signal = number

    with handle_stop_signals(note):
        yield stop
