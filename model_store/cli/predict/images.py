"""Predictions for files of images and folders of them: one for each file, with its name."""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_store.cli.common import open_output
from model_store.cli.predict.predictor import Predictor
from model_store.errors import Fault, InputError
from model_store.schema.columns.image_decoding import B64_KEY
from model_store.schema.columns.image_file import IMAGE_SUFFIXES, MAX_FILE_BYTES, ImageFileError, read_image_file
from model_store.schema.prediction_table import prediction_cells, prediction_header
from model_store.utils.regular_file import open_regular

# A batch is one request to a service, whose limits by default are larger.
_BATCH_BYTES, _BATCH_SAMPLES, _BATCH_FILES = 1 << 20, 3 << 22, 64
_FILE_COLUMN = "file"


def find_images(files: Sequence[str]) -> list[Path] | None:
    """Return the files of images, those of folders at any depth by name; None if one of `files` is of another kind.

    Hidden files are left out. InputError for a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, files):
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if _is_image(one) and not _is_hidden(one.relative_to(path)))
            if not inside:
                problem = f"expected a folder with files {', '.join(IMAGE_SUFFIXES)}, found none"
                raise InputError([Fault(str(path), problem, "tables in a folder need --output, such as predictions/")])
            found += inside
        elif _is_image(path):
            found.append(path)
        else:
            return None
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def predict_images(predictor: Predictor, paths: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    """Yield the prediction of each file, in order. InputError names the files that cannot be decoded."""
    if not predictor.signature.inputs[0].takes_files:
        problem = f"expected a table, of which {predictor.name}/{predictor.version} takes rows; found an image"
        raise InputError([Fault(str(paths[0]), problem, "name a model of images, or a file such as rows.csv")])
    for batch in _batches(paths):
        rows = [{B64_KEY: base64.b64encode(content).decode()} for _, content in batch]
        try:
            predictions = predictor.predict(rows)
        except InputError as error:
            faults = [_with_file(fault, [path for path, _ in batch]) for fault in error.faults]
            raise InputError(faults, error.total) from error
        yield from zip((path for path, _ in batch), predictions, strict=True)


def _batches(paths: Sequence[Path]) -> Iterator[list[tuple[Path, bytes]]]:
    """Yield files with their bytes, of which each batch has a bounded number and bounded pixels."""
    batch: list[tuple[Path, bytes]] = []
    size = samples = 0
    for path in paths:
        with open_regular(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        try:
            more = read_image_file(content).samples
        except ImageFileError as error:
            raise InputError([Fault(str(path), error.problem, error.fix)]) from error
        is_full = size + len(content) > _BATCH_BYTES or samples + more > _BATCH_SAMPLES or len(batch) == _BATCH_FILES
        if batch and is_full:
            yield batch
            batch, size, samples = [], 0, 0
        batch.append((path, content))
        size, samples = size + len(content), samples + more
    yield batch


def _with_file(fault: Fault, paths: Sequence[Path]) -> Fault:
    """Return a fault of the row `instances.2` with the name of its file."""
    number = fault.location.partition(".")[2].partition(".")[0]
    is_row = number.isdecimal() and int(number) < len(paths)
    return replace(fault, location=str(paths[int(number)])) if is_row else fault


def write_image_predictions(predictor: Predictor, paths: Sequence[Path], output: str) -> int:
    """Write the predictions to a CSV file, each after the name of its file. Return their number."""
    header = prediction_header(predictor.signature.output, [_FILE_COLUMN])
    with open_output(output) as target:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(header)
        for path, prediction in predict_images(predictor, paths):
            writer.writerow([str(path), *prediction_cells(prediction, predictor.signature.output)])
    return len(paths)
