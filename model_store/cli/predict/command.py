"""`models predict`: predictions of a model in the store, or of a running service, for rows or whole files.

With `--output` a table of any size is read, predicted and written a few thousand rows at a time. The output file
appears only when it is complete; if a row is invalid, no file is written. A folder as `--output` is for many files, on
many processes: see batch.py.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from model_store.batch.plan import BatchOptions
from model_store.cli import tables
from model_store.cli.common import open_output, print_json, print_note, verbosity
from model_store.cli.group import command, header_option, table_options
from model_store.cli.predict.answers import (
    answer_cells,
    answer_header,
    answer_options,
    answer_tables,
    check_one_cell_each,
    wanted_keys,
)
from model_store.cli.predict.batch import Share, ShareType, is_folder, is_pattern, score_batch
from model_store.cli.predict.images import find_images, predict_images, write_image_predictions
from model_store.cli.predict.kept_columns import kept_columns, split_names
from model_store.cli.predict.predictor import Predictor, predictor_from_service, predictor_from_store
from model_store.cli.predict.row_files import display_name, open_rows, own_locations, print_ignored, read_rows
from model_store.cli.terminal import stderr
from model_store.errors import InputError
from model_store.schema import row_parser
from model_store.schema.prediction_table import prediction_cells, prediction_header
from model_store.schema.row_parser import Header, RowBatch, count_filled
from model_store.schema.signature import Signature
from model_store.tables.options import TableOptions
from model_store.tables.text_file import FileOpener

_EXISTING_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)
_OUTPUT_FILE = click.Path(dir_okay=False, allow_dash=True)
_BATCH_CELLS = 100_000  # a few thousand rows of a table or a hundred images: some megabytes of memory
_TEXT_CELLS = 200  # that a text counts as: however long the texts, a batch has fewer than a service hashes in a request


@command("predict")
@click.argument("model", metavar="MODEL")
@click.argument("files", metavar="[FILE]...", nargs=-1)
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
@header_option
@table_options
@click.option(
    "--output",
    metavar="FILE|FOLDER/",
    help='Write the predictions to this CSV file; "-" is standard output. A folder, which ends with a slash, or its '
    "URL in a bucket gets a Parquet file for each part of FILEs.",
)
@click.option(
    "--keep",
    metavar="COLUMNS",
    multiple=True,
    help="Columns of FILE to write before the predictions, such as id,name; repeatable.",
)
@click.option("--keep-all", is_flag=True, help="Write all columns of FILE before the predictions.")
@answer_options
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Score the parts on a Dask cluster: local, local:4 (processes) or the address of a scheduler, such as "
    "tcp://10.0.0.1:8786.",
)
@click.option(
    "--part",
    "share",
    metavar="I/N",
    type=ShareType(),
    help="Score only the parts whose number is I modulo N, from 0/N to N-1/N; the other processes score the others.",
)
@click.option("--whole-files", is_flag=True, help="Do not divide text files: their quoted cells hold line breaks.")
def predict(
    model: str,
    files: tuple[str, ...],
    row_texts: tuple[str, ...],
    url: str | None,
    key: str | None,
    header: Header | None,
    options: TableOptions,
    output: str | None,
    keep: tuple[str, ...],
    keep_all: bool,
    explain: bool,
    explain_label: str | None,
    interval: float | None,
    label_set: float | None,
    threshold: float | None,
    cluster: str | None,
    share: Share | None,
    whole_files: bool,
    store: str,
    as_json: bool,
) -> None:
    """Make predictions for rows of FILE, or of --row.

    FILE is JSON (a list of rows), or a table as `train` reads it: CSV and its relatives, JSON lines, Parquet, Arrow or
    Excel, by its name; "-" is standard input. CSV has a header, or its cells are in column order; an empty cell is a
    missing value. Columns that the model does not use are ignored. With --output a table can have any size.

    For a model of images there may be any number of FILEs: PNG and JPEG files, and folders of them.

    With a folder as --output there may be any number of FILEs: paths and URLs of files and folders, with * and **/.
    The same command continues an interrupted job. See docs/batch-scoring.md.
    """
    if bool(files) == bool(row_texts):
        raise click.UsageError("Give either FILE or --row.")
    levels = {"--interval": interval, "--set": label_set, "--threshold": threshold}
    asked = next((option for option, level in levels.items() if level is not None), None)
    if explain or explain_label is not None:
        asked = "--explain"
    if output is not None and is_folder(output):
        if asked is not None:
            raise click.UsageError(f"{asked} writes to a file; a folder takes predictions alone.")
        if url is not None:
            raise click.UsageError("--url writes to a file; a folder needs the store.")
        given = BatchOptions(None if keep_all else tuple(split_names(keep)), header, options, whole_files)
        if keep and keep_all:
            raise click.UsageError("Give either --keep or --keep-all.")
        score_batch(store, model, files, output, given, cluster=cluster, share=share, as_json=as_json)
        return
    for name, is_given in (("--cluster", cluster), ("--part", share), ("--whole-files", whole_files)):
        if is_given:
            raise click.UsageError(f"{name} needs a folder as --output, such as predictions/.")
    images = find_images(files) if files else None
    if images is not None and (header is not None or options != TableOptions() or keep or keep_all):
        raise click.UsageError("--header, --keep and the options of a table need a table.")
    if images is not None and asked is not None:
        raise click.UsageError(f"{asked} needs rows: a table, JSON or --row.")
    if images is None and (len(files) > 1 or any(map(is_pattern, files))):
        raise click.UsageError("Several tables need a folder as --output, such as predictions/.")
    if images is not None:
        for path in images:
            _EXISTING_FILE.convert(path, None, click.get_current_context())
        if output is not None and any(_is_same_file(str(path), output) for path in images):
            raise click.UsageError("--output would replace FILE; choose another file.")
        predictor = predictor_from_store(store, model) if url is None else predictor_from_service(url, key, model)
        _print_image_predictions(predictor, images, output, as_json=as_json)
        return
    file = str(_EXISTING_FILE.convert(files[0], None, click.get_current_context())) if files else None
    if output is not None:
        _OUTPUT_FILE.convert(output, None, click.get_current_context())
    if file is None and (output is not None or header is not None or options != TableOptions()):
        raise click.UsageError("--output, --header and the options of a table need FILE.")
    if output is None and (keep or keep_all):
        raise click.UsageError("--keep and --keep-all need --output.")
    if keep and keep_all:
        raise click.UsageError("Give either --keep or --keep-all.")
    if output is not None and Path(str(file)).suffix.lower() == ".json":
        raise click.UsageError("--output needs a table, such as CSV; predictions for JSON are printed with --json.")
    if file is not None and output is not None and _is_same_file(file, output):
        raise click.UsageError("--output would replace FILE; choose another file.")
    predictor = predictor_from_store(store, model) if url is None else predictor_from_service(url, key, model)
    name = predictor.name
    wanted = wanted_keys(
        predictor.signature,
        explain=explain,
        explain_label=explain_label,
        interval=interval,
        label_set=label_set,
        threshold=threshold,
    )
    if file is not None and output is not None:
        kept = None if keep_all else split_names(keep)
        count, filled = _predict_file(predictor, file, header, options, output, kept, wanted)
        rows = "1 row" if count == 1 else f"{count} rows"
        target = "standard output" if output == "-" else output
        print_note(f"Wrote the predictions of {name}/{predictor.version} for {rows} to {target}.")
        warnings = _fill_warnings(predictor.signature, filled)
        if as_json and output != "-":
            print_json({"model": name, "version": predictor.version, "rows": count, "output": output, **warnings})
        return
    if file is None:
        batch = RowBatch(row_parser.parse_json_rows(row_texts))
        predictions, answers = _predict_rows(predictor, batch.rows, wanted)
    else:
        batch = read_rows(file, predictor.signature, header, options)
        predictions, answers = _predict_batch(predictor, batch, display_name(file), wanted)
    warnings = _fill_warnings(predictor.signature, count_filled(predictor.signature, batch.rows))
    if as_json:
        print_json({"model": name, "version": predictor.version, "predictions": predictions, **answers, **warnings})
    else:
        tables.print_table(tables.predictions_table(predictions))
        for table in answer_tables(answers):
            tables.print_table(table)


def _print_image_predictions(predictor: Predictor, paths: Sequence[Path], output: str | None, *, as_json: bool) -> None:
    about = {"model": predictor.name, "version": predictor.version}
    if output is not None:
        count = write_image_predictions(predictor, paths, output)
        print_note(f"Wrote the predictions of {predictor.name}/{predictor.version} for {count} files to {output}.")
        if as_json and output != "-":
            print_json({**about, "rows": count, "output": output})
        return
    names, predictions = zip(*((str(path), found) for path, found in predict_images(predictor, paths)), strict=True)
    if as_json:
        print_json({**about, "files": names, "predictions": predictions})
    else:
        tables.print_table(tables.predictions_table(predictions, names))


def _predict_file(
    predictor: Predictor,
    file: str,
    header: Header | None,
    options: TableOptions,
    output: str,
    keep: Sequence[str] | None,
    wanted: Mapping[str, Any],
) -> tuple[int, Counter[str]]:
    """Write the predictions after the columns `keep`, None for all. Return the number of rows, and of filled values.

    wanted: keys of a request, whose answers are written after the predictions. InputError with the lines of invalid
    rows.
    """
    check_one_cell_each(predictor.signature, wanted)
    signature, name, opener = predictor.signature, display_name(file), FileOpener(file)
    width = sum(_TEXT_CELLS if column.kind == "text" else math.prod(column.shape) for column in signature.inputs)
    size = max(1, min(5_000, _BATCH_CELLS // max(width, len(_output_header(signature, [], wanted)))))
    count, filled = 0, Counter[str]()
    with open_output(output) as target, _progress(opener, file) as advance, ExitStack() as opened:
        with own_locations(name):
            table = opened.enter_context(open_rows(name, opener, signature, header, options))
        kept = kept_columns(table, keep, name)
        writer = csv.writer(target, lineterminator="\n")
        while True:
            with own_locations(name):
                batch = table.read(size)
            if not batch.rows:
                break
            if not count:
                names = table.names or [f"column_{i}" for i in range(1, len(batch.cells[0]) + 1)]
                writer.writerow(_output_header(signature, [names[i] for i in kept], wanted))
            predictions, answers = _predict_batch(predictor, batch, name, wanted)
            for row, (cells, prediction) in enumerate(zip(batch.cells, predictions, strict=True)):
                own = prediction_cells(prediction, signature.output)
                writer.writerow([*(cells[i] for i in kept), *own, *answer_cells(answers, row)])
            count += len(batch.rows)
            filled += count_filled(signature, batch.rows)
            advance()
        if not count:
            writer.writerow(_output_header(signature, [table.names[i] for i in kept], wanted))
    print_ignored([name for i, name in enumerate(table.names) if name in table.ignored and i not in kept])
    return count, filled


def _fill_warnings(signature: Signature, counts: Counter[str]) -> dict[str, Any]:
    """Print a note for each column whose missing values were filled in. Return them for --json, if there are any."""
    warnings = []
    for column in signature.inputs:
        if count := counts[column.name]:
            fill = column.shown_fill()
            problem = f"{count} missing value{'s' * (count > 1)} replaced by {fill!r}"
            warnings.append({"location": column.name, "problem": problem, "fix": "give the values if you know them"})
            print_note(f"Warning: {column.name}: {problem}")
    return {"warnings": warnings} if warnings else {}


def _output_header(signature: Signature, kept: Sequence[str], wanted: Mapping[str, Any]) -> list[str]:
    return answer_header(signature, wanted, prediction_header(signature.output, kept))


def _predict_rows(
    predictor: Predictor, rows: list[Any], wanted: Mapping[str, Any]
) -> tuple[list[Any], dict[str, list[Any]]]:
    """Return predictions, and the lists of answers beside them."""
    return predictor.answer(rows, wanted) if wanted else (predictor.predict(rows), {})


def _predict_batch(
    predictor: Predictor, batch: RowBatch, name: str, wanted: Mapping[str, Any]
) -> tuple[list[Any], dict[str, list[Any]]]:
    try:
        return _predict_rows(predictor, batch.rows, wanted) if batch.rows else ([], {})
    except InputError as e:
        raise batch.with_lines(e, name) from e


def _is_same_file(file: str, output: str) -> bool:
    with suppress(OSError):  # "-", or no such file yet
        return Path(file).samefile(output)
    return False


@contextmanager
def _progress(opener: FileOpener, file: str) -> Iterator[Callable[[], None]]:
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
        task = progress.add_task(display_name(file), total=total)
        yield lambda: progress.update(task, completed=0 if total is None else opener.position())
