"""Activations that an exporter writes as several nodes become one layer; other functions of one value are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from model_store.errors import ModelImportError
from model_store.export.base import ExportSource
from model_store.export.export import export, find_target
from model_store.importing import budget
from model_store.importing.onnx.graph import read_onnx
from model_store.importing.publication import parse_golden, prepare
from model_store.nn.layers.activations import ACTIVATIONS
from tests.model_store.export.example_models import AGE, HEIGHT, PRICE, linear, made
from tests.model_store.importing.test_onnx_import import FIXTURES, LINEAR, graph_of, saved, weights

# Nodes as "output = Operator input input", numbers are constants; h is a layer's output.
FORMS = {
    "gelu of onnx": ("ExactGELU", "a = Mul h 0.70710678; b = Erf a; c = Add b 1; d = Mul h 0.5; y = Mul d c"),
    "gelu of PyTorch": ("ExactGELU", "a = Div h 1.41421356; b = Erf a; c = Add 1 b; d = Mul c h; y = Mul d 0.5"),
    "gelu with tanh": (
        "GELU",
        "a = Pow h 3; b = Mul a 0.044715; c = Add h b; d = Mul c 0.79788456; e = Tanh d; f = Add e 1; g = Mul h f; "
        "y = Mul 0.5 g",
    ),
    "silu": ("SiLU", "a = Sigmoid h; y = Mul h a"),
    "silu as a quotient": ("SiLU", "a = Neg h; b = Exp a; c = Add b 1; y = Div h c"),
    "mish": ("Mish", "a = Softplus h; b = Tanh a; y = Mul h b"),
    "softplus with a threshold": ("Softplus", "a = Greater h 20; b = Softplus h; y = Where a h b"),
    "leaky relu": ("LeakyReLU", "a = Mul h 0.2; y = Max h a"),
    "elu": ("ELU", "a = Min h 0; b = Exp a; c = Sub b 1; d = Mul c 0.3; e = Relu h; y = Add e d"),
    "silu after others": ("SiLU", "z = Relu h; a = Sigmoid z; y = Mul z a"),
}
OTHERS = {
    "a square": "y = Mul h h",
    "a gelu of another scale": "a = Mul h 0.5; b = Erf a; c = Add b 1; y = Mul h c",
    "hard swish": "a = Add h 3; b = Relu a; y = Mul h b",
    "a circle": "a = Mul y h; y = Mul a h",
    "too few inputs": "a = Where h; y = Mul h a",
}


def graph(nodes: str) -> Any:
    """A dense layer, and these nodes after it."""
    tensors: dict[str, Any] = {"w": weights(3, 4)}
    found = [LINEAR]
    for node in nodes.split("; "):
        output, _, call = node.partition(" = ")
        operator, *inputs = call.split()
        tensors |= {name: np.float32(name) for name in inputs if name[0].isdigit()}
        found.append(helper.make_node(operator, inputs, [output]))
    return graph_of(*found, tensors=tensors, shape=(None, 3))


@pytest.mark.parametrize("form", FORMS)
def test_nodes_that_compute_an_activation_become_its_layer(form: str, tmp_path: Path) -> None:
    kind, nodes = FORMS[form]
    model = prepare(read_onnx(saved(graph(nodes), tmp_path)))
    assert [type(module).__name__ for module in model.network.modules][-1] == kind
    assert model.training["import"]["largest_difference"] <= 1e-6


@pytest.mark.parametrize("form", OTHERS)
def test_another_function_of_a_value_is_refused(form: str, tmp_path: Path) -> None:
    with pytest.raises(ModelImportError, match=r"expected a constant, found|expected an operator|before this node"):
        read_onnx(saved(graph(OTHERS[form]), tmp_path))


def test_a_value_that_others_need_stays(tmp_path: Path) -> None:
    """The sigmoid is an output, too, so its node is read."""
    model = graph(FORMS["silu"][1])
    model.graph.output.append(helper.make_tensor_value_info("a", 1, None))
    with pytest.raises(ModelImportError, match="expected one output of probabilities or values, found y, a"):
        read_onnx(saved(model, tmp_path))


def test_the_search_for_activations_has_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FREE_VALUES", 100_000)
    nodes = "; ".join(f"r{i} = Relu v{i}; v{i + 1} = Mul v{i} r{i}" for i in range(300))
    with pytest.raises(ModelImportError, match=r"activations: expected at most \d+ more values of a file of this size"):
        read_onnx(saved(graph(f"v0 = Relu h; {nodes}; y = Relu v300"), tmp_path))


@pytest.mark.parametrize("name", ["torch_activations", "torch_activations_legacy"])
def test_the_activations_of_pytorch_answer_as_pytorch(name: str) -> None:
    """`torch.onnx.export`, of both kinds and of an opset without GELU, Mish and Swish."""
    answers = np.load(FIXTURES / "torch_activations.npz")
    golden = parse_golden({"inputs": answers["inputs"].tolist(), "outputs": answers["outputs"].tolist()})
    model = prepare(read_onnx(FIXTURES / f"{name}.onnx"), golden=golden)
    kinds = [type(module).__name__ for module in model.network.modules]
    assert kinds[2:-1:2] == ["ExactGELU", "SiLU", "Mish", "Softplus", "GELU", "ELU"]
    assert model.training["import"]["largest_difference"] <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_each_activation_comes_back_from_its_export(name: str, dtype: str, tmp_path: Path) -> None:
    layers = [linear(2, 8), ACTIVATIONS[name]().config(), linear(8, 1)]
    original = made([AGE, HEIGHT], PRICE, layers, dtype)
    (content,) = export(ExportSource("example", 1, "ab" * 32, original), find_target("onnx")).values()
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    found = prepare(read_onnx(path))
    expected = [kind for kind in (type(one).__name__ for one in original.network.modules) if kind != "Identity"]
    assert [type(one).__name__ for one in found.network.modules] == expected
