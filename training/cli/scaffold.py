"""`train init`: write a commented job file for a table, with inferred column kinds and a network of suitable size.

image_scaffold.py has that of a folder of images.
"""

from __future__ import annotations

import csv
import math
import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model_store.errors import Fault, did_you_mean
from model_store.schema.columns import TABLE_KINDS
from model_store.schema.columns.date_text import infer_date_format
from model_store.tables.formats import TABLE_FORMATS, is_table
from model_store.tables.options import TableOptions
from model_store.utils.atomic_write import atomic_write
from model_store.utils.number_format import format_number
from model_store.utils.printable import printable
from model_store.utils.values import is_name, list_names, parse_finite_number, parse_number
from training.cli.image_scaffold import render_image_job
from training.cli.job_template import (
    AMOUNTS_HINT,
    CALIBRATION_LINE,
    DECISION_LINES,
    NO_COLUMNS,
    SEPARATOR_LINE,
    STRATIFY_LINE,
    TEMPLATE,
    THRESHOLD_LINE,
    TRANSFORM_LINE,
)
from training.config.recipe import recommend
from training.config.settings import DataSection
from training.data import type_inference
from training.data.fitting.kinds import COLUMN_KINDS, are_often_missing, infer_kind
from training.data.fitting.target_transform import find_skewed
from training.data.multi_label import are_flags, infer_separator, split_labels
from training.data.readers import Table
from training.data.splitting import part_sizes
from training.data.streaming import table_reader
from training.data.streaming.dataset import is_streamed
from training.data.streaming.source import TYPE_INFERENCE_ROWS
from training.data.table_dataset import UNSUPPORTED, drop_rows_without_target
from training.data.tables import read_detected
from training.errors import DataError, JobError
from training.pipeline.job import from_dict, prepare

_DETECTED = TableOptions()
_MAX_NAMED_TARGETS = 5
_MIN_CALIBRATED_ROWS = 200  # of which a tenth promises levels up to 0.95
_UNSUPPORTED = f"{UNSUPPORTED}; to use it, write a column for each of its values into the table"
_ADD_IT = "; to use it, add it to columns"
_CORRECT_THEM = "to use it, correct or empty them, and add it to columns"


@dataclass(frozen=True)
class JobDraft:
    """The text of a job file, and what a user should know of it.

    `summary` says what it trains, `left_out` why columns are no inputs, and `error` why it would not train, if so.
    """

    text: str
    summary: str
    left_out: Mapping[str, str]
    error: DataError | JobError | None = None


def draft_job(
    path: Path,
    target: str | None,
    job: Path,
    name: str | None = None,
    options: TableOptions = _DETECTED,
    *,
    fast: bool = False,
) -> JobDraft:
    """Return a job file at `job` for the table at `path`. JobError or DataError if there is no such table or target.

    options: how the table is written; the job file states them.
    fast: asks for the small network.
    """
    if not job.parent.is_dir():  # the job file names the table by its path from there
        raise JobError(
            str(job), [Fault("", f"no such directory: {job.parent}", "create it, or choose another with -o")]
        )
    model = _check_name(name or _model_name(job.stem))
    if path.is_dir():
        folder = f"{os.path.relpath(path, job.parent)}/"
        text, summary = render_image_job(path, *map(_toml_string, (model, folder, target or "label")))
        return _with_error(JobDraft(text, summary, {}), _training_error(text, job.parent, path.name))
    if not is_table(path.name) and path.is_file():
        kind = path.suffix.lower()
        fix = "start from examples/digits.toml" if kind == ".npz" else "docs/jobs.md shows a complete job file"
        raise DataError(path.name, [Fault("", f"expected a {TABLE_FORMATS} file; found {kind or 'no extension'}", fix)])
    streamed = is_streamed(DataSection(path=path.name), path.parent)
    table, keys = read_detected(path, TYPE_INFERENCE_ROWS if streamed else None, options)
    if target is None:
        fix = f"add --target COLUMN, one of {list_names(list(table.columns))}"
        raise JobError(path.name, [Fault("", "expected the column to predict", fix)])
    targets = _split_target(target, table)
    draft = _render(table, targets, model, os.path.relpath(path, job.parent), keys, streamed=streamed, fast=fast)
    if len(table) == 1:
        return _with_error(draft, DataError(table.name, [Fault("", "the table has only one row of data", "add rows")]))
    return _with_error(draft, _training_error(draft.text, job.parent, table.name, streamed=streamed))


def _check_name(name: str) -> str:
    """Return the name of a model. JobError if it is none."""
    if not is_name(name):
        raise JobError("--name", [Fault("", f"expected letters, digits, '.', '_' and '-'; found {name!r}")])
    return name


def _with_error(draft: JobDraft, error: DataError | JobError | None) -> JobDraft:
    """Return a draft with the error that training it would end with, also in a comment of its text."""
    if error is None:
        return draft
    faults = "".join(f"#   {line.strip()}\n" for line in describe_faults(error))
    return replace(draft, text=f"# To correct before training:\n{faults}{draft.text}", error=error)


def _split_target(target: str, table: Table) -> list[str]:
    """Return the names of the target columns in `--target a,b`; a name that holds a comma may be quoted as in CSV."""
    target = target if target in table.columns else target.strip()  # the reader strips the cells of the header too
    if target in table.columns:
        return [target]
    names = [name.strip() for name in next(csv.reader([target]), [])] or [target]
    faults = []
    for name in names:
        if name not in table.columns:
            fix = did_you_mean(name, table.columns) or f"the columns are {list_names(list(table.columns))}"
            faults.append(Fault("--target", f"there is no column '{name}'", fix))
    if faults:
        raise DataError(table.name, faults)
    return list(dict.fromkeys(names))


def describe_faults(error: DataError | JobError) -> list[str]:
    """Return the faults of an error, each as a line without the name of its source."""
    lines = str(error).removeprefix(f"{error.source}: ").splitlines()
    return lines if error.total == 1 else lines[1:]


def _training_error(text: str, folder: Path, name: str, *, streamed: bool = False) -> DataError | JobError | None:
    """Return the error that training the job file would end with, found now and not at the first training."""
    try:
        written = from_dict(tomllib.loads(text), folder, name)
        if streamed:
            table_reader.open_source(written.settings.data, folder)  # to read all rows would take minutes
        else:
            prepare(written)
    except (DataError, JobError) as error:
        return error
    return None


def write_job_file(path: Path, text: str, *, force: bool = False) -> None:
    """Write the job file atomically. JobError if it exists and `force` is not set."""
    if path.suffix != ".toml":
        raise JobError(str(path), [Fault("", "expected a file name that ends in .toml")])
    if path.exists() and not force:
        raise JobError(str(path), [Fault("", "already exists", "overwrite it with --force, or choose another with -o")])
    try:
        with atomic_write(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        fault = Fault("", f"cannot be written: {error.strerror}", "choose another file with -o")
        raise JobError(str(path), [fault]) from error


def _render(
    table: Table, targets: list[str], model: str, path: str, options: Mapping[str, str], *, streamed: bool, fast: bool
) -> JobDraft:
    """Return the job file for a table; if `streamed`, the table holds only the first rows.

    A streamed table gets the small network: it has so many rows that few epochs train it.
    """
    task, separator = _infer_task(table, targets)
    with suppress(DataError):  # of a target that is missing in every row
        table = drop_rows_without_target(table, targets, DataSection(label_separator=separator), notes=[])
    cells = [cell for cell in table.columns[targets[0]] if cell is not None]
    inputs = {name: values for name, values in table.columns.items() if name not in targets}
    exclusions = {name: _exclusion(table, name) for name in inputs}
    group = next((name for name, cells in inputs.items() if type_inference.identifies_groups(name, cells)), "")
    if group and not exclusions[group]:
        exclusions[group] = f"identifies groups of rows, see [split]{_ADD_IT}"
    if all(exclusions.values()):  # rather identifiers than no column
        exclusions |= {name: "" for name, reason in exclusions.items() if reason.endswith(_ADD_IT)}
    used = [name for name, reason in exclusions.items() if not reason]
    test, validation = (0.2, 0.1) if streamed or not cells else _split_shares(cells, task)
    row_count = len(cells) if separator is None else len(table)  # an empty text has no label
    rows = f"{'the first ' if streamed else ''}{row_count} row{'s' * (row_count != 1)}"
    sections = recommend(max(1, row_count), max(1, len(used)), task, fast=fast or streamed)
    rate = tomllib.loads(sections)["train"]["learning_rate"]
    text = TEMPLATE.format(
        model=_toml_string(model),
        description=_toml_string(f"{list_names(targets, _MAX_NAMED_TARGETS)} from {Path(path).name}"),
        path=_toml_string(path),
        format="".join(f"{key} = {_toml_string(value)}\n" for key, value in options.items())
        + "".join(f"# {printable(note)}\n" for note in table.notes),
        target=_toml_string(targets[0]) if len(targets) == 1 else f"[{', '.join(map(_toml_string, targets))}]",
        labels="" if separator is None else SEPARATOR_LINE.format(separator=_toml_string(separator)),
        task=task,
        found=_describe_target(table, targets, task, separator, rows),
        threshold=THRESHOLD_LINE if task == "multi_label" else "",
        group=_toml_string(group or "patient"),
        kind_names=" or ".join(f'"{name}"' for name in TABLE_KINDS),
        kinds="\n".join(
            [
                *(
                    f"#   {printable(name)}: {_describe_column(values, exclusions[name])}"
                    for name, values in inputs.items()
                ),
                *(f"#   {printable(name)}: left out: {_UNSUPPORTED}" for name in table.unsupported),
            ]
        ),
        columns=f"columns = [{', '.join(map(_toml_string, used))}]" if used else NO_COLUMNS,
        transform=_suggest_transform(cells) if task == "regression" and len(targets) == 1 else "",
        test=test,
        stratify=STRATIFY_LINE if task == "regression" and test and not streamed else "",
        validation=validation,
        calibration=_suggest_calibration(task, row_count, streamed=streamed),
        answers=_suggest_threshold(cells, row_count) if task == "classification" and not streamed else "",
        sections=sections,
        lowest_rate=f"{rate / 5:g}",
        highest_rate=f"{rate * 5:g}",
    )
    count = len(used or inputs)
    columns = f"{count} column{'s' * (count != 1)}"
    title = "several labels" if task == "multi_label" else task
    summary = f"{title} of {list_names(targets, _MAX_NAMED_TARGETS)} from {columns}, {rows}"
    left_out = {name: reason for name, reason in exclusions.items() if reason and used}
    return JobDraft(text, summary, left_out | dict.fromkeys(table.unsupported, _UNSUPPORTED))


def _infer_task(table: Table, targets: list[str]) -> tuple[str, str | None]:
    """Return the task, and what separates the labels of a text of several. Quantities may have some invalid cells."""
    if len(targets) > 1:
        return "multi_label" if are_flags([table.columns[name] for name in targets]) else "regression", None
    cells = table.columns[targets[0]]
    if (separator := infer_separator(cells)) is not None:
        return "multi_label", separator
    try:
        return type_inference.infer_task(table, targets), None
    except DataError:  # which training reports
        return "regression", None


def _describe_target(table: Table, targets: list[str], task: str, separator: str | None, rows: str) -> str:
    """Return what the job file says of the cells of the target."""
    if len(targets) > 1:
        words = "says whether a row has its label" if task == "multi_label" else "has numbers"
        return f"{len(targets)} columns, each of which {words}, in {rows}"
    cells = [cell for cell in table.columns[targets[0]] if cell is not None]
    if separator is not None:
        labels = {label for cell in cells for label in split_labels(cell, separator)}
        return f"{len(labels)} labels in {rows}"
    distinct = len(set(cells))
    amounts = task == "classification" and distinct > 2 and type_inference.are_numbers(cells)
    return f"{distinct} distinct value{'s' * (distinct != 1)} in {rows}{AMOUNTS_HINT if amounts else ''}"


def _suggest_calibration(task: str, rows: int, *, streamed: bool) -> str:
    """Return a line that suggests calibration rows, "" if there can be none, or too few for a level of 0.9."""
    if streamed or task == "multi_label" or rows < _MIN_CALIBRATED_ROWS:
        return ""
    return CALIBRATION_LINE.format(what="intervals" if task == "regression" else "sets of labels")


def _suggest_threshold(cells: Sequence[str], rows: int) -> str:
    """Return lines that suggest how to choose the threshold of two classes, "" for more."""
    return DECISION_LINES if len(set(cells)) == 2 and rows >= _MIN_CALIBRATED_ROWS else ""


def _suggest_transform(cells: Sequence[str]) -> str:
    """Return a line that suggests to learn the logarithm of a skewed target, "" if it is not skewed."""
    written = COLUMN_KINDS["number"].find_format(cells)
    parsed = [(parse_number if written is None else written.parse)(cell) for cell in cells]
    values = np.array([value for value in parsed if value is not None and math.isfinite(value)])
    found = find_skewed(values) if len(values) else None
    if found is None:
        return ""
    return TRANSFORM_LINE.format(before=found[0], after=round(found[1], 1) or 0.0)


def _toml_string(text: str) -> str:
    """Return the text as a TOML basic string, without characters that are not visible."""
    return '"' + "".join(_toml_escape(c) if c in '"\\' or printable(c) != c else c for c in text) + '"'


def _toml_escape(character: str) -> str:
    if character == "\t":
        return "\\t"
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _exclusion(table: Table, name: str) -> str:
    """Return why a column is left out, "" if it is not."""
    cells = table.columns[name]
    present = [cell for cell in cells if cell is not None]
    often_missing = bool(present) and are_often_missing(len(cells) - len(present), len(cells))
    if len(set(present)) < 2 and not often_missing:
        return "constant" if present else "empty"
    if type_inference.are_numbers(cells):
        values = [float(cell) for cell in present]
        if infinite := sum(map(math.isinf, values)):
            row = next(i for i, cell in enumerate(cells) if cell is not None and math.isinf(float(cell)))
            where = f"{cells[row]!r} in {table.row_unit} {table.lines[row]}"
            return f"{infinite} infinite cell{'s' * (infinite > 1)}, such as {where}; {_CORRECT_THEM}"
        if type_inference.is_constant_range(min(values), max(values)) and not often_missing:
            return "constant up to rounding"
    if reason := type_inference.identifier_reason(name, cells):
        return f"{reason}{_ADD_IT}"
    kind = infer_kind(cells)
    if kind == "category" and type_inference.looks_like_identifier(cells):
        distinct = len(set(present))
        return f"{distinct} distinct values, too many for a category{_category_hint(present)}"
    return ""


def _describe_column(cells: Sequence[str | None], exclusion: str) -> str:
    if exclusion:
        return f"left out: {exclusion}"
    present = [cell for cell in cells if cell is not None]
    kind = infer_kind(cells)
    written = COLUMN_KINDS[kind].find_format(cells)
    description = f"{kind}, {len(set(present))} distinct values" + (
        _category_hint(present) if kind in ("category", "text") else ""
    )
    parse = parse_number if written is None else written.parse
    known = present if kind not in ("number", "date") else [c for c in present if not math.isnan(parse(c) or 0.0)]
    if kind == "number":
        values = [parse(cell) or 0.0 for cell in known]
        description = f"number, {format_number(min(values), 6)} to {format_number(max(values), 6)}"
    if written is not None and (example := next((c for c in known if parse_finite_number(c) is None), None)):
        description += f", written like {printable(example[:40])!r}"
    missing = len(cells) - len(known)
    return description + (f", {missing} missing" if missing else "")


def _category_hint(present: Sequence[str]) -> str:
    """Return why categories could be numbers or dates."""
    if type_inference.are_codes(present):
        return "; a code, as it has leading zeros"
    invalid = [cell for cell in present if parse_finite_number(cell) is None]
    if 10 * len(invalid) <= len(present):
        cells = "1 cell" if len(invalid) == 1 else f"{len(invalid)} cells"
        example = repr(invalid[0][:40])
        return f"; numbers except for {cells}, such as {example}: empty these cells if they mean missing"
    dates = [cell for cell in present if any(map(str.isdigit, cell)) and infer_date_format([cell]) is not None]
    if 0 < 10 * (len(present) - len(dates)) <= len(present) and infer_date_format(set(dates)) is not None:
        example = next(cell for cell in present if infer_date_format([cell]) is None)
        return f"; dates except for some cells, such as {example[:40]!r}: empty these cells if they mean missing"
    few = len(set(present)) <= type_inference.FEW_CATEGORIES  # such as 1st, 2nd and 3rd class
    hint = "" if few else type_inference.suggest_conversion(present)
    return f"; {hint}" if hint else ""


def _split_shares(cells: Sequence[str], task: str) -> tuple[float, float]:
    """Return the shares of test and validation rows: 0 if the table is too small to hold rows out."""
    counts = np.array(list(Counter(cells).values()) if task == "classification" else [len(cells)])
    sizes = part_sizes(counts, 0.2, 0.1, np.random.default_rng(0))
    return (0.2, 0.1) if len(cells) >= 20 and all(part.sum() for part in sizes) else (0.0, 0.0)


def _model_name(stem: str) -> str:
    """Return the name of a file as the name of a model."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100] or "model"
