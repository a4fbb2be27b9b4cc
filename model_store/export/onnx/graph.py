"""A graph of ONNX operators while it is built: nodes and constants, with a name of its own for each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_store.nn import Array

OPSET = 17  # the newest operator in it is of 2021, so older runtimes read the file, too
ML_OPSET = 3
IR_VERSION = 8
ML_DOMAIN = "ai.onnx.ml"

Value = str | Array | np.generic  # the name of a node's output, or a constant


class Graph:
    """Nodes that are appended in the order in which they are computed.

    `op` returns the name of a node's output. Names are the `scope`, such as `/age`, and the operator: they say in a
    viewer and in a profile what a node belongs to.
    """

    def __init__(self) -> None:
        self.scope = ""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()

    def unique(self, name: str) -> str:
        """Return the name, with a number if it is taken, and take it."""
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def input(self, name: str, datatype: int, shape: Sequence[int]) -> str:
        """Add an input (batch, *shape). Return its name."""
        name = self.unique(name)
        self._inputs.append(helper.make_tensor_value_info(name, datatype, ["batch", *shape]))
        return name

    def output(self, name: str, value: str, datatype: int, shape: Sequence[int]) -> None:
        """Add an output (batch, *shape) of a `name` that `unique` has reserved."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=self.unique(f"/{name}/Identity")))
        self._outputs.append(helper.make_tensor_value_info(name, datatype, ["batch", *shape]))

    def op(self, kind: str, *inputs: Value, domain: str = "", **attributes: Any) -> str:
        """Append a node; arrays and scalars are constants. Return the name of its output."""
        name = self.unique(f"{self.scope}/{kind}")
        names = [value if isinstance(value, str) else self.constant(np.asarray(value)) for value in inputs]
        self._nodes.append(helper.make_node(kind, names, [name], name=name, domain=domain, **attributes))
        return name

    def cast(self, value: str, dtype: Any) -> str:
        """Append a conversion to a type of NumPy."""
        return self.op("Cast", value, to=tensor_type(dtype))

    def cos(self, value: str, dtype: Any) -> str:
        """Append a cosine; `cos x = 1 - 2 sin² x/2` in float64, for which onnxruntime 1.23 has no Cos."""
        if np.dtype(dtype) != np.float64:
            return self.op("Cos", value)
        sine = self.op("Sin", self.op("Mul", value, np.float64(0.5)))
        return self.op("Sub", np.float64(1), self.op("Mul", self.op("Mul", sine, sine), np.float64(2)))

    def constant(self, array: Array) -> str:
        """Return the name of a constant; equal ones are stored once."""
        array = np.ascontiguousarray(array) if array.ndim else array
        content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
        key = array.dtype.str, array.shape, content
        if key not in self._constants:
            name = self.unique(f"{self.scope}/constant")
            self._initializers.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def model(
        self, name: str, metadata: dict[str, str], description: str, version: int, producer: str
    ) -> onnx.ModelProto:
        """Return the graph as a model."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
        program, _, program_version = producer.partition(" ")
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name=program,
            producer_version=program_version,
            model_version=version,
            doc_string=description,
        )
        helper.set_model_props(model, metadata)
        return model


def tensor_type(dtype: Any) -> int:
    """Return ONNX's number of a type of NumPy; texts are objects."""
    if np.dtype(dtype) == object:
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
