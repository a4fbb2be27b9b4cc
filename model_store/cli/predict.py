"""`models predict`: answers of a model in the store, or of a running service, to rows or to whole files.

With `--output` a CSV file of any length is read, answered and written a few thousand rows at a time. The file of
answers appears when it is whole; a row that does not fit leaves none.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from model_store.cli import tables
from model_store.cli.common import note, print_json, verbosity
from model_store.cli.group import command, resolved
from model_store.cli.terminal import stderr
from model_store.client.http import Client, ServiceError
from model_store.errors import Fault, InputError
from model_store.registry.store import open_store
from model_store.schema import row_parser
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    Input,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from model_store.utils.atomic_write import replacing

_BATCH_CELLS = 100_000  # a few thousand rows of a table, a hundred images: some megabytes in memory


@dataclass(frozen=True)
class Answering:
    """A version of a model, wherever it is."""

    name: str
    version: int
    signature: Signature
    predict: Callable[[list[Any]], list[Any]]


@command("predict")
@click.argument("model", metavar="MODEL")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), required=False)
@click.option("--row", "row_texts", multiple=True, metavar="JSON", help="A row, as an object or a list; repeatable.")
@click.option("--url", metavar="URL", help="Ask a running service, such as http://127.0.0.1:8000, not the store.")
@click.option(
    "--key",
    metavar="KEY",
    envvar="FORWARD_PASS_KEY",
    show_envvar=True,
    help="The key, where the service asks for one. Others on this machine may see an option: better set the variable.",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Answer a CSV file of any size into one."
)
def predict(
    model: str,
    file: str | None,
    row_texts: tuple[str, ...],
    url: str | None,
    key: str | None,
    output: Path | None,
    store: str,
    as_json: bool,
) -> None:
    """Answer rows of a CSV or JSON file, or given ones.

    "-" is standard input. CSV has a header, or its cells are in column order; an empty cell is a missing value; columns
    that the model does not take are passed over, and told.
    """
    if (file is None) == (not row_texts):
        raise click.UsageError("Expected rows: either a FILE, or --row.")
    if output is not None and file is None:
        raise click.UsageError("Expected a FILE: --output answers a whole file.")
    answering = _stored(store, model) if url is None else _served(url, key, model)
    name = answering.name
    if file is not None and output is not None:
        count = _answer_file(answering, file, output)
        note(f"Answered {count} rows by {name}/{answering.version} into {output}.")
        if as_json:
            print_json({"model": name, "version": answering.version, "rows": count, "output": str(output)})
        return
    if file is None:
        instances = row_parser.from_options(row_texts)
    else:
        with click.open_file(file, "rb") as source:
            others: list[str] = []
            instances = row_parser.from_bytes(source.read(), _title(file), answering.signature, others)
        _tell(others, answering.signature)
    answers = answering.predict(instances)
    if as_json:
        print_json({"model": name, "version": answering.version, "predictions": answers})
    else:
        tables.show(tables.predictions(answers))


def _stored(address: str, model: str) -> Answering:
    store = open_store(address)
    name, number = resolved(store, model)
    version, loaded = store.load(name, number)
    return Answering(name, version.number, loaded.signature, loaded.predict)


def _served(url: str, key: str | None, model: str) -> Answering:
    """One version answers every batch, whatever is published meanwhile."""
    client = Client(url, key=key)
    name, _, ref = model.partition("/")
    try:
        card = client.model(name, ref or None)
    except ServiceError as e:
        if e.status != HTTPStatus.UNAUTHORIZED:
            raise
        raise ServiceError(f"{e}; here that is FORWARD_PASS_KEY, or --key", e.status) from e
    number = card["version"]
    signature = Signature(tuple(map(_column, card["inputs"])), _output(card["output"]))
    return Answering(name, number, signature, lambda batch: list(client.predict(name, batch, version=number)))


def _column(about: Mapping[str, Any]) -> Input:
    """As much of a column as reading a file needs."""
    if about["kind"] == "array":
        return ArrayColumn(about["name"], tuple(about["shape"]))
    return (
        CategoryColumn(about["name"], tuple(about["categories"]))
        if about["kind"] == "category"
        else NumberColumn(about["name"])
    )


def _output(about: Mapping[str, Any]) -> ClassificationOutput | RegressionOutput:
    if about["kind"] == "classes":
        return ClassificationOutput(about["name"], tuple(about["labels"]))
    return RegressionOutput(tuple(about["names"]), (0.0,) * len(about["names"]), (1.0,) * len(about["names"]))


def _answer_file(answering: Answering, file: str, output: Path) -> int:
    """How many rows there were. InputError with the numbers of rows that do not fit."""
    signature, title = answering.signature, _title(file)
    width = sum(column.width if isinstance(column, ArrayColumn) else 1 for column in signature.inputs)
    size = max(1, min(5_000, _BATCH_CELLS // width))
    count, others = 0, list[str]()
    with (
        click.open_file(file, "rb") as source,
        closing(row_parser.batches(source, title, signature, size, others)) as batches,
        replacing(output, "x", encoding="utf-8", newline="") as target,
        _progress(source, file) as advance,
    ):
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(_heading(signature.output))
        for batch in batches:
            writer.writerows(map(_cells, _answered(answering, batch, title, count)))
            count += len(batch)
            advance()
    _tell(others, signature)
    return count


def _tell(others: list[str], signature: Signature) -> None:
    if others:
        note(f"Passed over {', '.join(others)}: the model takes {', '.join(signature.names)}.")


def _answered(answering: Answering, batch: list[Any], title: str, start: int) -> list[Any]:
    try:
        return answering.predict(batch) if batch else []
    except InputError as e:
        raise InputError([_placed(fault, title, start) for fault in e.faults], e.total) from e


def _placed(fault: Fault, title: str, start: int) -> Fault:
    """A row of a batch as a row of the file: `instances.2.island` is `row_parser.csv row 5002.island`."""
    head, _, rest = fault.location.partition(".")
    number, dot, column = rest.partition(".")
    if head != "instances" or not number.isdigit():
        return fault
    return Fault(f"{title} row {start + int(number)}{dot}{column}", fault.problem, fault.fix)


def _heading(output: ClassificationOutput | RegressionOutput) -> list[str]:
    if isinstance(output, ClassificationOutput):
        return [output.name, *(f"probability_{label}" for label in output.labels)]
    return list(output.names)


def _cells(answer: Any) -> list[Any]:
    if not isinstance(answer, Mapping):
        return [answer]
    return [answer["label"], *answer["probabilities"].values()] if "probabilities" in answer else list(answer.values())


def _title(file: str) -> str:
    return "standard input" if file == "-" else Path(file).name


@contextmanager
def _progress(source: IO[bytes], file: str) -> Iterator[Callable[[], None]]:
    """A bar for somebody at a terminal, by the bytes that were read."""
    if not stderr.is_terminal or verbosity() < 0:
        yield lambda: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) as progress:
        total = Path(file).stat().st_size if Path(file).is_file() else None
        task = progress.add_task(_title(file), total=total)
        yield lambda: progress.update(task, completed=0 if total is None else source.tell())
