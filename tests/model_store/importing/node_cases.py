"""onnx's own tests of its operators, run by the import: one case a model with one node, with inputs and outputs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from PIL import Image

from model_store.errors import ModelImportError
from model_store.importing.budget import Budget
from model_store.importing.layers import enter
from model_store.importing.onnx.graph import OnnxGraph
from model_store.importing.onnx.ml_operators import ML_OPERATORS
from model_store.importing.onnx.operators import OPERATORS
from model_store.importing.onnx.values import LogProbabilities
from model_store.nn import Sequential
from model_store.schema.columns import ArrayColumn

# Operators whose result is no value of a network, or that need several computed values.
OTHER_RESULTS = {"ArgMax", "Cast", "Concat", "Shape", "Where", "ZipMap"}
FLOATS = (1, 11)


@dataclass(frozen=True)
class Case:
    """A case: the operator, and why it is not imported with the kind of the error; "" if the import agrees with it."""

    name: str
    operator: str
    refusal: str = ""
    kind: type[BaseException] | None = None


def run_case(test: Any) -> Case:
    """Import a case and compare what it computes. AssertionError if it differs."""
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    case = Case(test.name, model.graph.node[0].op_type)
    inputs, outputs = ([np.asarray(one) for one in part] for part in test.data_sets[0])
    # A vector is one row; so are numbers whose constants differ in each row, or of which each has a matrix.
    is_row = inputs[0].ndim < 2 or any(one.shape == inputs[0].shape for one in inputs[1:])
    if is_row or (case.operator == "MatMul" and inputs[1].ndim == inputs[0].ndim > 2):
        inputs[0], outputs[0] = inputs[0][None], outputs[0][None]
        dims = model.graph.input[0].type.tensor_type.shape.dim
        sizes = [dim.dim_value for dim in dims]
        del dims[:]
        for size in (1, *sizes):
            dims.add().dim_value = size
    del model.graph.output[1:]  # such as the mean, of a normalization
    try:
        given = [value.name for value in model.graph.input]
        for name, tensor in zip(given[1:], inputs[1:], strict=True):
            model.graph.initializer.append(numpy_helper.from_array(tensor, name))
        batch = inputs[0]
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(batch)
        graph = OnnxGraph(test.name, model, Budget.of(0))
        graph.read()
        value = graph.outputs[model.graph.output[0].name]
        is_logarithm = isinstance(value, LogProbabilities)
        layers = enter(value.value if is_logarithm else value, graph.dtype)
    except (ModelImportError, ValueError, IndexError, TypeError) as error:
        kind = type(error.__cause__ or error)
        return Case(case.name, case.operator, str(error).partition("): ")[2] or str(error), kind)
    stored = _stored(graph, batch, layers.inputs)
    network = Sequential(layers.modules)
    stored = network(stored if network.input_shape is None else stored.reshape(len(batch), -1))
    found = stored.reshape(len(batch), -1)[:, layers.index.ravel()].reshape(len(batch), *layers.shape)
    np.testing.assert_allclose(np.log(found) if is_logarithm else found, outputs[0], rtol=1e-3, atol=1e-5)
    assert found.shape == outputs[0].shape
    return case


def _stored(graph: OnnxGraph, batch: Any, inputs: Any) -> Any:
    """Return a batch as the first layer gets it."""
    rows = batch.reshape(len(batch), -1).astype(graph.dtype)
    if graph.array_index is None:
        columns = next(iter(graph.column_names.values()))
        if isinstance(inputs[0], ArrayColumn):
            return rows
        return np.column_stack([(rows[:, columns.index(one.name)] - one.offset) / one.scale for one in inputs])
    stored = np.empty_like(rows)
    stored[:, graph.array_index.ravel()] = rows
    shape = inputs[0].shape
    return stored.reshape(len(rows), *shape, *([1] if len(shape) == 2 else [])) if batch.ndim == 4 else stored


@lru_cache
def load_cases() -> tuple[Any, ...]:
    """Return onnx's cases of all operators."""
    Image._initialized = 0  # onnx makes files of all formats; tests without Pillow's plugins keep them from being found
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(load_model_tests(kind="node"))


@lru_cache
def run_cases() -> tuple[Case, ...]:
    """Run the cases of all operators that can be imported."""
    return tuple(run_case(test) for test in load_cases() if is_imported(test))


def is_imported(test: Any) -> bool:
    """Return True for a case of one node whose operator can be imported, and has numbers as its result."""
    node, *others = test.model.graph.node
    table = {"ai.onnx.ml": ML_OPERATORS, "": OPERATORS}.get(node.domain, {})
    kind = test.model.graph.input[0].type.tensor_type.elem_type if test.model.graph.input else 0
    return not others and node.op_type in table and node.op_type not in OTHER_RESULTS and kind in FLOATS
