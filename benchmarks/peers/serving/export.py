"""Export a published artifact to ONNX, for the layers of the serving benchmark's networks.

python export.py ARTIFACT.npz MODEL.onnx
"""

import json
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ACTIVATIONS = {"Tanh": "Tanh", "ReLU": "Relu", "Softmax": "Softmax"}


def export(artifact: str, path: str) -> None:
    with np.load(artifact) as file:
        arrays = {name: file[name] for name in file.files}
    layers = json.loads(arrays["__manifest__"].tobytes())["layers"]
    nodes, weights, last = [], [], "rows"
    for i, layer in enumerate(layers):
        name = f"modules.{i}"
        if layer["type"] == "Linear":
            parts = [f"{name}.weights", f"{name}.bias"]
            weights += [numpy_helper.from_array(arrays[part], part) for part in parts]
            nodes.append(helper.make_node("Gemm", [last, *parts], [name], transB=1))
        else:
            nodes.append(helper.make_node(ACTIVATIONS[layer["type"]], [last], [name]))
        last = name
    sizes = [layer for layer in layers if layer["type"] == "Linear"]
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", sizes[0]["input_size"]])
    answers = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", sizes[-1]["output_size"]])
    graph = helper.make_graph(nodes, "network", [rows], [answers], weights)
    # Versions that every recent onnxruntime reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    export(*sys.argv[1:])
