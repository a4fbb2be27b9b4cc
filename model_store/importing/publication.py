"""Publishing an imported model, after its answers are compared with those of its source framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model_store.artifact.golden_rows import golden_count
from model_store.artifact.model import Golden, Model
from model_store.errors import InputError, ModelImportError
from model_store.importing.imported_model import Answers, FinishedModel, ImportedModel, finish
from model_store.nn import Array
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, NumberColumn
from model_store.schema.signature import Signature

TOLERANCE = 1e-5  # absolute, of outputs above 1 relative
_COMPARED_ROWS = 256
_MAX_COMPARED_VALUES = 4_000_000
_MISSING_SHARE = 0.1
_EXACT_VALUES = 4096  # of a larger array, random numbers have few digits: the manifest with them is read several times
_STEP_BITS = 4  # they are multiples of a sixteenth of the deviation, or a little less
_OWN_ANSWERS = "this network"


@dataclass(frozen=True)
class GivenGolden:
    """Rows as callers send them, and the source framework's outputs for them (n, outputs)."""

    inputs: list[Any]
    outputs: Array


def parse_golden(value: Any) -> GivenGolden:
    """Parse `{"inputs": [row, ...], "outputs": [[number, ...], ...]}`. ModelImportError for anything else."""
    expected = 'expected {"inputs": [row, ...], "outputs": [[number, ...], ...]}'
    if not isinstance(value, dict) or value.keys() != {"inputs", "outputs"}:
        raise ModelImportError(f"golden: {expected}")
    inputs, outputs = value["inputs"], value["outputs"]
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not 0 < len(inputs) == len(outputs):
        raise ModelImportError(f"golden: {expected}, as many rows as outputs")
    try:
        found = np.array(outputs, np.float64)
    except (TypeError, ValueError) as error:
        raise ModelImportError(f"golden.outputs: expected a list of numbers for each row; {error}") from error
    return GivenGolden(inputs, found.reshape(len(inputs), -1))


def prepare(
    imported: ImportedModel,
    described: Mapping[str, Any] | None = None,
    golden: GivenGolden | None = None,
    description: str = "",
) -> Model:
    """Return the model to publish, with golden rows of the source framework's answers.

    ModelImportError if a signature does not fit, or the network's answers differ from the source's by more than
    `TOLERANCE`.
    """
    finished = finish(imported, described)
    notes = list(finished.notes)
    try:
        model = Model(finished.network, finished.signature)
    except ValueError as error:
        raise ModelImportError(f"signature: {error}") from error
    answered_by, maximum = imported.answered_by, None
    compared = _compared_rows(finished, imported.row_values)
    if golden is not None:
        rows, outputs = golden.inputs, finished.convert(golden.outputs)
        maximum = _compare(model, rows, outputs, "golden.inputs")
        answered_by = "the file of golden rows"
    else:
        kept = min(golden_count(finished.signature.width), compared)
        rows = draw_rows(finished.signature, np.random.default_rng(0), kept, imported.whole_numbers)
    if imported.answers is not None:
        others = draw_rows(finished.signature, np.random.default_rng(1), compared, imported.whole_numbers)
        answers = finished.convert(_answered(imported.answers, model, others))
        largest = _compare(model, others, answers, "rows")
        maximum = max(largest, maximum or 0.0)
        if golden is None:
            outputs = finished.convert(_answered(imported.answers, model, rows))
            _compare(model, rows, outputs, "rows")
    elif golden is None:
        outputs = _outputs(model, rows, "rows")
        answered_by = _OWN_ANSWERS
        notes.append(
            f"The answers were not compared with those of the source: {imported.source.format} does not run here. "
            "Compare them with --golden."
        )
    golden_rows = _golden(rows, np.asarray(outputs, model.network.dtype), golden_count(finished.signature.width))
    record: dict[str, Any] = {**asdict(imported.source), "golden_outputs_of": answered_by}
    if maximum is not None:
        record["largest_difference"] = maximum
    training = {"import": record, **({"notes": notes} if notes else {})}
    return Model(finished.network, finished.signature, description, training, golden_rows)


def _golden(rows: list[Any], outputs: Array, count: int) -> Golden:
    """Return the first rows with finite outputs, `count` at most."""
    finite = np.flatnonzero(np.isfinite(outputs).all(axis=1))[:count]
    if not len(finite):
        fix = "give rows that it was trained for, with --golden"
        raise ModelImportError(f"rows: expected finite outputs, found none; {fix}")
    return Golden([rows[i] for i in finite.tolist()], outputs[finite])


def _answered(answers: Answers, model: Model, rows: list[Any]) -> Array:
    found = np.asarray(answers(rows, _encode(model, rows, "rows")), np.float64)
    return found.reshape(len(rows), -1)


def _outputs(model: Model, rows: list[Any], location: str) -> Array:
    """Return the network's outputs; made-up rows may overflow."""
    with np.errstate(all="ignore"):
        return model.network(_encode(model, rows, location))


def _encode(model: Model, rows: list[Any], location: str) -> Array:
    try:
        return model.encode(rows, location)
    except InputError as error:
        raise ModelImportError(f"{location}: expected rows that fit the signature; {error}") from error


def _compare(model: Model, rows: list[Any], expected: Array, location: str) -> float:
    """Return the largest difference to the source's outputs. ModelImportError if it is above the tolerance."""
    found = _outputs(model, rows, location).astype(np.float64)
    if found.shape != expected.shape:
        raise ModelImportError(f"{location}: expected outputs of shape {expected.shape}, found {found.shape}")
    with np.errstate(invalid="ignore"):  # two infinities
        differences = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    differences[found == expected] = 0
    differences[np.isnan(differences)] = np.inf
    largest = float(differences.max())
    if not largest <= TOLERANCE:
        row, output = np.unravel_index(int(differences.argmax()), differences.shape)
        raise ModelImportError(
            f"{location}.{row}: expected {expected[row, output]:g} as output {output}, as the source has it; found "
            f"{found[row, output]:g}; the difference is {largest:.3g}, above {TOLERANCE:g}, so nothing was published"
        )
    return largest


def _compared_rows(finished: FinishedModel, row_values: int) -> int:
    by_size = _MAX_COMPARED_VALUES // max(1, finished.signature.width, row_values)
    return max(1, min(_COMPARED_ROWS, by_size, finished.network.row_cost.max_rows(10**10)))


def draw_rows(
    signature: Signature, rng: np.random.Generator, count: int, whole_numbers: frozenset[int] = frozenset()
) -> list[Any]:
    """Return rows as callers send them: numbers around the offset of their column, each category, missing values.

    whole_numbers: the positions of columns without fractions.
    """
    columns = [_draw_values(column, count, rng, i in whole_numbers) for i, column in enumerate(signature.inputs)]
    return columns[0] if signature.inputs[0].is_whole_row else [list(row) for row in zip(*columns, strict=True)]


def _draw_values(column: Column, count: int, rng: np.random.Generator, is_whole: bool) -> list[Any]:
    values: list[Any]
    if isinstance(column, NumberColumn):
        values = _rounded(column.offset + column.scale * rng.standard_normal(count), is_whole)
    elif isinstance(column, CategoryColumn):
        choices = [*column.categories, *(["another"] if column.unknown == "bucket" else [])]
        values = [choices[i] for i in rng.integers(len(choices), size=count)]
    elif isinstance(column, ArrayColumn):
        low, high = -np.inf if column.low is None else column.low, np.inf if column.high is None else column.high
        numbers = column.offset + column.scale * rng.standard_normal((count, *column.shape))
        if column.width > _EXACT_VALUES:
            step = 2.0 ** (np.floor(np.log2(column.scale)) - _STEP_BITS)
            numbers = np.rint(numbers / step) * step
        return _rounded(np.clip(numbers, low, high), is_whole)
    else:
        return column.draw_values(count, rng)
    if column.fill is not None:
        missing = rng.random(count) < _MISSING_SHARE
        values = [None if gone else value for gone, value in zip(missing, values, strict=True)]
    return values


def _rounded(numbers: Array, is_whole: bool) -> list[Any]:
    """Return numbers that float32 holds exactly, as the source gets them; whole ones if it takes no others."""
    numbers = np.rint(numbers) if is_whole else numbers
    values: list[Any] = numbers.astype(np.float32).astype(np.float64).tolist()
    return values
