"""Weights of PyTorch with the layers of a job become models with the same answers."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from model_store.cli.main import main
from model_store.errors import ModelImportError
from model_store.importing.publication import GivenGolden, prepare
from model_store.importing.pytorch_weights import read_pytorch
from model_store.registry.store import open_store

FIXTURES = Path(__file__).parent / "fixtures"
MLP = "[network]\nlayers = [24, 'batch_norm', 'gelu', { dropout = 0.1 }, 16, 'layer_norm', 'leaky_relu']\n"
CONV = """[network]
layers = [
    { conv = 6, kernel = 3, padding = 1 }, "batch_norm", "relu", { pool = 2 },
    { conv = 8, kernel = 3 }, "tanh", "flatten",
]
"""


@pytest.fixture
def job(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "job.toml"
        path.write_text(text)
        return path

    return write


def stub_torch(monkeypatch: pytest.MonkeyPatch, tensors: dict[str, Any]) -> None:
    """A torch whose load returns these tensors: torch is not installed here."""

    def load(path: Path, *, map_location: str, weights_only: bool) -> Any:
        assert weights_only, "a pickle would run code"
        assert map_location == "cpu"
        wrapped = {}
        for name, array in tensors.items():
            wrapped[name] = SimpleNamespace(numpy=lambda array=array: array)
            wrapped[name].detach = lambda one=wrapped[name]: one
        return wrapped

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=load))


def test_safetensors_of_a_dense_network_answer_digits_as_pytorch(job: Any) -> None:
    answers = np.load(FIXTURES / "torch_mlp.npz")
    golden = GivenGolden(answers["inputs"].tolist(), answers["outputs"].astype(np.float64))
    imported = read_pytorch(FIXTURES / "torch_mlp.safetensors", job(MLP), None)
    described = {"labels": list(range(10)), "name": "digit", "scale": 16.0}
    with pytest.raises(ModelImportError, match=r"golden.inputs.\d+: expected"):  # these rows are scaled already
        prepare(imported, described, golden)
    rows = (answers["inputs"] * 16).tolist()
    model = prepare(imported, described, GivenGolden(rows, golden.outputs))
    assert [type(module).__name__ for module in model.network.modules] == [
        *("Linear", "BatchNorm", "GELU", "Linear", "LayerNorm", "LeakyReLU", "Linear", "Softmax")
    ]
    assert [one["label"] for one in model.predict(rows)] == answers["outputs"].argmax(axis=1).tolist()


def test_the_mean_of_a_file_of_rows_is_the_baseline_of_explanations(job: Any, tmp_path: Path) -> None:
    answers = np.load(FIXTURES / "torch_mlp.npz")["inputs"] * 16
    width = answers.shape[1]
    (tmp_path / "signature.json").write_text(json.dumps({"labels": list(range(10)), "scale": 16.0}))
    (tmp_path / "rows.csv").write_text("\n".join(",".join(map(repr, row)) for row in answers.tolist()) + "\n")
    (tmp_path / "bad.csv").write_text(",".join(["1"] * width) + "\n" + ",".join(["x"] * width) + "\n")
    store = str(tmp_path / "models")
    arguments = ["import", str(FIXTURES / "torch_mlp.safetensors"), "--name", "digit", "--job", str(job(MLP))]
    arguments += ["--signature", str(tmp_path / "signature.json"), "--store", store]
    refused = CliRunner().invoke(main, [*arguments, "--baseline", str(tmp_path / "bad.csv")])
    assert refused.exit_code == 3
    assert "bad.csv" in refused.stderr
    assert "line 2" in refused.stderr
    assert not Path(store).exists()
    done = CliRunner().invoke(main, [*arguments, "--baseline", str(tmp_path / "rows.csv")])
    assert done.exit_code == 0, done.stderr
    model = open_store(store).load("digit")[1]
    assert model.baseline is not None
    np.testing.assert_allclose(model.baseline, answers.mean(axis=0) / 16, rtol=1e-5, atol=1e-6)


def test_the_activations_of_pytorch_answer_as_pytorch(job: Any) -> None:
    answers = np.load(FIXTURES / "torch_activations.npz")
    layers = "8, 8, 'exact_gelu', 8, 'silu', 8, 'mish', 8, 'softplus', 8, 'gelu', 8, 'elu'"
    imported = read_pytorch(FIXTURES / "torch_activations.safetensors", job(f"[network]\nlayers = [{layers}]\n"), None)
    golden = GivenGolden(answers["inputs"].tolist(), answers["outputs"].astype(np.float64))
    assert prepare(imported, None, golden).training["import"]["largest_difference"] <= 1e-5


def test_a_state_dict_of_a_convolutional_network_answers_as_pytorch(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors are those of the ONNX file, which onnx's evaluator has compared; clients send height by width."""
    answers = np.load(FIXTURES / "torch_conv.npz")
    stub_torch(monkeypatch, dict(np.load(FIXTURES / "torch_conv_state.npz")))
    imported = read_pytorch(FIXTURES / "torch_conv.pt", job(CONV), [8, 8])
    golden = GivenGolden(answers["inputs"][:, 0].tolist(), answers["outputs"].astype(np.float64))
    model = prepare(imported, None, golden)
    assert model.signature.table_shape == (8, 8)
    assert model.training["import"]["largest_difference"] <= 1e-5


def test_without_torch_the_error_says_how_to_convert(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelImportError, match=r"needs torch .* or save safetensors.torch.save_file"):
        read_pytorch(FIXTURES / "torch_mlp.pt", job(MLP), None)


def test_weights_need_the_layers_of_a_job() -> None:
    with pytest.raises(ModelImportError, match="expected --job, because the file has weights without layers"):
        read_pytorch(FIXTURES / "torch_mlp.safetensors", None, None)


FAULTS = {
    "size": (
        MLP.replace("24", "25"),
        r"network.layers.0 .*expected weights of shape \(25, 64\), found 0.weight of shape",
    ),
    "missing": (MLP.replace("'layer_norm', ", ""), r"network.layers .*expected a layer for each tensor, .* 5.bias"),
    "kind": (
        MLP.replace("'batch_norm'", "'layer_norm'"),
        r"network.layers.1 .*expected weights of shape \(24\), found 1",
    ),
    "unknown": (
        MLP.replace("'gelu'", "{ parametric = 'relu' }"),
        r"network.layers.2 .*expected a layer that PyTorch has",
    ),
    "toml": ("[network", "expected TOML, found an error"),
    "layers": ("[network]\n", "network.layers: expected a list such as"),
}


@pytest.mark.parametrize(("text", "problem"), FAULTS.values(), ids=FAULTS)
def test_a_tensor_or_a_layer_that_does_not_fit_is_named(text: str, problem: str, job: Any) -> None:
    with pytest.raises(ModelImportError, match=problem):
        read_pytorch(FIXTURES / "torch_mlp.safetensors", job(text), None)


def test_images_need_a_shape(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_torch(monkeypatch, dict(np.load(FIXTURES / "torch_conv_state.npz")))
    with pytest.raises(ModelImportError, match=r"expected the shape of an image, found none; write \{\"shape\""):
        read_pytorch(FIXTURES / "torch_conv.pt", job(CONV), None)


def test_tensors_of_equal_shape_without_an_order_have_a_note(job: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        f"{name}.weight": rng.standard_normal((4, 4)).astype(np.float32) for name in ("enter", "between", "last")
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    imported = read_pytorch(path, job("[network]\nlayers = [4, 'tanh', 4, 'tanh']\n"), None)
    assert "in the order of their names" in imported.notes[0]


def test_a_damaged_file_is_an_error(job: Any, tmp_path: Path) -> None:
    data = (FIXTURES / "torch_mlp.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for size in (0, 7, 9, 100, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ModelImportError, match=r"model.safetensors: expected tensors"):
            read_pytorch(path, job(MLP), None)
