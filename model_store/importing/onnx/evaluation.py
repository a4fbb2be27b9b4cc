"""The answers of onnx's reference evaluator, with which an imported network is compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from model_store.errors import ModelImportError
from model_store.importing.imported_model import Answers
from model_store.importing.layers import Layers
from model_store.importing.onnx.values import NUMBERS, STRING
from model_store.nn import Array
from model_store.schema.columns import ArrayColumn, Column

if TYPE_CHECKING:
    from model_store.importing.onnx.graph import OnnxGraph


def needed_nodes(nodes: Sequence[Any], outputs: Iterable[Any]) -> set[int]:
    """Return the positions of the nodes that an output depends on."""
    producers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needed: set[int] = set()
    names = [output.name for output in outputs]
    while names:
        position = producers.get(names.pop())
        if position is not None and position not in needed:
            needed.add(position)
            names += nodes[position].input
    return needed


def evaluator_answers(graph: OnnxGraph, output: str, layers: Layers, *, is_binary: bool) -> Answers:
    """Return the answers of onnx's reference evaluator: those of the graph up to the output."""
    import onnx  # noqa: PLC0415 - an extra
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

    from model_store.importing.onnx.evaluated_pooling import AveragePool, MaxPool  # noqa: PLC0415

    pruned = onnx.ModelProto()
    pruned.CopyFrom(graph.model)
    del pruned.graph.output[:]
    pruned.graph.output.append(onnx.ValueInfoProto(name=output))
    needed = needed_nodes(pruned.graph.node, pruned.graph.output)
    nodes = [node for i, node in enumerate(graph.model.graph.node) if i in needed]
    del pruned.graph.node[:]
    pruned.graph.node.extend(nodes)

    def answers(rows: list[Any], encoded: Array) -> Array:
        try:
            return evaluated(rows, encoded)
        except Exception as error:  # operators of the evaluator raise anything
            problem = f"expected onnx's reference evaluator to answer, found an error: {str(error)[:300]}"
            raise ModelImportError(f"{graph.file}: output {output!r}: {problem}") from error

    def evaluated(rows: list[Any], encoded: Array) -> Array:
        evaluator = ReferenceEvaluator(pruned, new_ops=[_where_of_texts(), AveragePool, MaxPool])
        feeds = _feeds(graph, layers, rows, encoded)
        size = graph.batch or len(rows)
        parts = []
        for start in range(0, len(rows), size):
            part = {name: _padded(values[start : start + size], size) for name, values in feeds.items()}
            with np.errstate(all="ignore"):
                answered: Any = evaluator.run([output], part)
            parts.append(np.asarray(answered[0]).reshape(size, -1))
        found = np.concatenate(parts)[: len(rows)]
        return found[:, 1:] if is_binary else found

    return answers


def _where_of_texts() -> Any:
    """Return the operator Where for texts: that of onnx 1.22 cuts them to the length of its second input's."""
    from onnx.reference.op_run import OpRun  # noqa: PLC0415 - an extra

    class Where(OpRun):  # type: ignore[misc,unused-ignore]
        op_domain = ""

        def _run(self, condition: Array, x: Array, y: Array) -> tuple[Array]:
            return (np.where(condition, x, y),)

    return Where


def _padded(values: Array, size: int) -> Array:
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])


def _feeds(graph: OnnxGraph, layers: Layers, rows: list[Any], encoded: Array) -> dict[str, Array]:
    """Return the inputs of the graph for rows: their numbers and texts, or their encoding if it is all of them."""
    if graph.array_index is not None:
        ((name, (kind, shape)),) = graph.inputs.items()
        places = encoded[:, graph.array_index.ravel()]
        return {name: places.reshape(len(rows), *shape).astype(NUMBERS[kind])}
    positions = {column.name: i for i, column in enumerate(layers.inputs)}
    if isinstance(layers.inputs[0], ArrayColumn):
        positions = {name: i for i, name in enumerate(next(iter(graph.column_names.values())))}
    feeds: dict[str, Array] = {}
    for name, columns in graph.column_names.items():
        kind, _ = graph.inputs[name]
        table = np.empty((len(rows), len(columns)), object)
        for place, column in enumerate(columns):
            position = positions.get(column)
            if position is None:
                table[:, place] = "" if kind == STRING else 0
            elif layers.plain:
                table[:, place] = encoded[:, position]
            else:
                missing = _missing_text(layers.inputs[position]) if kind == STRING else math.nan
                table[:, place] = [_source_value(row[position], kind, missing) for row in rows]
        feeds[name] = table.astype(str) if kind == STRING else table.astype(np.float64).astype(NUMBERS[kind])
    return feeds


def _missing_text(column: Column) -> str:
    """Return how the file spells a missing text: as one of its categories, or as an empty text that it replaces."""
    return column.fill if column.fill is not None and column.fill.lower() == "nan" else ""


def _source_value(value: Any, kind: int, missing: Any) -> Any:
    if value is None:
        return missing
    if kind != STRING and isinstance(value, str):  # a category of a whole number
        return float(value) if value.lstrip("-").isdigit() else -(10.0**9)
    return value
