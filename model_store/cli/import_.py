"""`models import`: publish a model of another framework."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model_store.cli.common import print_json, print_note
from model_store.cli.group import command
from model_store.errors import InputError, ModelImportError, StoreError
from model_store.registry.store import open_store

if TYPE_CHECKING:
    from model_store.artifact.answers import Answers
    from model_store.artifact.model import Model

_MAX_JSON_BYTES = 64 << 20


def _read_json(path: Path) -> Any:
    with path.open("rb") as file:
        data = file.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        raise ModelImportError(f"{path}: expected {_MAX_JSON_BYTES} bytes at most, found more")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelImportError(f"{path}: expected JSON, found an error: {error}") from error


_FILE = click.Path(path_type=Path)
_EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@command("import", {ModelImportError: 3})
@click.argument("file", type=_FILE)
@click.option("--name", required=True, help="The name of the model.")
@click.option("--description", default="", help="What the model predicts, in a sentence.")
@click.option(
    "--signature",
    "signature_file",
    metavar="FILE",
    type=_FILE,
    help="JSON: names of columns, labels or targets, or a whole signature.  [default: what the file says]",
)
@click.option("--job", metavar="FILE", type=_FILE, help="The job file whose layers a file of weights has.")
@click.option("--golden", metavar="FILE", type=_FILE, help="JSON: rows, and the outputs of the source framework.")
@click.option(
    "--baseline",
    metavar="FILE",
    type=_EXISTING_FILE,
    help="Rows such as those of the training, a table or JSON; explanations compare with their mean.",
)
@click.option("--trust", is_flag=True, help="Read a pickle, which may run any code.")
def import_model(
    file: Path,
    name: str,
    description: str,
    signature_file: Path | None,
    job: Path | None,
    golden: Path | None,
    baseline: Path | None,
    trust: bool,
    store: str,
    as_json: bool,
) -> None:
    """Publish a model of another framework as the next version of NAME.

    FILE is .onnx, .keras, weights of PyTorch for the layers of --job (.safetensors or .pt), or a pipeline of
    scikit-learn (.skops, or with --trust .joblib or .pkl). Nothing is published if the answers differ from those of
    the source framework.
    """
    from model_store.importing import imported_model, publication, reading  # noqa: PLC0415 - they need more imports than others
    from model_store.report.page import render  # noqa: PLC0415

    opened = open_store(store)
    opened.check_writable(name)
    described = None if signature_file is None else _read_json(signature_file)
    imported = reading.read_model(file, job=job, shape=imported_model.described_shape(described), trust=trust)
    given = None if golden is None else publication.parse_golden(_read_json(golden))
    model = publication.prepare(imported, described, given, description)
    if baseline is not None:
        model = replace(model, answers=_mean_of_file(model, baseline))
    version = opened.publish(name, model)
    reference = f"{version.name}/{version.number}"
    try:
        opened.add_report(version, render(model, reference, version.digest))
    except StoreError as error:
        raise StoreError(f"{reference} is published, but not its report: {error}") from error
    record = model.training["import"]
    if as_json:
        about = {"name": name, "version": version.number, "digest": version.digest, "path": version.location}
        print_json(about | {"import": record, "notes": model.training.get("notes", [])})
        return
    for note in model.training.get("notes", []):
        print_note(f"Note: {note}")
    if "largest_difference" in record:
        print_note(f"The answers are those of {record['golden_outputs_of']} to {record['largest_difference']:.1e}.")
    print_note(f"Published {reference} from {file}: {version.location}")


def _mean_of_file(model: Model, file: Path) -> Answers:
    """Return the mean of the rows of a file. InputError at its lines."""
    from model_store.artifact.mean_row import mean_of_rows  # noqa: PLC0415 - they need more imports than others
    from model_store.cli.predict.row_files import read_rows  # noqa: PLC0415
    from model_store.tables.options import TableOptions  # noqa: PLC0415

    batch = read_rows(str(file), model.signature, None, TableOptions())
    try:
        return mean_of_rows(model, batch.rows, "rows")
    except InputError as error:
        raise batch.with_lines(error, file.name) from error
