"""The signature: a model's input columns and output, with the preprocessing fitted in training.

Training and serving encode rows with the same code, so equal rows give equal features. A signature is plain data:
`config()` returns JSON, and signature_json.py parses it back and validates it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.errors import Fault, did_you_mean
from model_store.nn import Array
from model_store.nn.arrays import ignoring_overflow, is_finite
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, FaultCollector, NumberColumn, RowLocations
from model_store.schema.columns.base import ReplacedValues, replacement_warnings
from model_store.schema.columns.scaled_numbers import compress
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.outputs import ClassificationOutput, Output, RegressionOutput
from model_store.schema.top_k import largest_columns
from model_store.utils.values import describe_value, list_names

__all__ = [
    "ArrayColumn",
    "CategoryColumn",
    "ClassificationOutput",
    "MultiLabelOutput",
    "NumberColumn",
    "Output",
    "RegressionOutput",
    "Signature",
]


@dataclass(frozen=True)
class Signature:
    """The input columns, in the order of a row, and the output."""

    inputs: tuple[Column, ...]
    output: Output

    @cached_property
    def width(self) -> int:
        """The number of encoded features of a row: the network's input size."""
        return sum(column.width for column in self.inputs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the input columns."""
        return tuple(column.name for column in self.inputs)

    @cached_property
    def _name_set(self) -> frozenset[str]:
        """The names for lookup: with `names` instead, ordering one row of 500 named columns took 1.7 ms."""
        return frozenset(self.names)

    @cached_property
    def _requires_none(self) -> bool:
        """True if every column may be missing."""
        return all(column.fill is not None for column in self.inputs)

    def restore_label_order(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """Return a training record with labels and targets in the output's order: a manifest sorts its keys."""
        output = self.output
        names = output.names if isinstance(output, RegressionOutput) else self._label_names
        for path in _PATHS_KEYED_BY_LABEL:
            training = _reorder_keys(training, path, names)
        return dict(training)

    def encode(
        self,
        instances: Sequence[Any] | Array,
        location: str = "instances",
        dtype: npt.DTypeLike = np.float32,
        warnings: list[Fault] | None = None,
    ) -> Array:
        """Encode untrusted rows as (n, width) of `dtype`: lists in column order, objects by column name, or arrays.

        InputError with every fault of every row, at locations such as `instances.2.island`. Missing values that were
        filled in, and unknown categories, are appended to `warnings`.
        """
        given: Sequence[Any] = np.atleast_1d(instances).tolist() if isinstance(instances, np.ndarray) else instances
        table = self._as_table(given)
        if table is not None:
            encoded = ignoring_overflow(self._scale, table, dtype)
            if is_finite(encoded):
                return encoded  # else an input is not, or too large: the columns report it
        faults = FaultCollector()
        if warnings is not None:
            faults.replaced = ReplacedValues()
        rows, columns = self._columns(given, location, faults)
        locations = RowLocations(location, rows)
        parsed = (
            None if values is None else column.parse(values, locations, faults)
            for column, values in zip(self.inputs, columns, strict=True)
        )
        encoded = self._encode_parsed(parsed, locations, faults, dtype)
        _add_replacement_warnings(warnings, faults, location)
        return encoded

    @cached_property
    def table_shape(self) -> tuple[int, ...] | None:
        """The shape of a row if all columns are numbers or the only column is an array, else None."""
        if self._is_number_table:
            return (len(self.inputs),)
        only = self.inputs[0] if len(self.inputs) == 1 else None
        return only.shape if only is not None and only.is_whole_row else None

    def encode_table(self, table: Array, location: str = "instances", dtype: npt.DTypeLike = np.float32) -> Array:
        """Encode finite float64 numbers (n, math.prod(table_shape)) as (n, width) of `dtype`, equal to `encode`.

        InputError if a value is outside an array's range, or overflows `dtype`.
        """
        if self._is_plain_table:
            encoded = ignoring_overflow(table.astype, dtype)
        elif self._is_number_table:
            encoded = ignoring_overflow(self._scale, table, dtype)
        else:
            faults, locations = FaultCollector(), RowLocations(location, range(len(table)))
            encoded = np.empty((len(table), self.width), dtype)
            ignoring_overflow(self._encode_array, self.inputs[0], table, locations, faults, encoded)
            faults.raise_if_any()
        if not is_finite(encoded):
            self._check_overflow(encoded, RowLocations(location, range(len(table))), FaultCollector())
        return encoded

    @staticmethod
    def _encode_array(
        column: Column, values: Array, locations: RowLocations, faults: FaultCollector, encoded: Array
    ) -> None:
        """Encode the arrays of a column into `encoded` (n, width), some rows at a time: each block is float64."""
        count = max(1, _ENCODED_VALUES // max(1, column.width))
        for start in range(0, len(values), count):
            rows = slice(start, start + count)
            encoded[rows] = column.encode(values[rows], locations.part(rows), faults)

    def _scale(self, table: Array, dtype: npt.DTypeLike) -> Array:
        """Return the features of a table of numbers; infinite ones if they overflow."""
        offset, scale, compressed, widths = self._number_scaling
        if len(compressed):
            table = table.copy()
            table[:, compressed] = compress(table[:, compressed], widths)
        if not self._is_unscaled:
            table = (table - offset) / scale
        encoded = table.astype(dtype)
        if self.width > len(self.inputs):  # no value is missing: the indicators are 0
            scaled, encoded = encoded, np.zeros((len(table), self.width), dtype)
            encoded[:, self._first_features] = scaled
        return encoded

    def encode_columns(
        self,
        columns: Mapping[str, Array],
        dtype: npt.DTypeLike = np.float32,
        location: str = "rows",
        warnings: list[Fault] | None = None,
    ) -> Array:
        """Encode parsed columns as (n, width) of `dtype`: float64 with NaN for missing, text or None, arrays.

        A column that no row has may be left out. InputError if a value is missing or unknown and its column does not
        accept that. `warnings` is as in `encode`.
        """
        faults = FaultCollector()
        if warnings is not None:
            faults.replaced = ReplacedValues()
        locations = RowLocations(location, range(len(next(iter(columns.values())))))
        encoded = self._encode_parsed((columns.get(name) for name in self.names), locations, faults, dtype)
        _add_replacement_warnings(warnings, faults, location)
        return encoded

    def decode(self, outputs: Array, top_k: int | None = None) -> list[Any]:
        """Return raw outputs (n, outputs) as predictions for JSON, exact to the bit.

        A classifier predicts `{"label": ..., "probabilities": {label: p}}`, one of several labels `{"labels": [...],
        "probabilities": {label: p}}`; a regression a number, or `{name: number}` for several targets. InputError if an
        output is not finite. For `top_k` see `predictions`.
        """
        return self.predictions(self.decode_arrays(outputs), top_k)

    def predictions(self, found: Mapping[str, Array], top_k: int | None = None) -> list[Any]:
        """Return the arrays of `decode_arrays`, or the same rows of each, as predictions for JSON.

        With `top_k`, those of a classifier have the `top_k` most probable labels only, the most probable first; equally
        probable ones in the output's order.
        """
        if isinstance(self.output, MultiLabelOutput):
            return self.output.predictions(found, top_k)
        if isinstance(self.output, ClassificationOutput):
            names = self._label_names
            if top_k is not None:
                columns = largest_columns(found["probabilities"], top_k)
                values = np.take_along_axis(found["probabilities"], columns, axis=1)
                ranked = zip(found["label"].tolist(), columns.tolist(), values.tolist(), strict=True)
                return [
                    {"label": label, "probabilities": {names[i]: value for i, value in zip(places, row, strict=True)}}
                    for label, places, row in ranked
                ]
            return [
                {"label": label, "probabilities": dict(zip(names, row, strict=True))}
                for label, row in zip(found["label"].tolist(), found["probabilities"].tolist(), strict=True)
            ]
        targets = self.output.names
        values = found["values"]
        if len(targets) == 1:
            return values.ravel().tolist()
        return [dict(zip(targets, row, strict=True)) for row in values.tolist()]

    def decode_arrays(self, outputs: Array) -> dict[str, Array]:
        """Return predictions as arrays: `label` (n,) and `probabilities` (n, labels), or `values` (n, targets).

        See `MultiLabelOutput.decode` for rows with several labels.
        """
        if isinstance(self.output, MultiLabelOutput):
            self._check_finite(outputs)
            return self.output.decode(outputs)
        if isinstance(self.output, ClassificationOutput):
            self._check_finite(outputs)
            labels = self._labels[self.output.predicted(outputs)]
            if outputs.shape[1] == 1:
                outputs = np.concatenate([1 - outputs, outputs], axis=1)
            return {"label": labels, "probabilities": outputs}
        scale, offset = self._output_scaling
        values = outputs.astype(np.float64)
        if outputs.dtype == np.float32 and self._outputs_fit:
            values = (values if self._is_output_unscaled else values * scale) + offset
        else:
            with np.errstate(over="ignore"):  # takes as long as the rest of this function
                values = values * scale + offset
        if self.output.transform is not None:
            values = self.output.transform.invert(values)
        self._check_finite(values)
        return {"values": values}

    def config(self) -> dict[str, Any]:
        """Return the signature as JSON data."""
        return {"inputs": [_to_json(column) for column in self.inputs], "output": _to_json(self.output)}

    def _as_table(self, instances: Sequence[Any]) -> Array | None:
        """Return all rows as one array if all columns are numbers and each row has numbers of all, else None."""
        kinds = set(map(type, instances)) if self._is_number_table else None
        if kinds == {dict} and set(map(len, instances)) == {len(self.inputs)} and len(self.inputs) > 1:
            try:
                instances = list(map(itemgetter(*self.names), instances))
            except KeyError:
                return None
        elif kinds != {list}:
            return None
        if not set(map(type, chain.from_iterable(instances))) <= {int, float}:
            return None
        count, width = len(instances), len(self.inputs)
        if set(map(len, instances)) != {width}:
            return None
        try:
            return np.fromiter(chain.from_iterable(instances), np.float64, count * width).reshape(count, width)
        except OverflowError:  # an integer beyond float64
            return None

    @cached_property
    def _is_number_table(self) -> bool:
        return all(column.in_number_table for column in self.inputs)

    @cached_property
    def _number_scaling(self) -> tuple[Array, Array, Array, Array]:
        """Offsets and scales of the columns, all numbers; those with a linear width, and these widths."""
        offsets, scales = ([getattr(column, key) for column in self.inputs] for key in ("offset", "scale"))
        widths = {i: column.linear_width for i, column in enumerate(self.inputs) if column.linear_width is not None}
        rows = np.array([offsets, scales])[:, None]  # NumPy adds arrays of one shape faster: those of one row
        return rows[0], rows[1], np.array(list(widths), np.intp), np.array(list(widths.values()))

    @cached_property
    def _is_unscaled(self) -> bool:
        offset, scale = self._number_scaling[:2]
        return bool((offset == 0).all() and (scale == 1).all())

    @cached_property
    def _is_plain_table(self) -> bool:
        """True if the features of a table of numbers are these numbers."""
        unscaled = self._is_number_table and self._is_unscaled and not len(self._number_scaling[2])
        return unscaled and self.width == len(self.inputs)

    @cached_property
    def _first_features(self) -> list[int]:
        """The first feature of each column."""
        ends = accumulate(column.width for column in self.inputs)
        return [end - column.width for column, end in zip(self.inputs, ends, strict=True)]

    @cached_property
    def _labels(self) -> Array:
        return np.array(() if isinstance(self.output, RegressionOutput) else self.output.labels, object)

    @cached_property
    def _label_names(self) -> list[str]:
        return [str(label) for label in self._labels]

    @cached_property
    def _output_scaling(self) -> tuple[Array, Array]:
        """Scale and offset of each target."""
        output = self.output
        if isinstance(output, RegressionOutput):
            if len(output.names) > 1:
                return np.array(output.scale), np.array(output.offset)
            return np.array(output.scale[0]), np.array(output.offset[0])  # NumPy adds a number faster
        return np.ones(0), np.ones(0)

    @cached_property
    def _is_output_unscaled(self) -> bool:
        return bool((self._output_scaling[0] == 1).all())

    @cached_property
    def _outputs_fit(self) -> bool:
        """True if no float32 output overflows when it is scaled."""
        return all(bool((np.abs(numbers) < 1e250).all()) for numbers in self._output_scaling)

    def _columns(
        self, instances: Sequence[Any], location: str, faults: FaultCollector
    ) -> tuple[Sequence[int], Sequence[list[Any] | None]]:
        """Return the numbers of the well-formed rows, and their values by column; None for a column that none has."""
        only = self.inputs[0] if len(self.inputs) == 1 else None
        if only is not None and only.is_whole_row:
            return range(len(instances)), [
                [row[only.name] if isinstance(row, dict) and row.keys() == {only.name} else row for row in instances]
            ]
        width = len(self.inputs)
        if set(map(type, instances)) <= {list} and set(map(len, instances)) <= {width}:
            return range(len(instances)), [list(column) for column in zip(*instances, strict=True)] or [[]] * width
        if set(map(type, instances)) == {dict} and all(instances):
            named = set().union(*instances)
            if not named <= self._name_set:
                for i, row in enumerate(instances):
                    self._add_unknown(row, f"{location}.{i}", faults)
            columns = [[row.get(name) for row in instances] if name in named else None for name in self.names]
            return range(len(instances)), columns
        rows: list[int] = []
        table: list[list[Any]] = []
        for i, row in enumerate(instances):
            ordered = self._in_column_order(row, f"{location}.{i}", faults)
            if ordered is not None:
                rows.append(i)
                table.append(ordered)
        return rows, [list(column) for column in zip(*table, strict=True)] or [[] for _ in self.inputs]

    def _in_column_order(self, row: Any, location: str, faults: FaultCollector) -> list[Any] | None:
        """Return one row in column order; add a fault and return None if it is not well-formed."""
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
        if not row and self._requires_none:
            fix = f"send an object with some of {list_names(self.names)}"
            faults.add(location, "expected the value of at least one column, found an empty object", fix)
            return None
        self._add_unknown(row, location, faults)
        return [row.get(name) for name in self.names]

    def _add_unknown(self, row: Mapping[Any, Any], location: str, faults: FaultCollector) -> None:
        unknown = () if row.keys() <= self._name_set else [name for name in row if name not in self._name_set]
        for name in unknown:
            faults.add(f"{location}.{str(name)[:100]}", "unknown column", partial(self._suggest_column, name))

    def _suggest_column(self, name: object) -> str:
        return did_you_mean(name, self.names) or f"the columns are {list_names(self.names)}"

    @np.errstate(over="ignore")  # as in `encode_table`
    def _encode_parsed(
        self, columns: Iterable[Array | None], locations: RowLocations, faults: FaultCollector, dtype: npt.DTypeLike
    ) -> Array:
        """Encode the parsed values of each column, None for one that no row has, as (n, width) of `dtype`."""
        count, start = len(locations), 0
        encoded = np.empty((count, self.width), dtype)
        for column, values in zip(self.inputs, columns, strict=True):
            if values is not None and column.is_whole_row:
                self._encode_array(column, values, locations, faults, encoded)
                continue
            if values is not None:
                block = column.encode(values, locations, faults)
            elif column.fill is None:
                block = column.encode(column.missing_values(count), locations, faults)
            elif faults.total:  # a filled column adds no fault, and no features are returned
                block = np.zeros((1, column.width))
            else:  # one row stands for all: 279 bytes of gzip may leave out two million values
                column.note_filled(range(count), locations, faults)
                block = column.encode(column.missing_values(1), locations, FaultCollector())
            encoded[:, start : start + column.width] = block
            start += column.width
        faults.raise_if_any()
        return self._check_overflow(encoded, locations, faults)

    def _check_overflow(self, encoded: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return the features. InputError if one is too large for its type."""
        finite = np.isfinite(encoded)
        if not finite.all():
            ends = np.cumsum([column.width for column in self.inputs])
            problem, fix = f"expected a number that fits {encoded.dtype}", "send a smaller number"
            for i in np.flatnonzero(~finite.all(axis=1)):
                for start in range(0, self.width, _OVERFLOW_FEATURES):
                    for j in start + np.flatnonzero(~finite[i, start : start + _OVERFLOW_FEATURES]):
                        name = self.inputs[int(np.searchsorted(ends, j, side="right"))].name
                        faults.add(f"{locations[i]}.{name}", problem, fix)
            faults.raise_if_any()
        return encoded

    @staticmethod
    def _check_finite(outputs: Array) -> None:
        if not is_finite(outputs):
            finite = np.isfinite(outputs)
            faults = FaultCollector()
            for i in np.flatnonzero(~finite.all(axis=1)):
                faults.add(
                    f"instances.{i}", "the prediction is not finite", "send values in the range of the training data"
                )
            faults.raise_if_any()


def _add_replacement_warnings(warnings: list[Fault] | None, faults: FaultCollector, location: str) -> None:
    if warnings is not None and faults.replaced is not None and faults.replaced.total:
        warnings += replacement_warnings(faults.replaced, location)


_ENCODED_VALUES = 2**18  # of arrays, as float64 at a time
_OVERFLOW_FEATURES = 1 << 16  # of a row, searched at a time for the first faults
_PATHS_KEYED_BY_LABEL = (
    ("metrics", "classes"),
    ("metrics", "labels"),
    ("metrics", "targets"),
    ("baseline", "targets"),
    ("diagnostics", "residuals", "targets"),
)


def _reorder_keys(found: Any, path: Sequence[str], names: Sequence[str]) -> Any:
    """Return `found`, untrusted data, with the keys of the object at `path` reordered: `names` first."""
    if not isinstance(found, Mapping):
        return found
    if not path:
        return {key: found[key] for key in dict.fromkeys((*names, *found)) if key in found}
    return {key: _reorder_keys(value, path[1:], names) if key == path[0] else value for key, value in found.items()}


def _to_json(part: Any) -> dict[str, Any]:
    """Return a dataclass as JSON data, `kind` first; tuples become lists.

    Attributes of newer versions are left out as long as they have their default: older versions can read the column.
    """
    plain: dict[str, Any] = {"kind": part.kind}
    for name, field in part.__dataclass_fields__.items():
        value = getattr(part, name)
        if name in getattr(part, "newer_attributes", ()) and value == field.default:
            continue
        if hasattr(value, "as_dict"):
            value = value.as_dict()
        plain[name] = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    return plain
