"""`train`: run a job file, check one without training, or write a first one for a table.

    train examples/penguins.toml
    train examples/penguins.toml --folds 5
    train check examples/penguins.toml
    train init prices.csv --target price

Exit codes: 0 done, 2 wrong usage or job file, 3 data, 4 diverged, 5 store.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_store.cli import common, terminal
from model_store.errors import StoreError, did_you_mean
from model_store.registry.store import open_store
from training.cli import output
from training.cli import scaffold as initial
from training.data.splitting import Fold
from training.engine.checkpoint import DEFAULT_INTERVAL_SECONDS, Checkpoint, CheckpointError, InterruptedTrainingError
from training.engine.early_stopping import EpochCallback, EpochResult
from training.engine.loop import DivergedError
from training.errors import DataError, JobError
from training.pipeline import job as jobs
from training.pipeline.cross_validation import cross_validate, figures, summary
from training.pipeline.lr_range_test import find_rate_of

EXIT_CODES: dict[type[Exception], int] = {JobError: 2, CheckpointError: 2, DataError: 3, DivergedError: 4}


class Train(click.Group):
    """A group that takes what is none of its commands for the arguments of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            meant = "" if Path(args[0]).suffix else did_you_mean(args[0], ("check", "init"))
            if meant and not Path(args[0]).exists():
                ctx.fail(f"{args[0]}: no such command and no such file; {meant}")
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "FILE [OPTIONS]")
        for name in ("check FILE", "init TABLE"):
            formatter.write_usage(ctx.command_path, f"{name} [OPTIONS]", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.commands["run"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


class Run(click.Command):
    """The command behind `train FILE`; it calls itself `train`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return super().make_context(parent.info_name if parent else info_name, args, **extra)


@click.group(
    cls=Train,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 wrong usage or job file, 3 data, 4 diverged, 5 store. See docs/jobs.md.",
)
def main() -> None:
    """Train the network that a job file describes, judge it on rows held out, and publish it in the model store."""


class Override(click.ParamType[tuple[str, Any]]):
    """`section.key=value`, the value as TOML has it; what is no TOML is a text. `section.key=` leaves the key out."""

    name = "section.key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        location, equals, text = str(value).partition("=")
        if not equals or "." not in location or not all(location.split(".")):
            self.fail(f"expected section.key=value, such as train.epochs=5; found {value!r}", param, ctx)
        if not text:
            return location.strip(), None
        try:
            parsed = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            parsed = {}
        return location.strip(), parsed["value"] if parsed.keys() == {"value"} else text


overrides_option = click.option(
    "--set",
    "overrides",
    type=Override(),
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Set a key of the job, such as train.epochs=5, or leave it out: train.epochs=. May be given again.",
)
seed_option = click.option("--seed", type=int, metavar="N", help="Short for --set train.seed=N.")


def _load(file: str, overrides: tuple[tuple[str, Any], ...], seed: int | None) -> jobs.Job:
    chosen = dict(overrides)
    if seed is not None:
        chosen["train.seed"] = seed
    return jobs.load(file, chosen)


@main.command("run", cls=Run, hidden=True)
@click.argument("file")
@overrides_option
@seed_option
@click.option("--no-publish", is_flag=True, help="Train and judge, but publish nothing.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted training of this job stopped.")
@click.option(
    "--checkpoint",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the training is kept in case it is interrupted; else next to the job file.",
)
@click.option(
    "--checkpoint-seconds",
    "seconds",
    type=click.FloatRange(0),
    default=DEFAULT_INTERVAL_SECONDS,
    show_default=True,
    metavar="N",
    help="How often it is kept, in seconds.",
)
@click.option(
    "--folds",
    type=click.IntRange(2),
    metavar="K",
    help="Judge the job by K trainings, each with another K-th of the rows held out; publishes nothing.",
)
@click.option(
    "--find-rate", is_flag=True, help="Show how the loss takes rising learning rates; trains and publishes nothing."
)
@common.store_option
@common.json_option
@common.verbosity_option
@common.version_option
@common.exit_codes(EXIT_CODES)
def run(
    file: str,
    overrides: tuple[tuple[str, Any], ...],
    seed: int | None,
    no_publish: bool,
    resume: bool,
    directory: Path | None,
    seconds: float,
    folds: int | None,
    find_rate: bool,
    store: str,
    as_json: bool,
) -> None:
    """Train the network that the job file FILE describes, judge it on rows held out, and publish it."""
    job = _load(file, overrides, seed)
    if folds is not None or find_rate:
        if resume or (folds is not None and find_rate):
            raise click.UsageError("--folds, --find-rate and --resume do not go together: give one of them.")
        _find_rate(job, as_json) if folds is None else _cross_validate(job, folds, as_json)
        return
    target = None if no_publish else open_store(store)
    if target is not None:
        target.check_writable(job.settings.model.name)
    out: Console = terminal.stderr if as_json else terminal.stdout
    prepared = _prepared(out, job)
    if common.verbosity() > 0:
        output.print_check(out, prepared)
    elif common.verbosity() == 0:
        out.print(output.beginning(prepared), soft_wrap=True)
    _print_notes(out, prepared)
    checkpoint = _checkpoint(Path(file), directory, prepared, resume=resume, seconds=seconds)
    if resume and common.verbosity() >= 0:
        found = (
            f"goes on from {checkpoint.path}" if checkpoint.has_state else f"there is no {checkpoint.path}: starts anew"
        )
        out.print(f"note: {found}", soft_wrap=True)
    try:
        with _progress(out, prepared) as on_epoch:
            outcome = jobs.fit(prepared, on_epoch, checkpoint)
    except InterruptedTrainingError as error:
        fix = "; train --resume continues it" if error.saved else ""
        common.fail(f"{error}{fix}", 128 + error.signal)
    except DivergedError as error:
        checkpoint.remove()  # from there it would diverge again
        common.fail(error if common.verbosity() > 1 else _diverged(error, job), EXIT_CODES[DivergedError])
    alias, refused = job.settings.publish.alias, None
    if target is not None:
        outcome = jobs.publish(outcome, job, target)
    checkpoint.remove()
    if target is not None and alias and outcome.version:
        name, number = outcome.version.name, outcome.version.number
        why = f"published by train {Path(file).name}"
        try:
            target.set_alias(name, alias, number, who=common.current_user(), why=why, when=datetime.now(UTC))
        except StoreError as error:
            refused = StoreError(f"{name}/{number} is published, but {alias!r} does not point to it: {error}")
            refused.__cause__ = error
            alias = None
    if target is not None:
        outcome = jobs.add_report(outcome, target)
    if as_json:
        common.print_json(output.as_data(outcome, prepared, store, alias))
    else:
        if common.verbosity() >= 0:
            out.print(output.ending(outcome, prepared))
        output.print_metrics(out, outcome)
        output.print_published(out, outcome, prepared, store, alias)
    if refused is not None:
        raise refused


@main.command(short_help="Show what a job would train, and train nothing.")
@click.argument("file")
@overrides_option
@seed_option
@common.json_option
@common.verbosity_option
@common.exit_codes(EXIT_CODES)
def check(file: str, overrides: tuple[tuple[str, Any], ...], seed: int | None, as_json: bool) -> None:
    """Read the job FILE and its data, and show what would be trained: columns, classes, split, layers."""
    prepared = _prepared(terminal.stderr if as_json else terminal.stdout, _load(file, overrides, seed))
    if as_json:
        common.print_json(output.check_data(prepared))
        return
    output.print_check(terminal.stdout, prepared)
    _print_notes(terminal.stdout, prepared)


@main.command(short_help="Write a job file for a table, to begin with.")
@click.argument("data", metavar="TABLE", type=click.Path(path_type=Path))
@click.option("--target", metavar="COLUMN", help="The column to predict.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The job file; else next to the data.")
@click.option("--name", help="The model's name; else the job file's.")
@click.option("--force", is_flag=True, help="Replace a job file that is there.")
@common.json_option
@common.verbosity_option
@common.exit_codes(EXIT_CODES)
def init(data: Path, target: str | None, output: Path | None, name: str | None, force: bool, as_json: bool) -> None:
    """Write a commented job file for a CSV or Parquet TABLE, with guessed kinds and a network to begin with."""
    path = output or data.with_suffix(".toml")
    initial.write(path, initial.draft(data, target, path, name), force=force)
    if as_json:
        common.print_json({"job": str(path)})
        return
    terminal.stdout.print(f"Wrote {path}. Look through it, then:", soft_wrap=True)
    shown = shlex.quote(str(path))
    terminal.stdout.print(f"  train check {shown}\n  train {shown}", soft_wrap=True)


def _cross_validate(job: jobs.Job, count: int, as_json: bool) -> None:
    """Train and judge with each fold held out, and print the mean and spread."""
    out: Console = terminal.stderr if as_json else terminal.stdout

    def tell(fold: Fold, outcome: jobs.Outcome) -> None:
        if common.verbosity() >= 0:
            out.print(output.fold_line(fold, outcome), soft_wrap=True)

    try:
        found = summary(outcomes := cross_validate(job, count, tell))
    except DivergedError as error:
        common.fail(error if common.verbosity() > 1 else _diverged(error, job), EXIT_CODES[DivergedError])
    if as_json:
        every = [figures(outcome.metrics, outcome.baseline) for outcome in outcomes]
        common.print_json({"model": job.settings.model.name, "summary": found, "folds": every})
    else:
        output.print_folds(out, found, count)


def _find_rate(job: jobs.Job, as_json: bool) -> None:
    """Print the curve of the learning-rate finder, and its suggestion."""
    curve = find_rate_of(jobs.prepare(job))
    if as_json:
        common.print_json({"model": job.settings.model.name, **asdict(curve)})
    else:
        output.print_rates(terminal.stdout, curve)


def _prepared(out: Console, job: jobs.Job) -> jobs.Prepared:
    """The job, prepared. A terminal is told what it waits for: a table of 60 MB is read for some seconds."""
    if common.verbosity() < 0 or not out.is_terminal:
        return jobs.prepare(job)
    data = job.settings.data
    with out.status(f"Reading {data.path or data.images}"):
        return jobs.prepare(job)


@contextmanager
def _progress(out: Console, prepared: jobs.Prepared) -> Iterator[EpochCallback | None]:
    """A bar on a terminal, a line for each epoch elsewhere, nothing with -q."""
    if common.verbosity() < 0:
        yield None
    elif not out.is_terminal:
        yield lambda epoch: out.print(output.epoch_line(epoch), soft_wrap=True)
    else:
        text = TextColumn("{task.description}", markup=False)
        with Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=out) as bar:
            task = bar.add_task("epoch", total=prepared.job.settings.train.epochs)

            def advance(epoch: EpochResult) -> None:
                loss = epoch.loss if epoch.validation_loss is None else epoch.validation_loss
                which = "loss" if epoch.validation_loss is None else "validation loss"
                bar.update(task, completed=epoch.number, description=f"{which} {loss:.5f}")

            yield advance


def _checkpoint(
    file: Path, directory: Path | None, prepared: jobs.Prepared, *, resume: bool, seconds: float
) -> Checkpoint:
    """The checkpoint of a job: `penguins.checkpoint.npz` of `penguins.toml`."""
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.BadParameter(f"{directory}: {error.strerror}", param_hint="--checkpoint") from error
    path = (directory or file.parent) / f"{file.stem}.checkpoint.npz"
    return Checkpoint(path, prepared.identity, resume=resume, seconds=seconds, warn=common.print_note)


def _print_notes(out: Console, prepared: jobs.Prepared) -> None:
    if common.verbosity() >= 0:
        for note in prepared.notes:
            out.print(f"note: {note}", soft_wrap=True)


def _diverged(error: DivergedError, job: jobs.Job) -> str:
    """Where it went wrong and what to try, with the job's own figures."""
    train, data = job.settings.train, job.settings.data
    tries = [f"a lower learning rate: --set train.learning_rate={train.learning_rate / 10:g}"]
    if data.scale == "none":
        tries.append("scaled numbers: --set data.scale=standard")
    if train.momentum:
        tries.append(f"less momentum: --set train.momentum={train.momentum / 2:g}")
    if train.clip_norm is None:
        tries.append("clipped gradients: --set train.clip_norm=1")
    lines = "".join(f"\n  try {line}" for line in tries)
    where = f"epoch {error.epoch}, step {error.step}"
    return f"diverged: the loss became {error.loss} in {where}.\nNothing is published.{lines}"
