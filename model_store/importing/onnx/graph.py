"""ONNX: a graph is read node by node; what it computes from a row becomes columns and layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import ModelImportError
from model_store.importing.budget import Budget, BudgetError, layer_cost, shape_values, value_cost
from model_store.importing.features import ARRAY_NAME, Feature, Features, NumberFeature, TextFeature
from model_store.importing.files import describe_source, read_file
from model_store.importing.imported_model import ImportedModel
from model_store.importing.layers import Layers, array_input, enter, in_stored_order
from model_store.importing.onnx.evaluation import evaluator_answers, needed_nodes
from model_store.importing.onnx.file import parse_model
from model_store.importing.onnx.fusion import DOMAIN as FUSED_DOMAIN
from model_store.importing.onnx.fusion import MAX_NODES, fuse_activations
from model_store.importing.onnx.ml_operators import ML_OPERATORS
from model_store.importing.onnx.operators import FOLDED, OPERATORS, evaluated_values, folded_values
from model_store.importing.onnx.own_export import network_of_export
from model_store.importing.onnx.values import (
    DOUBLE,
    INT32,
    INT64,
    NUMBERS,
    STRING,
    BothProbabilities,
    Complement,
    LabelledProbabilities,
    LargestIndex,
    LogProbabilities,
    Operation,
    PredictedLabel,
    Value,
    fail,
)
from model_store.nn import Activation, Array
from model_store.nn.config_fields import MAX_SAMPLE_VALUES
from model_store.schema.columns import ArrayColumn, Column
from model_store.utils.values import list_names

_MAX_NUMBER_COLUMNS = 10_000  # of an input; more are one array
MAX_ROW_VALUES = 2**24  # that onnx's reference evaluator may compute for a row, besides one for each byte of the file
_COSTLY = "A row takes too long in onnx's reference evaluator."


@dataclass
class OnnxGraph:
    """The values of a graph. `outputs` are those of its outputs, by name."""

    file: str
    model: Any
    budget: Budget
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    batch: int | None = None
    values: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    inputs: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)  # type and shape of a sample
    column_names: dict[str, list[str]] = field(default_factory=dict)  # of each input that is a table
    array_index: Array | None = None  # the places of the elements of an input that is one array
    nodes: list[Any] = field(default_factory=list)  # of the file, with activations fused
    activations: dict[str, Activation] = field(default_factory=dict)  # of the fused nodes, by their output
    row_values: int = 0  # that onnx's reference evaluator computes for a row, in all nodes

    def read(self) -> None:
        """Compute all values. ModelImportError names the first node that cannot be imported."""
        from onnx import numpy_helper  # noqa: PLC0415 - an extra

        graph = self.model.graph
        for tensor in graph.initializer:
            try:
                self.budget.spend(shape_values(tensor.dims))
                self.values[tensor.name] = numpy_helper.to_array(tensor)
            except (KeyError, ValueError, TypeError, RuntimeError) as error:
                raise ModelImportError(f"{self.file}: tensor {tensor.name!r}: expected its data; {error}") from error
        self._read_inputs()
        opsets = {one.domain: one.version for one in self.model.opset_import}
        try:
            self.nodes, self.activations = fuse_activations(graph, self.budget)
        except BudgetError as error:
            raise ModelImportError(f"{self.file}: activations: {error}") from error
        needed = needed_nodes(self.nodes, graph.output)
        kept = {output.name for output in graph.output}
        last_uses = {name: position for position in sorted(needed) for name in self.nodes[position].input}
        for position in sorted(needed):
            node = self.nodes[position]
            self._compute(position, node, opsets)
            for name in {*node.input} - kept:
                if last_uses[name] == position:
                    self.values.pop(name, None)
        for output in graph.output:
            if output.name not in self.values:
                raise ModelImportError(f"{self.file}: output {output.name!r}: expected a node that computes it")
            self.outputs[output.name] = self.values[output.name]

    def _compute(self, position: int, node: Any, opsets: Mapping[str, int]) -> None:
        from onnx import helper  # noqa: PLC0415 - an extra

        domain = "" if node.domain == "ai.onnx" else node.domain
        if node.output[0] in self.activations:
            table: Mapping[str, Callable[[Operation], Value]] = {node.op_type: self._activation}
        else:
            table = {"": OPERATORS, "ai.onnx.ml": ML_OPERATORS}.get(domain, {})
        if node.op_type not in table and node.op_type not in FOLDED:
            problem = "expected an operator that can be imported, see the list in docs/imports.md"
            raise fail(self.file, node, position, problem)
        missing = [name for name in node.input if name and name not in self.values]
        if missing:
            raise fail(self.file, node, position, f"input {missing[0]!r}: expected it before this node, found none")
        inputs = [self.values[name] if name else None for name in node.input]
        try:
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            self.budget.spend(sum(map(value_cost, inputs)))
            if domain == "" and node.op_type in FOLDED and all(isinstance(o, np.ndarray | None) for o in inputs):
                self.budget.spend(folded_values(node.op_type, attributes, inputs))
                found = _fold(node, inputs, opsets.get("", 1))
            elif node.op_type in table:
                opset = opsets.get(domain, 1)
                operation = Operation(node, inputs, attributes, self.dtype, opset, self.batch, self.budget)
                found = table[node.op_type](operation)
                self.budget.spend(value_cost(found) + layer_cost(inputs, found))
                nodes = MAX_NODES if node.domain == FUSED_DOMAIN else 1
                self.row_values += nodes * evaluated_values(node.op_type, attributes, inputs, found)
            else:
                raise ValueError("expected constants as its inputs, found computed values")
        except ModelImportError:
            raise
        except Exception as error:  # attributes of a hostile file may have any type
            raise fail(self.file, node, position, str(error) or type(error).__name__) from error
        self.values[node.output[0]] = found

    def _activation(self, op: Operation) -> Value:
        return enter(op.value(), op.dtype).then(self.activations[op.node.output[0]])

    def _read_inputs(self) -> None:
        graph = self.model.graph
        given = [value for value in graph.input if value.name not in self.values]
        if not given:
            raise ModelImportError(f"{self.file}: expected an input, found none")
        for value in given:
            self._read_input(value)
        if any(kind == DOUBLE for kind, _ in self.inputs.values()):
            self.dtype = np.dtype(np.float64)
        arrays = [name for name, (_, shape) in self.inputs.items() if len(shape) != 1 or shape[0] > _MAX_NUMBER_COLUMNS]
        if arrays and len(given) > 1:
            problem = f"expected one input that is an array, or columns (batch, n); found {', '.join(self.inputs)}"
            raise ModelImportError(f"{self.file}: {problem}")
        if arrays:
            self.values[arrays[0]] = self._array(arrays[0], self.inputs[arrays[0]][1])
            return
        by_input: dict[str, list[Feature]] = {}
        is_named = len(given) > 1 or all(shape == (1,) for _, shape in self.inputs.values())
        try:
            self.budget.spend_columns(sum(width for _, (width,) in self.inputs.values()))
        except BudgetError as error:
            raise ModelImportError(f"{self.file}: inputs: {error}") from error
        for name, (kind, (width,)) in self.inputs.items():
            prefix = ARRAY_NAME if not is_named else f"{name}_"
            columns = [name] if is_named and width == 1 else [f"{prefix}{i}" for i in range(width)]
            self.column_names[name] = columns
            make = TextFeature if kind == STRING else NumberFeature
            by_input[name] = [make(column) for column in columns]
        names = tuple(column for columns in self.column_names.values() for column in columns)
        if len(set(names)) < len(names):
            raise ModelImportError(f"{self.file}: expected inputs of different names, found {', '.join(names[:20])}")
        for name, items in by_input.items():
            self.values[name] = Features(tuple(items), names, is_named)

    def whole_numbers(self, columns: Sequence[Column]) -> frozenset[int]:
        """Return the positions of the columns whose inputs take whole numbers only."""
        whole = {name for name, (kind, _) in self.inputs.items() if kind in {INT32, INT64}}
        names = {column for name in whole for column in self.column_names.get(name, [name])}
        return frozenset(i for i, column in enumerate(columns) if column.name in names)

    def _read_input(self, value: Any) -> None:
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        location = f"{self.file}: input {value.name!r}"
        if tensor.elem_type not in {*NUMBERS, STRING}:
            raise ModelImportError(f"{location}: expected float, double, int or string, found type {tensor.elem_type}")
        if not dims or any(not size or size < 0 for size in dims[1:]):
            shape = [size or "?" for size in dims]
            fix = "export it with a fixed shape but for the batch"
            raise ModelImportError(f"{location}: expected a shape (batch, sizes...), found {shape}; {fix}")
        sample = tuple(size for size in dims[1:] if size)
        if math.prod(sample) > MAX_SAMPLE_VALUES:
            raise ModelImportError(f"{location}: expected {MAX_SAMPLE_VALUES} values a row at most, found {sample}")
        if tensor.elem_type == STRING and len(sample) != 1:
            raise ModelImportError(f"{location}: expected texts of shape (batch, n), found {dims}")
        self.batch = dims[0] or self.batch
        self.inputs[value.name] = (tensor.elem_type, sample)

    def _array(self, name: str, shape: tuple[int, ...]) -> Layers:
        """Return an input that is one array. Images come as (height, width, channels), whatever the file's order."""
        try:
            self.budget.spend_row(shape)
        except BudgetError as error:
            raise ModelImportError(f"{self.file}: input {name!r}: {error}") from error
        stored: tuple[int, ...] = (math.prod(shape),)
        index = np.arange(stored[0]).reshape(shape)
        column_shape = shape or (1,)
        if len(shape) == 3:
            turned = any(
                node.op_type == "Transpose"
                and name in node.input
                and any(list(a.ints) == [0, 3, 1, 2] for a in node.attribute)
                for node in self.model.graph.node
            )
            stored = shape if turned else (*shape[1:], shape[0])
            index = np.arange(math.prod(shape)).reshape(stored)
            index = index if turned else index.transpose(2, 0, 1)
            column_shape = stored[:2] if stored[2] == 1 else stored
        self.array_index = index
        return array_input(ArrayColumn(ARRAY_NAME, column_shape), stored, index, self.dtype)


def _fold(node: Any, inputs: list[Any], opset: int) -> Array:
    """Compute a node whose inputs are constants, with onnx's reference implementation."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - an extra

    feeds = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
    found: Any = ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)
    return np.asarray(found[0])


def read_onnx(path: Path) -> ImportedModel:
    """Return the model of an ONNX file. ModelImportError names the node that cannot be imported."""
    data = read_file(path)
    model = parse_model(path, data)
    own = network_of_export(path, model)
    graph = OnnxGraph(str(path), model if own is None else own[0], Budget.of(len(data)))
    graph.read()
    name, value, labels = _main_output(graph)
    is_binary, are_logarithms = isinstance(value, BothProbabilities), isinstance(value, LogProbabilities)
    try:
        layers = in_stored_order(_as_row(enter(value.value if is_binary or are_logarithms else value, graph.dtype)))
    except ValueError as error:
        raise ModelImportError(f"{path}: output {name!r}: {error}") from error
    is_costly = graph.row_values > MAX_ROW_VALUES + len(data)
    producer = " ".join(filter(None, [model.producer_name, model.producer_version])) or "unknown"
    return ImportedModel.of(
        describe_source("onnx", path, data, producer),
        layers,
        labels=labels,
        are_logarithms=are_logarithms,
        described=None if own is None else own[1],
        answers=None if is_costly else evaluator_answers(graph, name, layers, is_binary=is_binary),
        answered_by="onnx's reference evaluator",
        row_values=graph.row_values,
        whole_numbers=graph.whole_numbers(layers.inputs),
        notes=(_COSTLY,) if is_costly else (),
    )


def _as_row(value: Layers) -> Layers:
    """Return a value of one number, or with sizes of 1 around it, as a row."""
    if len(value.shape) != 1 and math.prod(value.shape) == max(value.shape, default=1):
        return Layers(value.inputs, value.plain, value.dtype, value.modules, value.stored, value.index.reshape(-1))
    return value


def _main_output(graph: OnnxGraph) -> tuple[str, Value, tuple[str | int, ...] | None]:
    """Return name and value of the output with numbers, and the labels that another output has."""
    labels: tuple[str | int, ...] | None = None
    found: dict[str, Value] = {}
    for name, value in graph.outputs.items():
        if isinstance(value, PredictedLabel):
            labels = value.labels
        elif isinstance(value, LabelledProbabilities):
            labels = value.labels
            inner = next(node.input[0] for node in graph.model.graph.node if name in node.output)
            found[inner] = value.value
        elif not isinstance(value, LargestIndex):
            found[name] = value
    if len(found) != 1 or isinstance(next(iter(found.values())), np.ndarray | Complement):
        names = list_names(list(graph.outputs))
        fix = "convert it with options={'zipmap': False}" if len(found) > 1 and labels else "remove the others"
        raise ModelImportError(f"{graph.file}: expected one output of probabilities or values, found {names}; {fix}")
    ((name, value),) = found.items()
    return name, value, labels
