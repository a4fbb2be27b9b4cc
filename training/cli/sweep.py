"""The command `train sweep`: search settings of a job in many processes, train the best ones and publish the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from model_store.cli import common, terminal
from model_store.errors import StoreError
from model_store.registry.store import Store, open_store
from model_store.utils.current_user import current_user
from model_store.utils.extras import install_command
from training.cli import output, sweep_output
from training.cli.parameters import overrides_option, seed_option
from training.cli.progress import progress
from training.engine.checkpoint import CheckpointError
from training.engine.loop import DivergedError
from training.errors import DataError, JobError
from training.pipeline import job as jobs
from training.pipeline.publish_alias import AliasMover, PublishedAliases
from training.sweep.errors import InterruptedSweepError, OtherStudyError, StudyError, StudyInUseError

if TYPE_CHECKING:
    from training.sweep.study import Study, Tried
    from training.sweep.sweep import Sweep, TrialEvent

EXIT_CODES: dict[type[Exception], int] = {
    JobError: 2,
    CheckpointError: 2,
    DataError: 3,
    DivergedError: 4,
    OtherStudyError: 2,
    StudyInUseError: 2,
    StudyError: 5,
}


@click.command(short_help="Search settings of a job, and train the best ones.")
@click.argument("file")
@overrides_option
@seed_option
@click.option("--join", is_flag=True, help="Work on the study together with other processes; without them, begin it.")
@click.option(
    "--storage",
    "address",
    metavar="STORAGE",
    envvar="SWEEP_STORAGE",
    show_envvar=True,
    help="Where the study is kept: a journal file, or postgresql://user@host/database.  [default: FILE.study.journal "
    "next to the job file]",
)
@click.option("--study", "name", metavar="NAME", help="Name of the study in the storage.  [default: the model's name]")
@click.option("--no-publish", is_flag=True, help="Search only: do not train and publish the best settings.")
@common.store_option
@common.json_option
@common.verbosity_option
@common.exit_codes(EXIT_CODES)
def sweep(
    file: str,
    overrides: tuple[tuple[str, Any], ...],
    seed: int | None,
    join: bool,
    address: str | None,
    name: str | None,
    no_publish: bool,
    store: str,
    as_json: bool,
) -> None:
    """Try settings of the job FILE, as its section [search] says, then train the best ones and publish the model.

    The search may be stopped at any time: the same command continues it. Trials are compared on the validation rows;
    the test rows are used only for the model at the end. Any number of processes may join a study with --join.
    """
    open_sweep, search, record = _load_extra()
    settings = dict(overrides) if seed is None else {**dict(overrides), "train.seed": seed}
    path = Path(file)
    content = jobs.load_content(path, settings)
    out: Console = terminal.stderr if as_json else terminal.stdout
    found = open_sweep(content, path.parent, file)
    target = None if no_publish else open_store(store)
    if target is not None:
        target.check_writable(found.prepared.job.settings.model.name)
    address = address or str(path.parent / f"{path.stem}.study.journal")
    quiet = common.verbosity() < 0
    from training.sweep.storage import shown_address, storage_errors  # noqa: PLC0415 - an extra

    with storage_errors(address):
        study = found.open_study(address, name, common.print_note)
        click.get_current_context().call_on_close(study.close)
        if not quiet:
            _print_start(out, found, study, shown_address(address))
        with _trial_lines(out, found, study, quiet=quiet) as on_trial:
            try:
                search(found, study, join=join, on_trial=on_trial, on_wait=lambda count: _print_wait(out, count))
            except InterruptedSweepError as error:
                common.fail(f"{_progress_of(study)}; {error}", 128 + error.signal)
        tried, best, importance = study.tried(), study.best(), study.importance()
        if not as_json and best is not None:
            sweep_output.print_trials(out, found, record.ranked(tried, found.higher_is_better))
        if not quiet:
            _print_end(out, found, file, tried, best, importance)
        if best is None:
            common.fail("no trial is complete; nothing was published", EXIT_CODES[DivergedError])
        result = None if target is None else _finish(out, found, study, best, target, store, as_json=as_json)
        study.end_finish()
    if as_json:
        common.print_json({**sweep_output.search_data(found, tried, best, importance), "model": result})


def _load_extra() -> tuple[Any, Any, Any]:
    """Return what a search needs of the packages of the extra. Exit with the command that installs them without."""
    try:
        from training.sweep import record  # noqa: PLC0415 - an extra
        from training.sweep.sweep import Sweep, search  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("optuna", "psycopg", "sqlalchemy"):
            raise
        common.fail(f"a sweep needs {error.name}; install it with: {install_command('sweep')}", 2)
    return Sweep.open, search, record


def _print_start(out: Console, found: Sweep, study: Study, address: str) -> None:
    out.print(output.start_line(found.prepared, found.sizes), soft_wrap=True)
    terminal.print_wrapped(out, sweep_output.search_line(found))
    out.print(f"study {study.name} in {address}", soft_wrap=True)
    for note in found.prepared.notes:
        terminal.print_wrapped(out, f"note: {note}")
    if tried := study.tried():
        terminal.print_wrapped(out, f"continuing the study: {sweep_output.summary_line(tried)}")


def _print_wait(out: Console, running: int) -> None:
    if common.verbosity() >= 0:
        other = "1 trial" if running == 1 else f"{running} trials"
        out.print(f"waiting for {other} of other processes" if running else "waiting for other processes")


@contextmanager
def _trial_lines(out: Console, found: Sweep, study: Study, *, quiet: bool) -> Iterator[Callable[[TrialEvent], None]]:
    """Print a line for each trial of this process; on a terminal also a bar of the trials of all processes."""
    trials, size = found.search.trials, found.search.space.size
    total = trials if size is None else min(trials, size)

    def print_line(event: TrialEvent) -> None:
        if not quiet:
            out.print(sweep_output.trial_line(event, total, found.metric, study.best()), soft_wrap=True)

    if quiet or not out.is_terminal:
        yield print_line
        return
    from rich.progress import (  # noqa: PLC0415 - needed only on a terminal
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
    )

    with Progress(TextColumn("trials"), BarColumn(), MofNCompleteColumn(), console=out) as bar:
        ended = ("complete", "pruned", "failed")
        task = bar.add_task("trials", total=total, completed=sum(one.state in ended for one in study.tried()))

        def on_trial(event: TrialEvent) -> None:
            print_line(event)
            bar.update(task, completed=sum(one.state in ended for one in study.tried()))

        yield on_trial


def _progress_of(study: Study) -> str:
    return sweep_output.summary_line(study.tried())


def _print_end(
    out: Console, found: Sweep, file: str, tried: list[Tried], best: Tried | None, importance: dict[str, float]
) -> None:
    out.print()
    out.print(sweep_output.summary_line(tried))
    if importance:
        terminal.print_wrapped(out, sweep_output.importance_line(importance))
    if best is not None:
        out.print(f"best: {sweep_output.job_command(file, found.search.space.overrides(best.values))}", soft_wrap=True)


def _finish(
    out: Console, found: Sweep, study: Study, best: Tried, target: Store, store: str, *, as_json: bool
) -> dict[str, Any]:
    """Train the best settings and publish the model with the record of the search, unless that was done before."""
    published = study.published
    if published is not None and published["best"] == best.number and _is_in(target, published):
        if not as_json and common.verbosity() >= 0:
            out.print(f"Published before: {published['model']}, version {published['version']}.", soft_wrap=True)
        return published
    job = found.job(best.values)
    prepared = jobs.prepare(job)
    if common.verbosity() >= 0:
        out.print()
        out.print(f"training the best settings: {output.start_line(prepared)}", soft_wrap=True)
    with progress(out, prepared) as on_epoch:
        outcome = jobs.train_and_evaluate(prepared, on_epoch)
    from training.sweep.record import search_record  # noqa: PLC0415 - an extra

    outcome = jobs.with_search(outcome, search_record(found, study))
    mover = AliasMover(target, job, current_user(), datetime.now(UTC))
    mover.pin_default()
    outcome = jobs.publish(outcome, job, target)
    version = outcome.version
    if version is None:
        raise ValueError("expected a published outcome")
    study.record_publication(
        {"best": best.number, "model": version.name, "version": version.number, "digest": version.digest}
    )
    aliases: PublishedAliases = mover.move(version)
    outcome = jobs.add_report(outcome, target)
    if not as_json:
        if common.verbosity() >= 0:
            for line in output.end_lines(outcome, prepared):
                terminal.print_wrapped(out, line)
        output.print_metrics(out, outcome)
        output.print_published(out, outcome, store, aliases)
    if aliases.error is not None:
        raise aliases.error
    return output.result_data(outcome, prepared, store, aliases)


def _is_in(target: Store, published: dict[str, Any]) -> bool:
    """Return True if the store has the version that was published."""
    try:
        version, _ = target.manifest(published["model"], published["version"])
    except StoreError:
        return False
    return bool(version.digest == published["digest"])
