"""Explanations of a model: in the units of its output, by column, for every kind of column and output."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.artifact.answers import Answers
from model_store.artifact.explanation import Explanations, explain, read_asked
from model_store.artifact.model import Model
from model_store.errors import InputError
from model_store.nn import build
from model_store.schema.columns import ArrayColumn, CategoryColumn, NumberColumn
from model_store.schema.columns.text import TextColumn
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.signature import ClassificationOutput, Output, RegressionOutput, Signature
from model_store.schema.target_transform import TargetTransform
from tests.model_store.conftest import chess

QUANTILE = TargetTransform("quantile", (-2.0, 0.0, 0.5, 2.0), ((1.0, 3.0, 3.0, 90.0), (0.0, 1.0, 4.0, 5.0)))


def model(output: Output, outputs: int, last: str, dtype: str = "float64", seed: int = 0) -> Model:
    """A model of a number, a category as features, one as a number, and a text."""
    columns = (
        NumberColumn("age", 40.0, 12.5, fill=38.0, indicator=True),
        CategoryColumn("town", ("Bath", "York"), unknown="bucket"),
        CategoryColumn("job", ("cook", "judge", "smith"), encoding="code"),
        TextColumn("note", 16),
    )
    width = sum(column.width for column in columns)
    positions = [columns[0].width + columns[1].width]
    layers: list[dict[str, Any]] = [
        {"type": "Embedding", "input_size": width, "positions": positions, "counts": [4], "size": 3},
        {"type": "Linear", "input_size": width + 2, "output_size": 8},
        {"type": "ReLU"},
        {"type": "Linear", "input_size": 8, "output_size": outputs},
        {"type": last},
    ]
    network = build(layers, dtype, rng=np.random.default_rng(seed))
    baseline = np.full(width, 0.3, dtype)
    baseline[positions] = 1
    return Model(network, Signature(columns, output), answers=Answers(baseline))


ROWS = [
    [30, "Bath", "smith", "a short note"],
    [None, "Rome", "cook", "x"],
    [80, "York", "judge", "longer, much longer"],
]


def explained(found: Model, asked: Any = True, rows: list[Any] | None = None) -> Explanations:
    inputs = found.encode(ROWS if rows is None else rows)
    return explain(found, inputs, found.network(inputs), read_asked(asked, found))


def total(explanations: Explanations) -> np.ndarray:
    return sum(values.reshape(len(values), -1).sum(axis=1) for values in explanations.contributions.values())


LABELS = ("a", "b", "c")
NUMBERS = {"offset": (3.0, -1.0), "scale": (2.0, 0.5)}
OUTPUTS: dict[str, tuple[Output, int, str]] = {
    "labels": (ClassificationOutput("y", LABELS), 3, "Softmax"),
    "two labels": (ClassificationOutput("y", ("no", "yes")), 2, "Softmax"),
    "two labels of one output": (ClassificationOutput("y", ("no", "yes")), 1, "Sigmoid"),
    "several labels": (MultiLabelOutput("y", LABELS, ";", 0.5), 3, "Sigmoid"),
    "a number": (RegressionOutput(("y",), (3.0,), (2.0,)), 1, "Identity"),
    "numbers": (RegressionOutput(("y", "z"), **NUMBERS), 2, "Identity"),
    **{
        f"numbers by {kind}": (RegressionOutput(("y", "z"), **NUMBERS, transform=TargetTransform(kind)), 2, "Identity")
        for kind in ("log", "log1p")
    },
    "numbers by quantile": (RegressionOutput(("y", "z"), **NUMBERS, transform=QUANTILE), 2, "Identity"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_contributions_of_the_columns_add_up_in_the_units_of_the_answer(name: str, dtype: str) -> None:
    output, outputs, last = OUTPUTS[name]
    found = model(output, outputs, last, dtype)
    names = output.names if isinstance(output, RegressionOutput) else output.labels
    key = "target" if isinstance(output, RegressionOutput) else "label"
    predicted = found.signature.decode_arrays(found.network(found.encode(ROWS)))
    for asked, index in ((True, None), *(({key: name}, i) for i, name in enumerate(names))):
        explanations = explained(found, asked)
        values = predicted["values"] if key == "target" else predicted["probabilities"]
        chosen = values.argmax(axis=1) if key == "label" else np.zeros(3, int)
        chosen = chosen if index is None else np.full(3, index)
        np.testing.assert_array_equal(explanations.answers, values[np.arange(3), chosen])
        difference = explanations.answers - explanations.baselines
        np.testing.assert_allclose(total(explanations), difference, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(total(explanations) + explanations.residuals, difference, atol=1e-12)
        named = None if len(names) == 1 else [names[i] for i in chosen]
        assert explanations.names == named
        assert list(explanations.contributions) == ["age", "town", "job", "note"]


def test_a_category_that_is_that_of_the_baseline_contributes_nothing() -> None:
    found = model(*OUTPUTS["labels"])
    contributions = explained(found).contributions["job"]
    assert contributions[2] == 0  # judge
    assert contributions[0] != 0
    assert contributions[1] != 0


def test_two_labels_of_one_output_have_opposite_contributions() -> None:
    found = model(*OUTPUTS["two labels of one output"])
    no, yes = (explained(found, {"label": label}) for label in ("no", "yes"))
    for name, values in no.contributions.items():
        np.testing.assert_allclose(values, -yes.contributions[name])


def test_labels_may_be_numbers_and_are_found_by_their_names_in_json() -> None:
    found = model(ClassificationOutput("y", (1, 2, 3)), 3, "Softmax")
    assert explained(found, {"label": 2}).names == explained(found, {"label": "2"}).names == [2, 2, 2]
    for wrong in (True, 2.0, [2], "4"):
        with pytest.raises(InputError, match=r"explain\.label: expected one of 1, 2, 3"):
            read_asked({"label": wrong}, found)


def test_an_array_has_contributions_in_its_shape() -> None:
    column = ArrayColumn("pixels", (2, 3), 0.0, 16.0, 0.0, 16.0, {})
    layers = [{"type": "Linear", "input_size": 6, "output_size": 1}]
    network = build(layers, "float64", rng=np.random.default_rng(0))
    signature = Signature((column,), RegressionOutput(("ink",), (0.0,), (1.0,)))
    found = Model(network, signature, answers=Answers(np.zeros(6)))
    rows = [[[1, 2, 3], [4, 5, 6]]]
    expected = network.modules[0].weights.reshape(1, 2, 3) * np.array(rows) / 16
    np.testing.assert_allclose(explained(found, rows=rows).contributions["pixels"], expected)
    assert np.shape(explained(found, rows=rows).as_json()[0]["contributions"]["pixels"]) == (2, 3)


def test_an_explanation_that_is_not_finite_names_the_row() -> None:
    layers = [{"type": "Linear", "input_size": 1, "output_size": 1}, {"type": "Exp"}]
    network = build(layers, "float64", rng=np.random.default_rng(0))
    network.modules[0].weights = [[1.0]]
    signature = Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,)))
    found = Model(network, signature, answers=Answers(np.zeros(1)))
    inputs = np.array([[1.0], [np.inf]])
    with pytest.raises(InputError, match=r"instances\.1: the explanation is not finite"):
        explain(found, inputs, np.array([[np.e], [1.0]]), read_asked(True, found))


def test_a_model_without_a_baseline_takes_a_row_to_compare_with() -> None:
    found = dataclasses.replace(model(*OUTPUTS["labels"]), answers=None)
    with pytest.raises(InputError, match=r"explain: expected a model with a baseline.*train it again, .*or send a row"):
        read_asked(True, found)
    same = explained(found, {"baseline": ROWS[0]}, ROWS[:1])
    assert not total(same).any()
    assert same.answers == same.baselines


def test_the_baseline_is_part_of_the_artifact_and_its_digest(tmp_path: Path) -> None:
    plain = chess()
    with_baseline = dataclasses.replace(plain, answers=Answers(np.array([0.5, 0.25, 0.75], np.float32)))
    digests = [npz.write(tmp_path / f"{i}.npz", each) for i, each in enumerate((plain, with_baseline))]
    assert digests[0] != digests[1]
    found = npz.read(tmp_path / "1.npz")
    assert found.answers is not None
    np.testing.assert_array_equal(found.answers.baseline, [0.5, 0.25, 0.75])
    assert found.baseline is not None
    assert not found.baseline.flags.writeable
    assert npz.read(tmp_path / "0.npz").answers is None
    assert npz.write(tmp_path / "again.npz", found) == digests[1]
    with pytest.raises(ValueError, match=r"answers\.baseline: expected the shape \(3,\), found \(2,\)"):
        dataclasses.replace(plain, answers=Answers(np.zeros(2, np.float32)))


def test_artifacts_of_earlier_versions_have_no_baseline_and_the_same_answers() -> None:
    fixtures = Path(__file__).parents[2] / "fixtures"
    for name in ("artifact_0_1_classifier", "artifact_0_1_images"):
        found = npz.read(fixtures / f"{name}.npz")
        assert found.answers is None
        found.check_golden()
        with pytest.raises(InputError, match="expected a model with a baseline"):
            read_asked(True, found)
