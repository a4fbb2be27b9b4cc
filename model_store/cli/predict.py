"""`models predict`: predictions of a model in the store, or of a running service, for rows or whole files.

With `--output` a CSV file of any size is read, predicted and written a few thousand rows at a time. The output file
appears only when it is complete; if a row is invalid, no file is written.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from model_store.cli import tables
from model_store.cli.common import print_json, print_note, verbosity
from model_store.cli.group import command, resolve_reference
from model_store.cli.terminal import stderr
from model_store.errors import Fault, InputError, StoreError
from model_store.registry.store import open_store
from model_store.schema import row_parser
from model_store.schema.columns import KINDS, Column
from model_store.schema.signature import ClassificationOutput, RegressionOutput, Signature
from model_store.utils.atomic_write import atomic_write

_BATCH_CELLS = 100_000  # a few thousand rows of a table or a hundred images: some megabytes of memory


@dataclass(frozen=True)
class Predictor:
    """A version of a model, loaded from the store or served elsewhere."""

    name: str
    version: int
    signature: Signature
    predict: Callable[[list[Any]], list[Any]]


@command("predict")
@click.argument("model", metavar="MODEL")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), required=False)
@click.option(
    "--row", "row_texts", multiple=True, metavar="JSON", help="A row, as a JSON object or a list; repeatable."
)
@click.option(
    "--url", metavar="URL", help="Use a running service, such as http://127.0.0.1:8000, instead of the store."
)
@click.option(
    "--key",
    metavar="KEY",
    envvar="FORWARD_PASS_KEY",
    show_envvar=True,
    help="API key of the service. Command-line options are visible to other users; use the environment variable.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the predictions to this CSV file.",
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
    """Make predictions for rows of a CSV or JSON file, or of --row.

    FILE "-" is standard input. CSV has a header, or its cells are in column order; an empty cell is a missing value.
    Columns that the model does not use are ignored. With --output FILE can have any size.
    """
    if (file is None) == (not row_texts):
        raise click.UsageError("Give either FILE or --row.")
    if output is not None and file is None:
        raise click.UsageError("--output needs FILE.")
    predictor = _predictor_from_store(store, model) if url is None else _predictor_from_service(url, key, model)
    name = predictor.name
    if file is not None and output is not None:
        count = _predict_file(predictor, file, output)
        rows = "1 row" if count == 1 else f"{count} rows"
        print_note(f"Wrote the predictions of {name}/{predictor.version} for {rows} to {output}.")
        if as_json:
            print_json({"model": name, "version": predictor.version, "rows": count, "output": str(output)})
        return
    if file is None:
        instances = row_parser.parse_json_rows(row_texts)
    else:
        with click.open_file(file, "rb") as source:
            ignored: list[str] = []
            instances = row_parser.parse_rows(source.read(), _display_name(file), predictor.signature, ignored)
        _print_ignored(ignored)
    predictions = predictor.predict(instances)
    if as_json:
        print_json({"model": name, "version": predictor.version, "predictions": predictions})
    else:
        tables.print_table(tables.predictions_table(predictions))


def _predictor_from_store(location: str, model: str) -> Predictor:
    store = open_store(location)
    name, number = resolve_reference(store, model)
    version, loaded = store.load(name, number)
    return Predictor(name, version.number, loaded.signature, loaded.predict)


def _predictor_from_service(url: str, key: str | None, model: str) -> Predictor:
    """Pin the version, so that all batches use the same one even if another is published meanwhile."""
    import forward_pass_client as fp  # noqa: PLC0415 - only --url needs HTTP

    @contextmanager
    def own_errors() -> Iterator[None]:
        try:
            yield
        except fp.InputError as e:
            raise InputError([Fault(*fault) for fault in e.faults]) from e
        except fp.ServiceError as e:
            fix = "; set FORWARD_PASS_KEY or --key" if e.status == HTTPStatus.UNAUTHORIZED else ""
            raise StoreError(f"{e}{fix}") from e

    name, _, ref = model.partition("/")
    with own_errors():
        client = fp.Client(url, key=key)
        metadata = client.model(name, ref or None)
    number = metadata["version"]
    inputs = tuple(map(_column_from_metadata, metadata["inputs"]))
    signature = Signature(inputs, _output_from_metadata(metadata["output"]))

    @own_errors()
    def predict_batch(batch: list[Any]) -> list[Any]:
        return list(client.predict(name, batch, version=number))

    return Predictor(name, number, signature, predict_batch)


def _column_from_metadata(about: Mapping[str, Any]) -> Column:
    return KINDS[about["kind"]].from_public_details(about)


def _output_from_metadata(about: Mapping[str, Any]) -> ClassificationOutput | RegressionOutput:
    if about["kind"] == "classes":
        return ClassificationOutput(about["name"], tuple(about["labels"]))
    return RegressionOutput(tuple(about["names"]), (0.0,) * len(about["names"]), (1.0,) * len(about["names"]))


def _predict_file(predictor: Predictor, file: str, output: Path) -> int:
    """Write the predictions and return the number of rows. InputError with the row numbers of invalid rows."""
    signature, name = predictor.signature, _display_name(file)
    width = sum(math.prod(column.shape) for column in signature.inputs)
    size = max(1, min(5_000, _BATCH_CELLS // width))
    count, ignored = 0, list[str]()
    with (
        click.open_file(file, "rb") as source,
        closing(row_parser.iter_csv_batches(source, name, signature, size, ignored)) as batches,
        atomic_write(output, "x", encoding="utf-8", newline="") as target,
        _progress(source, file) as advance,
    ):
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(_csv_header(signature.output))
        for batch in batches:
            writer.writerows(map(_csv_cells, _predict_batch(predictor, batch, name, count)))
            count += len(batch)
            advance()
    _print_ignored(ignored)
    return count


def _print_ignored(columns: list[str]) -> None:
    if columns:
        print_note(f"Ignored columns: {', '.join(columns)}")


def _predict_batch(predictor: Predictor, batch: list[Any], name: str, start: int) -> list[Any]:
    try:
        return predictor.predict(batch) if batch else []
    except InputError as e:
        raise InputError([_with_file_row(fault, name, start) for fault in e.faults], e.total) from e


def _with_file_row(fault: Fault, name: str, start: int) -> Fault:
    """Replace the row of a batch by the row of the file: `instances.2.island` becomes `rows.csv row 5002.island`."""
    head, _, rest = fault.location.partition(".")
    number, dot, column = rest.partition(".")
    if head != "instances" or not number.isdigit():
        return fault
    return Fault(f"{name} row {start + int(number)}{dot}{column}", fault.problem, fault.fix)


def _csv_header(output: ClassificationOutput | RegressionOutput) -> list[str]:
    if isinstance(output, ClassificationOutput):
        return [output.name, *(f"probability_{label}" for label in output.labels)]
    return list(output.names)


def _csv_cells(prediction: Any) -> list[Any]:
    if not isinstance(prediction, Mapping):
        return [prediction]
    if "probabilities" in prediction:
        return [prediction["label"], *prediction["probabilities"].values()]
    return list(prediction.values())


def _display_name(file: str) -> str:
    return "standard input" if file == "-" else Path(file).name


@contextmanager
def _progress(source: IO[bytes], file: str) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, by the bytes read."""
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
        task = progress.add_task(_display_name(file), total=total)
        yield lambda: progress.update(task, completed=0 if total is None else source.tell())
