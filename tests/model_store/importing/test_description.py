"""What a user says of the inputs and outputs is checked, and overrides what the file says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from model_store.cli.main import main
from model_store.errors import ModelImportError
from model_store.importing.imported_model import ImportedModel, Source, finish
from model_store.importing.publication import parse_golden, prepare
from model_store.nn import Linear, Module, Sigmoid
from model_store.schema.columns import NumberColumn
from model_store.schema.signature import Signature

FIXTURES = Path(__file__).parent / "fixtures"
PLAIN = (NumberColumn("x0"), NumberColumn("x1"))
WEIGHTS = {"weights": np.array([[1, -2], [3, 4]], np.float32), "bias": np.array([0.5, -1], np.float32)}


def model(*last: Module, inputs: tuple[Any, ...] = PLAIN, plain: bool = True, **settings: Any) -> ImportedModel:
    source = Source("test", "file", "0" * 64, "by hand")
    return ImportedModel(source, inputs, plain, (Linear(2, 2, arrays=WEIGHTS), *last), **settings)


def test_names_scales_and_labels_are_those_that_are_given() -> None:
    described = {"columns": ["a", "b"], "offset": [1, 2], "scale": 2, "labels": ["no", "yes"], "name": "answer"}
    finished = finish(model(), described)
    assert finished.signature.inputs == (NumberColumn("a", 1.0, 2.0), NumberColumn("b", 2.0, 2.0))
    assert finished.signature.output.public_details() == {"kind": "classes", "name": "answer", "labels": ["no", "yes"]}
    assert [type(module).__name__ for module in finished.network.modules] == ["Linear", "Softmax"]
    np.testing.assert_allclose(finished.convert(np.array([[0.0, 0.0]], np.float32)), [[0.5, 0.5]])


def test_a_whole_signature_is_for_files_without_preprocessing() -> None:
    signature = Signature(PLAIN, finish(model()).signature.output).config()
    signature["inputs"][0]["name"] = "length"
    assert finish(model(), signature).signature.names == ("length", "x1")
    with pytest.raises(ModelImportError, match="the file has its own preprocessing"):
        finish(model(plain=False), signature)
    with pytest.raises(ModelImportError, match="the file has its own preprocessing"):
        finish(model(plain=False), {"scale": 2})


def test_outputs_without_names_are_values_or_independent_labels() -> None:
    assert finish(model()).signature.output.public_details() == {"kind": "values", "names": ["y0", "y1"]}
    assert finish(model(Sigmoid())).signature.output.public_details()["kind"] == "labels"
    assert finish(model(), {"targets": ["u", "v"]}).signature.output.public_details()["names"] == ["u", "v"]


INVALID: dict[str, tuple[Any, str]] = {
    "list": ([1], "signature: expected an object, found list"),
    "key": ({"colums": []}, "expected inputs and output, or some of columns"),
    "columns": ({"columns": "ab"}, "signature.columns: expected a list of texts, found 'ab'"),
    "count": ({"columns": ["a"]}, "signature.columns: expected 2 different names, for x0, x1; found 1"),
    "twice": ({"columns": ["a", "a"]}, "expected 2 different names"),
    "labels": ({"labels": 5}, "signature.labels: expected a list of texts or whole numbers"),
    "label count": ({"labels": ["a", "b", "c"]}, "signature.labels: expected 2, one for each output"),
    "equal labels": ({"labels": ["a", "a"]}, "expected unique labels"),
    "both": ({"labels": ["a", "b"], "targets": ["a", "b"]}, "expected labels or targets, found both"),
    "scale": ({"scale": 0}, "signature: make_signature.scale: expected numbers above 0"),
    "boolean": ({"scale": True}, "signature.scale: expected a number"),
    "shape": ({"shape": [3]}, "signature.shape: expected 2 values a row"),
    "inputs": ({"inputs": 5, "output": 3}, "signature.inputs: expected a list"),
}


@pytest.mark.parametrize(("described", "problem"), INVALID.values(), ids=INVALID)
def test_an_invalid_description_is_an_error(described: Any, problem: str) -> None:
    with pytest.raises(ModelImportError, match=problem):
        finish(model(), described)


@pytest.mark.parametrize(
    "golden", [[], {"inputs": []}, {"inputs": [], "outputs": []}, {"inputs": [[1]], "outputs": [["a"]]}]
)
def test_invalid_golden_rows_are_an_error(golden: Any) -> None:
    with pytest.raises(ModelImportError, match="golden"):
        parse_golden(golden)


def test_answers_of_the_source_are_compared_and_kept() -> None:
    answers = {"inputs": [[1, 0], [0, 1]], "outputs": [[1.5, 2], [-1.5, 3]]}
    found = prepare(model(), golden=parse_golden(answers))
    assert found.golden is not None
    assert found.golden.instances == answers["inputs"]
    assert found.training["import"]["golden_outputs_of"] == "the file of golden rows"
    answers["outputs"][1][1] = 3.1
    with pytest.raises(ModelImportError, match=r"golden.inputs.1: expected 3.1 as output 1, as the source has"):
        prepare(model(), golden=parse_golden(answers))


def test_the_command_reads_golden_rows_and_prints_json(tmp_path: Path) -> None:
    answers = np.load(FIXTURES / "keras_mlp.npz")
    golden = tmp_path / "golden.json"
    golden.write_text(json.dumps({key: answers[key].tolist() for key in ("inputs", "outputs")}))
    arguments = ["import", str(FIXTURES / "keras_mlp.keras"), "--name", "digits", "--golden", str(golden), "--json"]
    result = CliRunner().invoke(main, [*arguments, "--store", str(tmp_path / "models")])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["version"] == 1
    assert printed["import"]["golden_outputs_of"] == "the file of golden rows"
    assert printed["import"]["largest_difference"] <= 1e-5


@pytest.mark.parametrize(("file", "code"), [("model.txt", 3), ("missing.onnx", 2)])
def test_the_command_ends_with_the_code_of_the_error(file: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("x")
    store = str(tmp_path / "models")
    result = CliRunner().invoke(main, ["import", str(tmp_path / file), "--name", "m", "--store", store])
    assert result.exit_code == code, result.output
    assert file in result.output
