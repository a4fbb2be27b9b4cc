"""What a terminal shows while a job is read and trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from model_store.cli import common
from training.cli import output
from training.engine.early_stopping import EpochCallback, EpochResult
from training.pipeline import job as jobs


def prepare(out: Console, job: jobs.Job) -> jobs.PreparedJob:
    """Prepare the job; on a terminal show what is being read, because a table of 60 MB takes some seconds."""
    if common.verbosity() < 0 or not out.is_terminal:
        return jobs.prepare(job)
    data = job.settings.data
    with out.status(f"Reading {data.path or data.images}"):
        return jobs.prepare(job)


@contextmanager
def progress(out: Console, prepared: jobs.PreparedJob) -> Iterator[EpochCallback | None]:
    """Show a progress bar on a terminal, else print a line for each epoch or network; with -q nothing."""
    train = prepared.job.settings.train
    if common.verbosity() < 0:
        yield None
    elif not out.is_terminal and train.ensemble is not None:
        last: list[EpochResult] = []  # of each network

        def keep(epoch: EpochResult) -> None:
            if last and last[-1].network == epoch.network:
                last.pop()
            elif last:
                out.print(output.epoch_line(last[-1]), soft_wrap=True)
            last.append(epoch)

        yield keep
        if last:
            out.print(output.epoch_line(last[-1]), soft_wrap=True)
    elif not out.is_terminal:
        yield lambda epoch: out.print(output.epoch_line(epoch), soft_wrap=True)
    else:
        from rich.progress import (  # noqa: PLC0415 - needed only on a terminal
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        text = TextColumn("{task.description}", markup=False)
        with Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=out) as bar:
            task = bar.add_task("epoch", total=train.epochs * (train.ensemble or 1))

            def advance(epoch: EpochResult) -> None:
                loss = epoch.loss if epoch.validation_loss is None else epoch.validation_loss
                which = "loss" if epoch.validation_loss is None else "validation loss"
                completed = (epoch.network - 1) * epoch.total_epochs + epoch.number
                bar.update(task, completed=completed, description=f"{which} {loss:.5f}")

            yield advance
