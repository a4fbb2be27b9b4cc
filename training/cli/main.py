"""The command `train`: train a job file, check one without training, or write one for a table.

    train examples/penguins.toml
    train examples/penguins.toml --folds 5
    train check examples/penguins.toml
    train init prices.csv --target price
    train sweep examples/penguins.toml

Exit codes: 0 success, 2 usage or job file error, 3 data error, 4 training diverged, 5 store error.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from model_store.cli import common, terminal
from model_store.cli.group import table_options
from model_store.errors import did_you_mean
from model_store.registry.store import open_store
from model_store.tables.formats import table_stem
from model_store.tables.options import TableOptions
from model_store.utils.current_user import current_user
from training.cli import check_output, output, ranks, scaffold
from training.cli.init_output import print_draft
from training.cli.parameters import FoldsType, overrides_option, seed_option
from training.cli.progress import prepare, progress
from training.cli.sweep import sweep
from training.data.splitting import Fold
from training.engine.checkpoint import DEFAULT_INTERVAL_SECONDS, Checkpoint, CheckpointError, InterruptedTrainingError
from training.engine.data_parallel import Communicator
from training.engine.loop import DivergedError
from training.errors import DataError, JobError
from training.pipeline import job as jobs
from training.pipeline.cross_validation import cross_validate, headline_metrics, summarize_folds
from training.pipeline.lr_range_test import find_job_learning_rate
from training.pipeline.publish_alias import AliasMover

EXIT_CODES: dict[type[Exception], int] = {
    ranks.RanksError: 2,
    JobError: 2,
    CheckpointError: 2,
    DataError: 3,
    DivergedError: 4,
}
COMMANDS = {"check": "check FILE", "init": "init TABLE", "sweep": "sweep FILE"}  # and their usage


class TrainGroup(common.CommandGroup):
    """A group that passes arguments which name none of its commands to `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            hint = "" if Path(args[0]).suffix else did_you_mean(args[0], COMMANDS)
            if hint and not Path(args[0]).exists():
                ctx.fail(f"{args[0]}: no such command or file; {hint}")
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "FILE [OPTIONS]")
        for usage in COMMANDS.values():
            formatter.write_usage(ctx.command_path, f"{usage} [OPTIONS]", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.commands["run"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


class RunCommand(click.Command):
    """The command behind `train FILE`; its help calls it `train`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return super().make_context(parent.command_path if parent else info_name, args, **extra)


@click.group(
    cls=TrainGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 2 usage or job file error, 3 data error, 4 training diverged, 5 store error. "
    "See docs/jobs.md.",
)
def main() -> None:
    """Train a neural network on a table or images, evaluate it on held-out rows and publish it in the model store.

    FILE is a job file in TOML; `train init` writes one.
    """


main.add_command(sweep)


def _load_job(file: str, overrides: tuple[tuple[str, Any], ...], seed: int | None) -> jobs.Job:
    settings = dict(overrides)
    if seed is not None:
        settings["train.seed"] = seed
    return jobs.load(file, settings)


@main.command("run", cls=RunCommand, hidden=True)
@click.argument("file")
@overrides_option
@seed_option
@click.option("--no-publish", is_flag=True, help="Train and evaluate, but do not publish.")
@click.option(
    "--publish-as",
    "alias",
    metavar="ALIAS",
    help="Point ALIAS, such as candidate, to the new version; requests without a version keep the one that they get "
    "now. Same as --set publish.alias=ALIAS.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted training of this job.")
@click.option(
    "--checkpoint",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the checkpoint file.  [default: next to the job file]",
)
@click.option(
    "--checkpoint-seconds",
    "seconds",
    type=click.FloatRange(0),
    default=DEFAULT_INTERVAL_SECONDS,
    show_default=True,
    metavar="N",
    help="Seconds between checkpoints.",
)
@click.option(
    "--folds",
    type=FoldsType(),
    metavar="K[xN]",
    help="K-fold cross-validation: train K times, each time with another fold held out; 5x3 repeats 5 folds 3 times. "
    "Publishes nothing.",
)
@click.option(
    "--ensemble",
    is_flag=True,
    help="With --folds K: publish the average of the K networks as one model. Same as --set train.ensemble=K.",
)
@click.option(
    "--find-rate",
    is_flag=True,
    help="Learning-rate finder: plot loss against learning rate. Publishes nothing.",
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
    alias: str | None,
    resume: bool,
    directory: Path | None,
    seconds: float,
    folds: tuple[int, int] | None,
    ensemble: bool,
    find_rate: bool,
    store: str,
    as_json: bool,
) -> None:
    """Train the network of the job FILE, evaluate it on held-out rows and publish it."""
    if alias is not None:
        if no_publish:
            raise click.UsageError("--publish-as and --no-publish cannot be combined.")
        overrides = (*overrides, ("publish.alias", alias))
    if ensemble:
        if folds is None or folds[1] > 1:
            raise click.UsageError("--ensemble needs --folds K, without repetitions.")
        overrides, folds = (*overrides, ("train.ensemble", folds[0])), None
    if (folds is not None or find_rate) and (resume or (folds is not None and find_rate)):
        raise click.UsageError("--folds, --find-rate and --resume cannot be combined.")
    communicator = ranks.connect()
    if communicator is not None and communicator.Get_rank():
        ranks.work(communicator, lambda: jobs.prepare(_load_job(file, overrides, seed)))
        return
    with ranks.ending_together(communicator), common.exit_codes(EXIT_CODES):
        if communicator is not None and (folds is not None or find_rate):
            raise click.UsageError("--folds and --find-rate train in one process: start them without mpirun.")
        job = _load_job(file, overrides, seed)
        if folds is not None:
            _cross_validate(job, *folds, as_json)
        elif find_rate:
            _find_rate(job, as_json)
        else:
            _train(
                job,
                Path(file),
                directory,
                seconds,
                communicator,
                as_json=as_json,
                no_publish=no_publish,
                resume=resume,
                store=store,
            )


def _train(
    job: jobs.Job,
    file: Path,
    directory: Path | None,
    seconds: float,
    communicator: Communicator | None,
    *,
    as_json: bool,
    no_publish: bool,
    resume: bool,
    store: str,
) -> None:
    """Train, evaluate and publish a job; `communicator` is that of the ranks that train with this one."""
    target = None if no_publish else open_store(store)
    if target is not None:
        target.check_writable(job.settings.model.name)
    out: Console = terminal.stderr if as_json else terminal.stdout
    prepared = ranks.prepare_together(communicator, lambda: prepare(out, job))
    if common.verbosity() > 0:
        check_output.print_check(out, prepared)
    elif common.verbosity() == 0:
        out.print(output.start_line(prepared), soft_wrap=True)
    _print_notes(out, prepared)
    checkpoint = _open_checkpoint(file, directory, prepared, resume=resume, seconds=seconds)
    if resume and common.verbosity() >= 0:
        start = "resuming from" if checkpoint.has_state else "starting from the beginning: there is no checkpoint"
        out.print(f"note: {start} {checkpoint.path}", soft_wrap=True)
    try:
        with progress(out, prepared) as on_epoch:
            outcome = jobs.train_and_evaluate(prepared, on_epoch, checkpoint, communicator=communicator)
    except InterruptedTrainingError as error:
        fix = "; continue it with train --resume" if error.saved else ""
        common.fail(f"{error}{fix}", 128 + error.signal)
    except DivergedError as error:
        checkpoint.remove()  # resuming would diverge again
        common.fail(error if common.verbosity() > 1 else _divergence_message(error, job), EXIT_CODES[DivergedError])
    aliases = None
    if target is not None:
        mover = AliasMover(target, job, current_user(), datetime.now(UTC))
        mover.pin_default()
        outcome = jobs.publish(outcome, job, target)
    checkpoint.remove()
    if target is not None and outcome.version is not None:
        aliases = mover.move(outcome.version)
        outcome = jobs.add_report(outcome, target)
    if as_json:
        common.print_json(output.result_data(outcome, prepared, store, aliases))
    else:
        if common.verbosity() >= 0:
            for line in output.end_lines(outcome, prepared):
                terminal.print_wrapped(out, line)
        output.print_metrics(out, outcome)
        output.print_published(out, outcome, store, aliases)
    if aliases is not None and aliases.error is not None:
        raise aliases.error


@main.command(short_help="Show what a job would train, without training.")
@click.argument("file")
@overrides_option
@seed_option
@common.json_option
@common.verbosity_option
@common.exit_codes(EXIT_CODES)
def check(file: str, overrides: tuple[tuple[str, Any], ...], seed: int | None, as_json: bool) -> None:
    """Read the job FILE and its data and show columns, classes, split and layers, without training."""
    prepared = prepare(terminal.stderr if as_json else terminal.stdout, _load_job(file, overrides, seed))
    if as_json:
        common.print_json(check_output.check_data(prepared))
        return
    check_output.print_check(terminal.stdout, prepared)
    _print_notes(terminal.stdout, prepared)


@main.command(short_help="Write a job file for a table.")
@click.argument("data", metavar="TABLE", type=click.Path(path_type=Path))
@click.option("--target", metavar="COLUMN", help="The column to predict, or several: a,b,c.")
@click.option(
    "-o",
    "--output",
    "job",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Job file to write.  [default: next to the table]",
)
@click.option("--name", metavar="NAME", help="Name of the model.  [default: name of the job file]")
@table_options
@click.option("--fast", is_flag=True, help="Write one small network, which trains faster and is less accurate.")
@click.option("--force", is_flag=True, help="Overwrite an existing job file.")
@common.json_option
@common.verbosity_option
@common.exit_codes(EXIT_CODES)
def init(
    data: Path,
    target: str | None,
    job: Path | None,
    name: str | None,
    options: TableOptions,
    fast: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write a commented job file for a TABLE: CSV, JSON lines, Parquet, Arrow or Excel; or a folder of images.

    The kinds of the columns are inferred from the data; the network and the training settings are defaults to start
    from. Review the file before training.
    """
    path = job or data.parent / f"{table_stem(data.name)}.toml"  # Path(".") has no name for with_suffix
    draft = scaffold.draft_job(data, target, path, name, options, fast=fast)
    scaffold.write_job_file(path, draft.text, force=force)
    if as_json:
        left_out = dict(draft.left_out)
        faults = [] if draft.error is None else [fault.as_dict() for fault in draft.error.faults]
        common.print_json({"job": str(path), "trains": draft.summary, "left_out": left_out, "faults": faults})
        return
    print_draft(terminal.stdout, path, draft)


def _cross_validate(job: jobs.Job, count: int, repeats: int, as_json: bool) -> None:
    """Train and evaluate with each fold held out; print mean and standard deviation of the metrics."""
    out: Console = terminal.stderr if as_json else terminal.stdout

    def print_fold(fold: Fold, outcome: jobs.Outcome) -> None:
        if common.verbosity() >= 0:
            out.print(output.fold_line(fold, outcome), soft_wrap=True)

    try:
        found = summarize_folds(outcomes := cross_validate(job, count, print_fold, repeats=repeats))
    except DivergedError as error:
        common.fail(error if common.verbosity() > 1 else _divergence_message(error, job), EXIT_CODES[DivergedError])
    if as_json:
        every = [{"epochs": one.epochs, **headline_metrics(one.metrics, one.baseline)} for one in outcomes]
        common.print_json({"model": job.settings.model.name, "summary": found, "folds": every})
    else:
        output.print_folds(out, found, count, repeats)


def _find_rate(job: jobs.Job, as_json: bool) -> None:
    """Print the loss for rising learning rates, and the suggested rate."""
    curve = find_job_learning_rate(jobs.prepare(job))
    if as_json:
        common.print_json({"model": job.settings.model.name, **asdict(curve)})
    else:
        output.print_rates(terminal.stdout, curve)


def _open_checkpoint(
    file: Path, directory: Path | None, prepared: jobs.PreparedJob, *, resume: bool, seconds: float
) -> Checkpoint:
    """Open the checkpoint of a job: `penguins.checkpoint.npz` for `penguins.toml`."""
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.BadParameter(f"{directory}: {error.strerror}", param_hint="--checkpoint") from error
    path = (directory or file.parent) / f"{file.stem}.checkpoint.npz"
    checkpoint = Checkpoint(path, prepared.identity, resume=resume, seconds=seconds, warn=common.print_note)
    click.get_current_context().call_on_close(checkpoint.close)
    return checkpoint


def _print_notes(out: Console, prepared: jobs.PreparedJob) -> None:
    if common.verbosity() >= 0:
        for note in prepared.notes:
            terminal.print_wrapped(out, f"note: {note}")


def _divergence_message(error: DivergedError, job: jobs.Job) -> str:
    """Return where training diverged and which settings to try, with values derived from the job."""
    train, data = job.settings.train, job.settings.data
    suggestions = [f"a lower learning rate: --set train.learning_rate={train.learning_rate / 10:g}"]
    if data.scale == "none":
        suggestions.append("scaled inputs: --set data.scale=standard")
    if train.momentum:
        suggestions.append(f"less momentum: --set train.momentum={train.momentum / 2:g}")
    if train.clip_norm is None:
        suggestions.append("gradient clipping: --set train.clip_norm=1")
    lines = "".join(f"\n  try {line}" for line in suggestions)
    where = f"epoch {error.epoch}, step {error.step}"
    return f"diverged: the loss became {error.loss} in {where}. Nothing was published.{lines}"
