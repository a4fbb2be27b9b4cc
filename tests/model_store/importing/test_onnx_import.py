"""ONNX files become models with the same answers; what cannot be imported is named by its node."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from model_store.artifact.model import Model
from model_store.errors import ModelImportError
from model_store.importing import budget
from model_store.importing.onnx import file as onnx_file
from model_store.importing.onnx.graph import read_onnx
from model_store.importing.publication import parse_golden, prepare
from tests.test_arrows import ROOT

FIXTURES = Path(__file__).parent / "fixtures"
NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
TEXTS = ["island", "sex"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def saved(model: Any, directory: Path) -> Path:
    path = directory / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def probabilities(model: Model, rows: list[Any]) -> Any:
    return [list(one["probabilities"].values()) for one in model.predict(rows)]


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_binary_classifier_of_skl2onnx_answers_as_scikit_learn(zipmap: bool, tmp_path: Path) -> None:
    table, classes = load_breast_cancer(return_X_y=True)
    estimator = make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=30, random_state=0)).fit(table, classes)
    table = table.astype(np.float32)
    path = saved(to_onnx(estimator, table[:1], options={"zipmap": zipmap}), tmp_path)
    model = prepare(read_onnx(path))
    assert model.signature.output.public_details()["labels"] == [0, 1]
    assert model.network.output_size == 1
    np.testing.assert_allclose(probabilities(model, table.tolist()), estimator.predict_proba(table), rtol=0, atol=1e-5)
    assert model.training["import"]["producer"].startswith("skl2onnx")


@pytest.mark.parametrize("kind", ["double", "float"])
def test_a_pipeline_with_texts_and_missing_numbers_answers_as_scikit_learn(kind: str, tmp_path: Path) -> None:
    table = pd.read_csv(ROOT / "examples/penguins.csv")
    table = table.assign(sex=table.sex.fillna("unknown"))
    encoder = OneHotEncoder(handle_unknown="ignore")
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("texts", encoder, TEXTS), ("numbers", numbers, NUMBERS)])
    estimator = make_pipeline(columns, MLPClassifier((8,), max_iter=60, random_state=0))
    estimator.fit(table[NUMBERS + TEXTS], table.species)
    types = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    types += [(name, StringTensorType([None, 1])) for name in TEXTS]
    given = {"X": table[NUMBERS + TEXTS].head(1)} if kind == "double" else {"initial_types": types}
    model = prepare(read_onnx(saved(to_onnx(estimator, **given), tmp_path)))
    assert model.signature.names == (*NUMBERS, *TEXTS)
    assert model.network.dtype == ("float64" if kind == "double" else "float32")
    rows = table[NUMBERS + TEXTS].astype(object).where(table[NUMBERS + TEXTS].notna(), None).to_dict(orient="records")
    rows.append({**rows[0], "island": "Atlantis"})
    expected = estimator.predict_proba(pd.DataFrame(rows).astype(dict.fromkeys(NUMBERS, float)))
    np.testing.assert_allclose(probabilities(model, rows), expected, rtol=0, atol=1e-5)


def test_a_regression_of_skl2onnx_answers_as_scikit_learn(tmp_path: Path) -> None:
    table, targets = load_diabetes(return_X_y=True)
    regressor = MLPRegressor(hidden_layer_sizes=(8,), activation="logistic", max_iter=40, random_state=0)
    estimator = make_pipeline(MinMaxScaler(), regressor).fit(table, targets)
    table = table.astype(np.float32)
    model = prepare(read_onnx(saved(to_onnx(estimator, table[:1]), tmp_path)))
    np.testing.assert_allclose(model.predict(table.tolist()), estimator.predict(table), rtol=1e-5)


def test_labels_that_are_texts_come_from_the_file(tmp_path: Path) -> None:
    images, digits = load_digits(return_X_y=True)
    estimator = MLPClassifier((8,), max_iter=10, random_state=0).fit(images, digits.astype(str))
    model = prepare(read_onnx(saved(to_onnx(estimator, images[:1].astype(np.float32)), tmp_path)))
    assert model.signature.output.public_details()["labels"] == list("0123456789")


@pytest.mark.parametrize("name", ["torch_conv", "torch_conv_legacy"])
def test_a_convolutional_network_of_pytorch_answers_as_pytorch(name: str) -> None:
    """`torch.onnx.export`, of both kinds; clients send images (height, width), as PyTorch's have one channel."""
    answers = np.load(FIXTURES / "torch_conv.npz")
    golden = parse_golden({"inputs": answers["inputs"][:, 0].tolist(), "outputs": answers["outputs"].tolist()})
    model = prepare(read_onnx(FIXTURES / f"{name}.onnx"), golden=golden)
    assert model.signature.table_shape == (8, 8)
    found = np.array(model.predict(answers["inputs"][:, 0].tolist()))
    expected = [dict(zip([f"y{i}" for i in range(10)], row, strict=True)) for row in answers["outputs"].tolist()]
    np.testing.assert_allclose(
        [list(one.values()) for one in found], [list(one.values()) for one in expected], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ["pooling", "sequence"])
@pytest.mark.parametrize("exporter", ["", "_legacy"])
def test_poolings_and_sequences_of_pytorch_answer_as_pytorch(name: str, exporter: str) -> None:
    """Padding that counts and that does not, ceil_mode, strides, dilation; convolutions and poolings of rows."""
    answers = np.load(FIXTURES / f"torch_{name}.npz")
    inputs = answers["inputs"].reshape(-1, 8, 8).tolist()
    golden = parse_golden({"inputs": inputs, "outputs": answers["outputs"].tolist()})
    model = prepare(read_onnx(FIXTURES / f"torch_{name}{exporter}.onnx"), golden=golden)
    assert model.training["import"]["largest_difference"] <= 1e-5


def test_labels_that_are_given_add_a_softmax_after_logits() -> None:
    described = {"labels": list(range(10)), "name": "digit", "scale": 16}
    answers = np.load(FIXTURES / "torch_conv.npz")
    model = prepare(read_onnx(FIXTURES / "torch_conv.onnx"), described)
    assert "a Softmax was added" in model.training["notes"][0]
    images = (answers["inputs"][:, 0] * 16).tolist()  # as the data has them
    shifted = np.exp(answers["outputs"] - answers["outputs"].max(axis=1, keepdims=True))
    expected = shifted / shifted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(model, images), expected, rtol=0, atol=1e-5)


def graph_of(*nodes: Any, tensors: dict[str, Any], shape: Any = (None, 3, 8, 8), output: str = "y") -> Any:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    given = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


RNG = np.random.default_rng(0)


def weights(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def test_colour_images_are_sent_as_height_width_and_channels(tmp_path: Path) -> None:
    model = prepare(
        read_onnx(
            saved(
                graph_of(
                    helper.make_node("Mul", ["x", "factor"], ["a"]),  # of each channel, before a padded convolution
                    helper.make_node("Sub", ["a", "mean"], ["b"]),
                    helper.make_node("Conv", ["b", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], group=3),
                    helper.make_node("Relu", ["c"], ["d"]),
                    helper.make_node("Conv", ["d", "v"], ["e"], dilations=[2, 2], auto_pad="SAME_UPPER"),
                    helper.make_node("GlobalAveragePool", ["e"], ["f"]),
                    helper.make_node("Flatten", ["f"], ["g"]),
                    helper.make_node("Gemm", ["g", "u"], ["y"], transB=1),
                    tensors={
                        "factor": weights(1, 3, 1, 1),
                        "mean": weights(1, 3, 1, 1),
                        "w": weights(6, 1, 3, 3),
                        "v": weights(4, 6, 3, 3),
                        "u": weights(2, 4),
                    },
                ),
                tmp_path,
            )
        )
    )
    assert model.signature.table_shape == (8, 8, 3)
    assert model.training["import"]["largest_difference"] <= 1e-5


def test_rows_of_pixels_become_images_and_a_computed_shape_flattens_them(tmp_path: Path) -> None:
    model = graph_of(
        helper.make_node("Reshape", ["x", "image"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["b"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["m"]),
        helper.make_node("Concat", ["m", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["b", "flat"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["d"]),
        helper.make_node("Add", ["bias", "d"], ["e"]),
        helper.make_node("LogSoftmax", ["e"], ["y"], axis=-1),
        tensors={
            "image": np.array([0, 1, 8, 8]),
            "zero": np.array(0),
            "axis": np.array([0]),
            "rest": np.array([-1]),
            "w": weights(16, 4),
            "bias": weights(4),
        },
        shape=("batch", 64),
    )
    imported = prepare(read_onnx(saved(model, tmp_path)))
    assert imported.signature.output.public_details()["labels"] == [0, 1, 2, 3]
    assert "log probabilities" in imported.training["notes"][0]


LINEAR = helper.make_node("MatMul", ["x", "w"], ["h"])
REFUSED: dict[str, tuple[Any, str]] = {
    "operator": (
        helper.make_node("LSTM", ["h"], ["y"], name="memory"),
        r"node 'memory' \(LSTM\): expected an operator",
    ),
    "domain": (
        helper.make_node("Relu", ["h"], ["y"], domain="my.own"),
        r"node 1 \(my.own.Relu\): expected an operator",
    ),
    "swish": (helper.make_node("Swish", ["h"], ["y"], alpha=2.0), r"node 1 \(Swish\): expected alpha = 1"),
    "subgraph": (helper.make_node("Loop", ["", "", "h"], ["y"]), r"\(Loop\): expected an operator"),
    "skip": (helper.make_node("Add", ["h", "h"], ["y"]), r"\(Add\): input 1: expected a constant, found a computed"),
    "condition": (helper.make_node("Where", ["h", "w", "h"], ["y"]), r"\(Where\): expected texts before the first"),
    "shape": (helper.make_node("Add", ["h", "w"], ["y"]), r"\(Add\): expected a constant for each row"),
    "order": (helper.make_node("Relu", ["later"], ["y"]), r"\(Relu\): input 'later': expected it before this node"),
    "attribute": (helper.make_node("LeakyRelu", ["h"], ["y"], alpha="a"), r"node 1 \(LeakyRelu\)"),
}


@pytest.mark.parametrize(("node", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_node_that_cannot_be_imported_is_named(node: Any, problem: str, tmp_path: Path) -> None:
    path = saved(graph_of(LINEAR, node, tensors={"w": weights(3, 4)}, shape=(None, 3)), tmp_path)
    with pytest.raises(ModelImportError, match=problem):
        read_onnx(path)


def test_a_constant_that_a_few_bytes_claim_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FREE_VALUES", 10_000)
    node = helper.make_node("ConstantOfShape", ["size"], ["c"], name="large")
    tensors = {"size": np.array([200, 100]), "w": weights(3, 4)}
    add = helper.make_node("Add", ["h", "c"], ["y"])
    path = saved(graph_of(LINEAR, node, add, tensors=tensors, shape=(None, 3)), tmp_path)
    with pytest.raises(ModelImportError, match=r"node 'large' \(ConstantOfShape\): expected at most \d+ more val"):
        read_onnx(path)


def doubled(first: Any) -> list[Any]:
    """Return 12 nodes that double a value each."""
    nodes = [helper.make_node("Concat", [f"d{i}"] * 2, [f"d{i + 1}"], axis=1) for i in range(12)]
    return [first, *nodes, helper.make_node("Identity", ["d12"], ["y"])]


GROWING = {
    "features": (doubled(helper.make_node("Identity", ["x"], ["d0"])), {}),
    "layers": (doubled(helper.make_node("MatMul", ["x", "w"], ["d0"])), {"w": weights(3, 4)}),
    "empty dimension": ([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.zeros((0, 2**30), np.float32)}),
    "selection": ([helper.make_node("Gather", ["x", "w"], ["y"], axis=1)], {"w": np.zeros(10**6, np.int64)}),
    "texts": ([helper.make_node("Add", ["w", "w"], ["y"])], {"w": np.array(["a" * 1000], object)}),
    "steps": (
        [helper.make_node("Mul", [f"m{i}" if i else "x", "w"], [f"m{i + 1}"]) for i in range(300)]
        + [helper.make_node("Identity", ["m300"], ["y"])],
        {"w": weights(1)},
    ),
}


@pytest.mark.parametrize("case", GROWING)
def test_a_small_file_has_a_budget_for_all_of_its_nodes(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "FREE_VALUES", 10_000)
    nodes, tensors = GROWING[case]
    with pytest.raises(ModelImportError, match=r"more values of a file of this size|weights of a sel|found texts"):
        read_onnx(saved(graph_of(*nodes, tensors=tensors, shape=(None, 3)), tmp_path))


def test_a_costly_row_is_compared_in_few_rows_or_not_at_all(tmp_path: Path) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2])
    flat, dense = helper.make_node("Flatten", ["p"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])
    for side, is_compared in ((64, True), (1200, False)):
        tensors = {"w": weights(side * side // 4, 1)}
        imported = read_onnx(saved(graph_of(pool, flat, dense, tensors=tensors, shape=(None, 1, side, side)), tmp_path))
        assert imported.row_values > 64 * side * side // 4
        assert (imported.answers is not None) == is_compared


def test_external_data_is_refused_with_the_fix(tmp_path: Path) -> None:
    model = graph_of(LINEAR, output="h", tensors={"w": weights(3, 400)}, shape=(None, 3))
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, size_threshold=0)
    with pytest.raises(ModelImportError, match=r"tensor 'w': expected its data in the file; save one file"):
        read_onnx(path)


def external_tensor(path: Path) -> Any:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=path.name)
    return tensor


def external_nodes(path: Path) -> dict[str, Any]:
    """Nodes whose attributes have a tensor in another file, at each place where a file can have one."""
    tensor = external_tensor(path)
    output = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    inner = helper.make_graph([helper.make_node("Identity", ["t"], ["z"])], "inner", [], [output], [tensor])
    indices = numpy_helper.from_array(np.array([0]))
    sparse = helper.make_sparse_tensor(tensor, indices, [3, 4])
    return {
        "constant": helper.make_node("Constant", [], ["c"], value=tensor),
        "tensors": helper.make_node("Relu", ["h"], ["y"], more=[tensor]),
        "graph": helper.make_node("Relu", ["h"], ["y"], more=inner),
        "graphs": helper.make_node("Relu", ["h"], ["y"], more=[inner]),
        "sparse": helper.make_node("Constant", [], ["c"], sparse_value=sparse),
    }


@pytest.mark.parametrize("place", ["constant", "tensors", "graph", "graphs", "sparse"])
def test_no_attribute_of_a_node_reads_another_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of nodes that no output needs: the secret is never opened, though it lies in the current folder."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(48))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(numpy_helper, "to_array", lambda *_: pytest.fail("a tensor was read"))
    model = graph_of(LINEAR, external_nodes(secret)[place], output="h", tensors={"w": weights(3, 4)}, shape=(None, 3))
    with pytest.raises(ModelImportError, match=r"expected (its data in the file|no graph in a node|dense tensors)"):
        read_onnx(saved(model, tmp_path))


def test_functions_of_a_file_are_ignored(tmp_path: Path) -> None:
    """onnx's reference evaluator takes quadratic time for them."""
    model = graph_of(LINEAR, output="h", tensors={"w": weights(3, 4)}, shape=(None, 3))
    model.functions.append(helper.make_function("d", "f", [], ["o"], [], [helper.make_opsetid("", 17)]))
    assert not onnx_file.parse_model(tmp_path / "m.onnx", model.SerializeToString()).functions
    assert prepare(read_onnx(saved(model, tmp_path))).network.output_size == 4


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    path = saved(graph_of(LINEAR, output="h", tensors={"w": weights(3, 4)}, shape=(None, "n")), tmp_path)
    with pytest.raises(
        ModelImportError, match=r"input 'x': expected a shape \(batch, sizes...\), found \['\?', '\?'\]"
    ):
        read_onnx(path)


def test_a_file_of_many_small_messages_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bytes become a node of a hundred: 1 GB of them would take all memory."""
    monkeypatch.setattr(onnx_file, "MAX_STRUCTURE_BYTES", 1 << 16)
    monkeypatch.setattr(onnx, "load_model_from_string", lambda data: pytest.fail("was parsed"))
    inner = b"\x0a\x00" * (1 << 16)  # empty nodes
    path = tmp_path / "bomb.onnx"
    path.write_bytes(b"\x3a" + bytes([len(inner) & 127 | 128, len(inner) >> 7 & 127 | 128, len(inner) >> 14]) + inner)
    with pytest.raises(ModelImportError, match="besides the raw data of tensors"):
        read_onnx(path)


def test_the_numbers_of_tensors_do_not_count_as_structure() -> None:
    model = graph_of(LINEAR, output="h", tensors={"w": weights(3, 4000)}, shape=(None, 3))
    assert onnx_file.structure_bytes(memoryview(model.SerializeToString())) < 300


def test_a_damaged_file_is_an_error_of_the_file(tmp_path: Path) -> None:
    """Of 100 files with changed bytes, each is imported or a ModelImportError, also those whose names are not UTF-8."""
    data = bytearray((FIXTURES / "torch_conv_legacy.onnx").read_bytes())
    path = tmp_path / "damaged.onnx"
    rng = np.random.default_rng(0)
    for _ in range(100):
        changed = bytearray(data)
        for place in rng.integers(len(data), size=rng.integers(1, 6)):
            changed[place] = rng.integers(256)
        path.write_bytes(changed[: rng.integers(1, len(changed) + 1)] if rng.random() < 0.2 else changed)
        with contextlib.suppress(ModelImportError):
            prepare(read_onnx(path))
