"""The target onnx: onnx's checker, onnxruntime and the reference implementation agree with the model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from model_store.export.agreement import find_disagreement
from model_store.export.base import ExportSource
from model_store.export.export import export, find_target
from model_store.export.onnx import runtime
from model_store.export.onnx.runtime import run_reference
from model_store.export.onnx.target import feeds
from model_store.nn import Array
from model_store.schema.signature import ClassificationOutput, RegressionOutput, Signature
from tests.model_store.export.edge_rows import refused_rows
from tests.model_store.export.example_models import AGE, MADE, PRICE, TRAINED, example_model, example_rows, linear, made

CARRIED = [name for name in (*TRAINED, *MADE) if name != "texts"]
TARGET = find_target("onnx")
DIGEST = "ab" * 32


def source(name: str) -> ExportSource:
    return ExportSource(name.replace(" ", "-"), 3, DIGEST, example_model(name))


def exported(name: str) -> dict[str, bytes]:
    return export(source(name), TARGET)


def loaded(name: str) -> onnx.ModelProto:
    (content,) = exported(name).values()
    return onnx.load_from_string(content)


def session(name: str) -> onnxruntime.InferenceSession:
    (content,) = exported(name).values()
    return onnxruntime.InferenceSession(content)


@pytest.mark.parametrize("name", CARRIED)
def test_onnxruntime_agrees_on_a_thousand_edge_rows(name: str) -> None:
    files, (rows, outputs) = exported(name), example_rows(name)
    found = TARGET.answer(source(name), files, rows)
    assert find_disagreement(example_model(name).signature, outputs, found) is None


@pytest.mark.parametrize("name", CARRIED)
def test_the_checker_accepts_the_file_with_strict_shapes(name: str) -> None:
    model = loaded(name)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert {opset.domain for opset in model.opset_import} == {"", "ai.onnx.ml"}
    for values in (inferred.graph.input, inferred.graph.output):
        assert {value.type.tensor_type.shape.dim[0].dim_param for value in values} == {"batch"}


@pytest.mark.parametrize("name", CARRIED)
def test_a_refused_row_gets_no_answer_and_leaves_the_others_alone(name: str) -> None:
    model = example_model(name)
    refused = refused_rows(model, 20)
    if not refused:
        assert name in {"activations in float64", "vectors", "precise vectors", "tabular in float64"}
        return
    good, outputs = (part[:20] for part in example_rows(name))
    answers = session(name).run(None, named_feeds(name, [*good, *refused]))
    values, expected = answers[-1], model.signature.decode_arrays(outputs)
    assert np.isnan(values[20:]).all()
    np.testing.assert_allclose(values[:20], list(expected.values())[-1], rtol=1e-4, atol=1e-5)
    if isinstance(model.signature.output, ClassificationOutput):
        none = "" if answers[0].dtype == object else np.iinfo(np.int64).min
        assert set(answers[0][20:].tolist()) == {none}


def named_feeds(name: str, rows: list[Any]) -> dict[str, Array]:
    names = [value.name for value in session(name).get_inputs()]
    return dict(zip(names, feeds(source(name), rows), strict=True))


@pytest.mark.parametrize("name", CARRIED)
def test_the_reference_implementation_agrees_on_the_golden_rows(name: str) -> None:
    model, (content,) = example_model(name), exported(name).values()
    assert model.golden is not None
    found = run_reference(content, feeds(source(name), model.golden.instances))
    expected = list(model.signature.decode_arrays(model.golden.outputs).values())[-1]
    np.testing.assert_allclose(list(found.values())[-1], expected, rtol=1e-5, atol=1e-5)


def test_the_names_and_types_are_those_of_skl2onnx() -> None:
    def shown(values: Any) -> list[Any]:
        return [(value.name, value.type, value.shape) for value in values]

    penguins = session("penguins")
    assert shown(penguins.get_inputs()[:2]) == [
        ("island", "tensor(string)", ["batch", 1]),
        ("bill_length_mm", "tensor(double)", ["batch", 1]),
    ]
    assert shown(penguins.get_outputs()) == [
        ("label", "tensor(string)", ["batch"]),
        ("probabilities", "tensor(float)", ["batch", 3]),
    ]
    digits = session("digits")
    assert shown(digits.get_inputs()) == [("image", "tensor(float)", ["batch", 8, 8])]
    assert shown(digits.get_outputs())[0] == ("label", "tensor(int64)", ["batch"])
    assert shown(session("xor").get_outputs()) == [("variable", "tensor(double)", ["batch", 1])]
    assert shown(session("several labels").get_outputs())[0] == ("label", "tensor(int64)", ["batch", 3])
    assert shown(session("precise vectors").get_inputs()) == [("signal", "tensor(double)", ["batch", 3])]
    assert [value.name for value in session("column label").get_inputs()] == ["label_2", "größe [cm]"]


def test_a_missing_number_is_nan_and_a_missing_category_an_empty_text() -> None:
    model = example_model("penguins")
    row = {"island": "Biscoe", "bill_length_mm": None, "bill_depth_mm": 17.3, "flipper_length_mm": 197}
    row |= {"body_mass_g": 4000, "sex": None}
    texts = ("island", "sex")
    given = {
        key: np.array([[np.nan if value is None else float(value)]]) for key, value in row.items() if key not in texts
    }
    given |= {"island": np.array([["Biscoe"]], object), "sex": np.array([[""]], object)}
    label, probabilities = session("penguins").run(None, given)
    (expected,) = model.predict([row])
    assert label.tolist() == [expected["label"]]
    np.testing.assert_allclose(probabilities[0], list(expected["probabilities"].values()), atol=1e-6)


def test_texts_that_mean_a_missing_value_are_read_as_the_service_reads_them() -> None:
    rows = [
        [town, port, smoker, 3.0] for town in ("Bath",) for port in ("NA", "n/a", "?", "q") for smoker in ("YES", "")
    ]
    outputs = example_model("categories").network(example_model("categories").encode(rows))
    given = named_feeds("categories", rows)
    given["port"] = np.array([[row[1]] for row in rows], object)  # not as `answer` sends them
    given["smoker"] = np.array([[row[2]] for row in rows], object)
    np.testing.assert_allclose(session("categories").run(None, given)[1], outputs, atol=1e-5)


def test_the_file_says_where_it_comes_from_and_how_its_rows_look() -> None:
    model, file = example_model("penguins"), loaded("penguins")
    about = {prop.key: prop.value for prop in file.metadata_props}
    assert (about["name"], about["version"], about["digest"]) == ("penguins", "3", DIGEST)
    assert json.loads(about["signature"]) == json.loads(json.dumps(model.signature.config()))
    golden = json.loads(about["golden"])
    assert golden["predictions"] == model.predict(golden["instances"])
    assert (file.producer_name, file.model_version, file.graph.name) == ("forward-pass", 3, "penguins")
    assert file.doc_string == model.description


def test_equal_models_give_equal_bytes() -> None:
    assert exported("tabular") == exported("tabular")


def test_one_row_and_many_give_the_same_answers() -> None:
    rows, _ = example_rows("images")
    whole = TARGET.answer(source("images"), exported("images"), rows[:7])["probabilities"]
    for i in range(7):
        one = TARGET.answer(source("images"), exported("images"), rows[i : i + 1])["probabilities"]
        np.testing.assert_allclose(one, whole[i : i + 1], atol=1e-6)


def test_regressions_answer_in_their_own_units() -> None:
    output = example_model("tabular").signature.output
    assert isinstance(output, RegressionOutput)
    values = TARGET.answer(source("tabular"), exported("tabular"), example_rows("tabular")[0])["values"]
    assert values.dtype == np.float64
    assert abs(values.mean() - output.offset[0]) < output.scale[0]


def test_a_signature_of_whole_numbers_is_exported_as_float64() -> None:
    """JSON has no difference between 3 and 3.0."""
    model = example_model("one output")
    age, height = model.signature.inputs
    inputs = (replace(age, offset=3, scale=2), replace(height, fill=168, linear_width=2))
    output = RegressionOutput(("n",), (2,), (3,))
    whole = replace(model, signature=Signature(inputs, output), golden=None)
    files = export(ExportSource("m", 1, DIGEST, whole), TARGET)
    rows = [[7, None], [2, 1e9]]
    found = TARGET.answer(ExportSource("m", 1, DIGEST, whole), files, rows)["values"]
    np.testing.assert_allclose(found.ravel(), whole.predict(rows), rtol=1e-5)


def test_hundreds_of_number_columns_share_their_operators() -> None:
    columns = [replace(AGE, name=f"c{i}", indicator=i % 2 == 0, fill=1.0) for i in range(500)]
    width = sum(column.width for column in columns)
    wide = ExportSource("wide", 1, DIGEST, made(columns, PRICE, [linear(width, 1)]))
    (content,) = export(wide, TARGET).values()
    assert len(onnx.load_from_string(content).graph.node) < 40


def test_without_onnxruntime_the_reference_implementation_checks_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran: list[bytes] = []

    def run(content: bytes, given: Any) -> dict[str, Array]:
        ran.append(content)
        return run_reference(content, given)

    monkeypatch.setattr(runtime, "run_reference", run)
    assert [*exported("penguins").values()] == ran
