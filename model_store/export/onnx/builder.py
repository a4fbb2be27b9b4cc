"""Build the ONNX file of a model, and check it as onnx's checker does."""

from __future__ import annotations

import numpy as np
import onnx

from model_store.export.base import ExportSource
from model_store.export.onnx.columns import add_columns
from model_store.export.onnx.graph import Graph
from model_store.export.onnx.layers import Layers
from model_store.export.onnx.outputs import add_outputs, output_names
from model_store.utils.values import list_names

_MAX_DESCRIBED = 20  # inputs


def build(source: ExportSource, metadata: dict[str, str], producer: str) -> bytes:
    """Return the file. Its graph passes onnx's full check, with strict inference of shapes."""
    model, graph = source.model, Graph()
    network, dtype = model.network, model.network.dtype
    for name in output_names(model.signature.output):
        graph.unique(name)  # a column of that name gets a number
    blocks = add_columns(graph, model.signature.inputs, dtype)
    graph.scope = "/features"
    x = graph.op("Concat", *blocks, axis=1) if len(blocks) > 1 else blocks[0]
    zero = dtype.type(0)
    finite = graph.op("Equal", graph.op("Sub", x, x), zero)  # inf - inf and NaN are not 0
    x = graph.op("Where", finite, x, zero)
    accepted = graph.cast(graph.op("ReduceMin", graph.cast(finite, np.int32), axes=[1], keepdims=1), np.bool_)
    y = Layers(graph, dtype).network(network, x, "/network")
    add_outputs(graph, model.signature.output, y, network.output_size or 1, dtype, accepted)
    made = graph.model(source.name, metadata, model.description, source.version, producer)
    onnx.checker.check_model(made, full_check=True)
    content: bytes = made.SerializeToString(deterministic=True)
    return content


def describe(content: bytes) -> list[str]:
    """Return sentences with the name, type and shape of each input and output of a file."""
    graph = onnx.load_from_string(content).graph
    inputs, outputs = ([_describe_value(value) for value in values] for values in (graph.input, graph.output))
    return [f"Inputs: {list_names(inputs, _MAX_DESCRIBED)}.", f"Outputs: {list_names(outputs, _MAX_DESCRIBED)}."]


def _describe_value(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    sizes = [size.dim_param or str(size.dim_value) for size in kind.shape.dim]
    return f"{value.name} {onnx.TensorProto.DataType.Name(kind.elem_type).lower()}[{', '.join(sizes)}]"
