"""What an export consists of: the version that is exported, and a target, the platform that runs its files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Protocol

import numpy as np

from model_store.artifact.golden_rows import golden_count, make_up_rows
from model_store.artifact.model import Golden, Model
from model_store.errors import InputError, ModelStoreError
from model_store.nn import Array, Average, Module, Sequential
from model_store.schema.columns import CategoryColumn, Column, FaultCollector, RowLocations
from model_store.schema.columns.base import MISSING_CELLS
from model_store.schema.outputs import name_values
from model_store.schema.signature import Signature

REFUSED = -1  # the code of a text for which the model gives no answer
_MAX_OPERATIONS = 2**28  # to compute the golden rows of an export, but one is always computed
_MAX_MADE_UP_VALUES = 2**20  # of a row: a file of 2.4 kB describes images of 16 million values
_MAX_ANSWER_VALUES = 100_000  # of the golden rows of an export: rows x labels, where a long label counts as several


class ExportError(ModelStoreError):
    """The model cannot be exported to the target, or the files do not give the model's answers."""


@dataclass(frozen=True)
class ExportSource:
    """A version of a model, with what its files record of where they come from. `digest` is that of the artifact."""

    name: str
    version: int
    digest: str
    model: Model

    @property
    def reference(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def stem(self) -> str:
        """The beginning of file names."""
        return f"{self.name}-{self.version}"


class Target(Protocol):
    """A platform that models are exported to. Its module imports optional packages inside functions only."""

    name: ClassVar[str]  # the value of --to
    layers: ClassVar[frozenset[str]]  # the types of layers that it carries, of `model_store.nn.LAYERS`
    columns: ClassVar[frozenset[str]]  # the kinds of columns that it carries, of `schema.columns.KINDS`

    def check_engine(self, source: ExportSource) -> None:
        """Raise ExportError, before any work, if what checks the files is missing, or takes too long for a row."""
        ...

    def files(self, source: ExportSource) -> dict[str, bytes]:
        """Return the content of each file by its name, made in memory. ExportError for what it cannot carry."""
        ...

    def answer(self, source: ExportSource, files: Mapping[str, bytes], rows: Sequence[Any]) -> Mapping[str, Array]:
        """Return the files' predictions for valid rows, as `Signature.decode_arrays` returns them: run the platform."""
        ...

    def notes(self, source: ExportSource, files: Mapping[str, bytes]) -> list[str]:
        """Return sentences for the user, such as the memory that the model takes on the platform."""
        ...


def file_stem(name: str) -> str:
    """Return a model's name as an identifier, for files that a program includes or imports."""
    stem = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return stem if stem[0].isalpha() else f"model_{stem}"


def check_carried(source: ExportSource, target: Target) -> None:
    """Raise ExportError with every layer and column that the target cannot carry, by position and type."""
    problems = [
        f"{location} ({type(layer).__name__}): {target.name} cannot carry this type of layer"
        for location, layer in named_layers(source.model.network)
        if not isinstance(layer, Average) and type(layer).__name__ not in target.layers
    ]
    if "Average" not in target.layers:
        problems += [
            f"modules.{i} (Average): {target.name} cannot carry an ensemble"
            for i, layer in enumerate(source.model.network.modules)
            if isinstance(layer, Average)
        ]
    problems += [
        f"column {column.name} ({column.kind}): {target.name} cannot carry this kind of column"
        for column in source.model.signature.inputs
        if column.kind not in target.columns
    ]
    if problems:
        raise ExportError(f"{source.reference}: {'; '.join(problems)}; docs/exports.md lists what each target carries")


def golden_rows(model: Model) -> Golden:
    """Return the golden rows that an export holds and is checked on: the first, made up from statistics if none exist.

    They are as many as training writes, fewer if their answers or their inference cost more: a file of 74 kB had 6,000
    rows, whose answers repeated labels of 12,000 characters, 216 MB.
    ExportError if the model rejects rows that are made up: its statistics do not describe its columns; or if it has
    none, and a row more than `_MAX_MADE_UP_VALUES`.
    """
    count = min(
        golden_count(model.signature.width),
        _MAX_ANSWER_VALUES // sum(name_values(model.signature.output)),
        model.network.row_cost.max_rows(_MAX_OPERATIONS),
    )
    count = max(1, count)
    if model.golden is not None:
        return Golden(model.golden.instances[:count], model.golden.outputs[:count])
    values = sum(math.prod(column.shape) for column in model.signature.inputs)
    if values > _MAX_MADE_UP_VALUES:
        problem = f"no row of {values} values is made up for a model without golden rows: {_MAX_MADE_UP_VALUES} at most"
        raise ExportError(f"{problem}; publish it with examples, from which its golden rows are taken")
    rows = make_up_rows(model.signature, np.random.default_rng(0))[:count]
    try:
        return Golden(rows, model.network(model.encode(rows)))
    except InputError as e:
        raise ExportError(f"the model has no golden rows, and rejects rows made up from its statistics: {e}") from e


def named_layers(network: Sequential, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """Yield every layer with its location, such as `modules.0.members.1.modules.2`; averages before their members."""
    for i, layer in enumerate(network.modules):
        location = f"{prefix}modules.{i}"
        yield location, layer
        if isinstance(layer, Average):
            for k, member in enumerate(layer.members):
                yield from named_layers(member, f"{location}.members.{k}.")


def parsed_columns(signature: Signature, rows: Sequence[Any]) -> list[Array]:
    """Return the values of valid rows by column, as `Column.parse` returns them.

    These are (n,) float64 with NaN for a missing number or date, (n,) texts or None, (n, width) float64 for arrays.
    """
    locations = RowLocations("rows", range(len(rows)))
    parsed = []
    for i, column in enumerate(signature.inputs):
        values = list(map(_column_value(column, i), rows))
        faults = FaultCollector()
        parsed.append(column.parse(values, locations, faults))
        faults.raise_if_any()
    return parsed


def _column_value(column: Column, position: int) -> Callable[[Any], Any]:
    """Return the function that takes the column's value from a row."""

    def value(row: Any) -> Any:
        if isinstance(row, Mapping):
            return row.get(column.name)
        return row if column.is_whole_row else row[position]

    return value


def codes_by_text(column: CategoryColumn) -> dict[str, int]:
    """Return the code of each text that is not an unknown category: the index of its feature if it is one-hot.

    These are the categories, other spellings of true and false, and the texts that mean a missing value, such as "" and
    "NA", which have the code of `fill`, or `REFUSED`. All other texts have the `unknown_code`.
    """
    codes = dict(column.code_by_text)
    missing = REFUSED if column.fill is None else codes.get(column.fill, len(column.categories))
    for word in sorted(MISSING_CELLS):
        for letters in product(*({letter.lower(), letter.upper()} for letter in word)):
            codes.setdefault("".join(letters), missing)
    return codes


def unknown_code(column: CategoryColumn) -> int:
    """Return the code of an unknown category."""
    return len(column.categories) if column.unknown == "bucket" else REFUSED
