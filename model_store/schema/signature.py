"""The signature: what goes into a model and what comes out, with the preprocessing that training learned.

Training and serving encode rows by this same code, so a served row meets the network exactly as a training row did.
A signature is plain data: `config()` is JSON, and signature_config.py reads it back, trusting nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model_store.errors import did_you_mean
from model_store.nn import Array
from model_store.schema.columns import ArrayColumn, CategoryColumn, FaultCollector, NumberColumn, RowLocations
from model_store.utils.values import describe_value, list_names

__all__ = ["ArrayColumn", "CategoryColumn", "ClassificationOutput", "NumberColumn", "RegressionOutput", "Signature"]


@dataclass(frozen=True)
class ClassificationOutput:
    """What a classifier answers: one of `labels`, with a probability for each.

    The network ends in one output a label, or in one alone for two labels: the probability of the second.
    """

    name: str
    labels: tuple[str | int, ...]
    kind: Literal["classes"] = "classes"


@dataclass(frozen=True)
class RegressionOutput:
    """What a regression answers: numbers, `output · scale + offset`, in the target's own units."""

    names: tuple[str, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    kind: Literal["values"] = "values"


InputColumn = NumberColumn | CategoryColumn | ArrayColumn


@dataclass(frozen=True)
class Signature:
    """Inputs in the order of a row, and the output."""

    inputs: tuple[InputColumn, ...]
    output: ClassificationOutput | RegressionOutput

    @cached_property
    def width(self) -> int:
        """Encoded features a row: the network's input size."""
        return sum(column.width for column in self.inputs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.inputs)

    @cached_property
    def _known(self) -> frozenset[str]:
        """The same, to look one up: of 500 columns, a row by their names took 1.7 ms to be put in order."""
        return frozenset(self.names)

    def ordered(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """What training recorded of each label or target, in their order: a manifest has its keys sorted."""
        output = self.output
        names = self._label_names if isinstance(output, ClassificationOutput) else output.names
        for path in _PATHS_KEYED_BY_LABEL:
            training = _reorder_keys(training, path, names)
        return dict(training)

    def encode(
        self, instances: Sequence[Any] | Array, location: str = "instances", dtype: npt.DTypeLike = np.float32
    ) -> Array:
        """Untrusted rows as (n, width) of `dtype`: lists in column order, objects by column name, or arrays.

        InputError with every fault of every row, `instances.2.island` and so on.
        """
        given: Sequence[Any] = np.atleast_1d(instances).tolist() if isinstance(instances, np.ndarray) else instances
        table = self._table(given)
        if table is not None:
            return self.encode_table(table, location, dtype)
        faults = FaultCollector()
        rows, columns = self._columns(given, location, faults)
        locations = RowLocations(location, rows)
        blocks = [
            column.encode(column.parse(values, locations, faults), locations, faults)
            for column, values in zip(self.inputs, columns, strict=True)
        ]
        return self._joined(blocks, locations, faults, dtype)

    @cached_property
    def table_shape(self) -> tuple[int, ...] | None:
        """The shape of a row whose columns are all numbers, or which is one array; None of other rows."""
        if self._scaling is not None:
            return (len(self.inputs),)
        only = self.inputs[0] if len(self.inputs) == 1 else None
        return only.shape if isinstance(only, ArrayColumn) else None

    def encode_table(self, table: Array, location: str = "instances", dtype: npt.DTypeLike = np.float32) -> Array:
        """Finite numbers (n, math.prod(table_shape)) in float64 as (n, width) of `dtype`, as `encode` would.

        InputError where they are beyond what an array may hold, or `dtype`.
        """
        faults, locations = FaultCollector(), RowLocations(location, range(len(table)))
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is named by `_checked`
            if self._scaling is not None:
                offset, scale = self._scaling
                encoded = ((table - offset) / scale).astype(dtype)
            else:
                encoded = self.inputs[0].encode(table, locations, faults).astype(dtype)
        faults.check()
        return self._checked(encoded, locations, faults)

    def encode_columns(
        self, columns: Mapping[str, Array], dtype: npt.DTypeLike = np.float32, location: str = "rows"
    ) -> Array:
        """Typed columns as (n, width) of `dtype`: float64 with NaN for missing, objects of text or None, arrays.

        InputError where a value is missing or unknown and the signature refuses it.
        """
        faults = FaultCollector()
        count = len(columns[self.names[0]])
        locations = RowLocations(location, range(count))
        blocks = [column.encode(columns[column.name], locations, faults) for column in self.inputs]
        return self._joined(blocks, locations, faults, dtype)

    def decode(self, outputs: Array) -> list[Any]:
        """Raw outputs (n, outputs) as JSON-able answers, exact to the bit.

        `{"label": ..., "probabilities": {label: p}}` of a classifier; a number, or `{name: number}` of several, of
        a regression. InputError where an output is not finite: the row lies beyond what the network can compute.
        """
        found = self.tensors(outputs)
        if isinstance(self.output, ClassificationOutput):
            names = self._label_names
            return [
                {"label": label, "probabilities": dict(zip(names, row, strict=True))}
                for label, row in zip(found["label"].tolist(), found["probabilities"].tolist(), strict=True)
            ]
        if len(found) == 1:
            return [value for values in found.values() for value in values.tolist()]
        rows = zip(*(values.tolist() for values in found.values()), strict=True)
        return [dict(zip(found, row, strict=True)) for row in rows]

    def tensors(self, outputs: Array) -> dict[str, Array]:
        """The same answers as arrays: `label` (n,) and `probabilities` (n, labels), or (n,) for each target by name."""
        self._check_finite(outputs)
        if isinstance(self.output, ClassificationOutput):
            if outputs.shape[1] == 1:
                outputs = np.concatenate([1 - outputs, outputs], axis=1)
            return {"label": self._labels[outputs.argmax(axis=1)], "probabilities": outputs}
        scale, offset = self._units
        return dict(zip(self.output.names, (outputs.astype(np.float64) * scale + offset).T, strict=True))

    def config(self) -> dict[str, Any]:
        """The signature as JSON knows it."""
        return {"inputs": [_to_json(column) for column in self.inputs], "output": _to_json(self.output)}

    def _table(self, instances: Sequence[Any]) -> Array | None:
        """The rows at one stroke, where they are lists of finite numbers and so are all columns."""
        if self._scaling is None or not instances or set(map(type, instances)) != {list}:
            return None
        if not set(map(type, chain.from_iterable(instances))) <= {int, float}:
            return None
        try:
            table = np.array(instances, np.float64)
        except (ValueError, OverflowError):  # ragged, or an integer beyond float64
            return None
        return table if table.shape[1:] == self.table_shape and np.isfinite(table).all() else None

    @cached_property
    def _scaling(self) -> tuple[Array, Array] | None:
        """Offsets and scales of columns that are all numbers."""
        numbers = [column for column in self.inputs if isinstance(column, NumberColumn)]
        if len(numbers) < len(self.inputs):
            return None
        return np.array([column.offset for column in numbers]), np.array([column.scale for column in numbers])

    @cached_property
    def _labels(self) -> Array:
        return np.array(self.output.labels if isinstance(self.output, ClassificationOutput) else (), object)

    @cached_property
    def _label_names(self) -> list[str]:
        return [str(label) for label in self._labels]

    @cached_property
    def _units(self) -> tuple[Array, Array]:
        """Scale and offset of each value."""
        values = self.output
        return (
            (np.array(values.scale), np.array(values.offset))
            if isinstance(values, RegressionOutput)
            else (np.ones(0),) * 2
        )

    def _columns(
        self, instances: Sequence[Any], location: str, faults: FaultCollector
    ) -> tuple[Sequence[int], list[list[Any]]]:
        """The instances by column, and which rows they are: those of the right form."""
        only = self.inputs[0] if len(self.inputs) == 1 else None
        if isinstance(only, ArrayColumn):
            return range(len(instances)), [
                [row[only.name] if isinstance(row, dict) and row.keys() == {only.name} else row for row in instances]
            ]
        width = len(self.inputs)
        if set(map(type, instances)) <= {list} and set(map(len, instances)) <= {width}:
            return range(len(instances)), [list(column) for column in zip(*instances, strict=True)] or [[]] * width
        rows: list[int] = []
        table: list[list[Any]] = []
        for i, row in enumerate(instances):
            ordered = self._ordered(row, f"{location}.{i}", faults)
            if ordered is not None:
                rows.append(i)
                table.append(ordered)
        return rows, [list(column) for column in zip(*table, strict=True)] or [[] for _ in self.inputs]

    def _ordered(self, row: Any, location: str, faults: FaultCollector) -> list[Any] | None:
        """One row in column order, or None after saying what is wrong with its form."""
        if isinstance(row, (list, tuple)):
            if len(row) == len(self.inputs):
                return list(row)
            expected = f"expected {len(self.inputs)} values, found {len(row)}"
            faults.add(location, expected, f"send them in this order: {list_names(self.names)}")
            return None
        if not isinstance(row, dict):
            fix = f"send a list, or an object with {list_names(self.names)}"
            faults.add(location, f"expected a row, found {describe_value(row)}", fix)
            return None
        strangers = () if row.keys() <= self._known else [name for name in row if name not in self._known]
        for name in strangers:
            faults.add(f"{location}.{str(name)[:100]}", "expected no such column", partial(self._known_columns, name))
        return [row.get(name) for name in self.names]

    def _known_columns(self, name: object) -> str:
        return did_you_mean(name, self.names) or f"the columns are {list_names(self.names)}"

    def _joined(
        self, blocks: list[Array], locations: RowLocations, faults: FaultCollector, dtype: npt.DTypeLike
    ) -> Array:
        faults.check()
        with np.errstate(over="ignore"):  # as above
            encoded = (blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)).astype(dtype)
        return np.ascontiguousarray(self._checked(encoded, locations, faults))

    def _checked(self, encoded: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """The features, all finite; InputError where one was too large for their type."""
        finite = np.isfinite(encoded)
        if not finite.all():
            by_feature = [column.name for column in self.inputs for _ in range(column.width)]
            for i, j in np.argwhere(~finite):
                faults.add(
                    f"{locations[i]}.{by_feature[j]}", f"expected a number that fits {encoded.dtype}", "send less"
                )
            faults.check()
        return encoded

    @staticmethod
    def _check_finite(outputs: Array) -> None:
        finite = np.isfinite(outputs)
        if not finite.all():
            faults = FaultCollector()
            for i in np.flatnonzero(~finite.all(axis=1)):
                faults.add(
                    f"instances.{i}", "the network's answer to it is not finite", "send values like those of training"
                )
            faults.check()


_PATHS_KEYED_BY_LABEL = (
    ("metrics", "classes"),
    ("metrics", "targets"),
    ("baseline", "targets"),
    ("diagnostics", "residuals", "targets"),
)


def _reorder_keys(found: Any, path: Sequence[str], names: Sequence[str]) -> Any:
    """The same, the object at that path with these keys first; it may be anything, for others write manifests too."""
    if not isinstance(found, Mapping):
        return found
    if not path:
        return {key: found[key] for key in dict.fromkeys((*names, *found)) if key in found}
    return {key: _reorder_keys(value, path[1:], names) if key == path[0] else value for key, value in found.items()}


def _to_json(part: Any) -> dict[str, Any]:
    """A dataclass as JSON knows it: tuples are lists, `kind` first in the telling."""
    plain: dict[str, Any] = {"kind": part.kind}
    for name in part.__dataclass_fields__:
        value = getattr(part, name)
        plain[name] = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    return plain
