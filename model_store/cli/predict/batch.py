"""`models predict MODEL FILES... --output FOLDER/`: a batch job in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_store.batch.model_source import ModelSource
from model_store.batch.plan import BatchOptions, Part, Plan, ScoredModel, make_plan
from model_store.cli.common import print_json, print_note, verbosity
from model_store.cli.group import resolve_reference
from model_store.cli.terminal import stderr
from model_store.errors import Fault, InputError, StoreError
from model_store.registry.store import open_store
from model_store.storage.input_files import is_bucket_url, list_input_files, matches, split_pattern
from model_store.utils.extras import install_command


class Share(NamedTuple):
    """A static share of a job: the parts whose number is `number` modulo `total`."""

    number: int
    total: int


class ShareType(click.ParamType[Share]):
    """A share such as 0/8, the first of eight."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Share:
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(value))
        if match is None or not int(match[1]) < int(match[2]):
            self.fail(f"expected a share such as 0/8, from 0/8 to 7/8; found {value!r}", param, ctx)
        return Share(int(match[1]), int(match[2]))


def is_folder(output: str) -> bool:
    """Return True if predictions are written to a folder or a bucket, not to a file."""
    return output.endswith("/") or is_bucket_url(output) or Path(output).is_dir()


def is_pattern(file: str) -> bool:
    """Return True for a URL, and for a pattern that is not the name of a file."""
    return is_bucket_url(file) or (split_pattern(file)[1] != "" and not Path(file).exists())


def score_batch(
    store_location: str,
    model: str,
    files: Sequence[str],
    output: str,
    options: BatchOptions,
    *,
    cluster: str | None,
    share: Share | None,
    as_json: bool,
) -> None:
    """Score the parts of a job that have no output yet, or the share of this process, and print what was done.

    InputError with the rows of all parts that could not be scored, after all others are written. StoreError if the
    storage or workers failed for a part, or if the folder has another job.
    """
    if "-" in files:
        raise click.UsageError("Standard input has no parts; give the path of a file.")
    files, folder = list(map(_absolute, files)), _absolute(output)
    _check_usage(files, folder, cluster, share)
    batch_job = _import("arrow", "a folder as --output needs pyarrow")
    name, number = resolve_reference(store := open_store(store_location), model)
    scored = ScoredModel(name, number, store.manifest(name, number)[0].digest)
    source = ModelSource(store_location, scored)
    loaded = source.load()

    with _progress("planning"):
        inputs = list_input_files(files)
        plan = make_plan(
            scored, inputs, options, lambda table: batch_job.check_columns(table, options, loaded.signature)
        )
    job = batch_job.BatchJob(plan, folder)
    parts: list[Part] = job.missing_parts(*(share or Share(0, 1)))
    if cluster is None:
        results = batch_job.score_here(job, parts, loaded)
    else:
        results = _import("dask", "--cluster needs distributed").score_on_cluster(cluster, job, parts, source)
    summary = _Summary(plan, share)
    with _progress("scoring", len(parts)) as advance:
        for result in results:
            summary.add(result)
            advance()
    missing = job.finish()
    summary.report(output, missing, as_json=as_json)


class _Summary:
    """What became of the parts of a job in this run."""

    def __init__(self, plan: Plan, share: Share | None) -> None:
        self._plan, self._share = plan, share
        self._rows = self._written = self._fault_count = self._note_count = 0
        self._filled = Counter[str]()
        self._faults: list[tuple[int, Sequence[Fault]]] = []
        self._store_errors: list[str] = []

    def add(self, result: Any) -> None:
        self._rows, self._written = self._rows + result.rows, self._written + result.written
        self._filled += Counter(result.filled)
        self._fault_count += result.fault_count
        for note in result.notes[: max(0, _SHOWN_NOTES - self._note_count)]:
            print_note(note)
        self._note_count += len(result.notes)
        if result.faults and len(self._faults) < InputError.MAX_FAULTS:
            self._faults.append((result.number, result.faults))
        if result.store_error:
            self._store_errors.append(result.store_error)

    def report(self, output: str, missing: int, *, as_json: bool) -> None:
        """Print what was done. InputError or StoreError if parts have failed."""
        model, total = self._plan.model, self._plan.part_count
        parts = "1 part" if self._written == 1 else f"{self._written:,} parts"
        print_note(f"Wrote {parts} of {total:,} with {self._rows:,} rows to {output}: {model.name}/{model.version}.")
        for column, count in self._filled.items():
            print_note(f"Warning: {column}: {count} missing value{'s' * (count > 1)} filled in")
        if missing:
            print_note(f"{missing:,} of {total:,} parts have no output yet; the same command writes them.")
        for problem in self._store_errors[:_SHOWN_ERRORS]:
            print_note(f"Failed: {problem}")
        if self._fault_count:
            faults = [fault for _, part_faults in sorted(self._faults) for fault in part_faults]
            raise InputError(faults, self._fault_count)
        if self._store_errors:
            raise StoreError(f"{len(self._store_errors)} of {total} parts failed; the first: {self._store_errors[0]}")
        if as_json:
            found = {"model": model.name, "version": model.version, "output": output, "parts": total}
            found |= {"written": self._written, "rows": self._rows, "missing": missing}
            print_json(found | ({"filled": dict(self._filled)} if self._filled else {}))


_SHOWN_ERRORS = _SHOWN_NOTES = 10  # of the storage, and of the reader of rows


def _absolute(location: str) -> str:
    """Return a path that means the same in each process, also one with another current directory."""
    return location if is_bucket_url(location) else os.path.abspath(location)  # noqa: PTH100 - Path keeps ".."


def _check_usage(files: Sequence[str], output: str, cluster: str | None, share: Share | None) -> None:
    if cluster is not None and share is not None:
        raise click.UsageError("Give either --cluster or --part.")
    if cluster is not None and re.fullmatch(_CLUSTERS, cluster) is None:
        raise click.UsageError(
            f"--cluster: expected local, local:4 or an address such as tcp://10.0.0.1:8786; found {cluster!r}."
        )
    example = f"{output.rstrip('/')}/part-000000.parquet"
    for pattern in files:
        if matches(pattern, example):
            raise click.UsageError(f"{pattern} includes the files of --output {output}; choose another folder.")


_CLUSTERS = r"local(:[1-9][0-9]{0,3})?|[a-z]+://\S+"


def _import(extra: str, problem: str) -> Any:
    """Return the module of `model_store.batch` that needs an extra. A usage error names the extra if it is missing."""
    module = {"arrow": "model_store.batch.job", "dask": "model_store.batch.cluster"}[extra]
    try:
        return import_module(module)
    except ModuleNotFoundError as e:
        raise click.UsageError(f"{problem}; install it with: {install_command(extra)}") from e


@contextmanager
def _progress(description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, by parts."""
    if not stderr.is_terminal or verbosity() < 0:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)
