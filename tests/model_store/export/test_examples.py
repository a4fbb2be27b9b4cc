"""The models and rows that all export targets are tested with cover what a model may have."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.export.agreement import find_disagreement
from model_store.nn import LAYERS
from model_store.schema.columns import KINDS
from tests.model_store.export.edge_rows import edge_rows, refused_rows
from tests.model_store.export.example_models import MADE, TRAINED, all_layer_types, example_model, example_rows


def test_the_models_have_every_layer_and_every_kind_of_column() -> None:
    assert all_layer_types() == set(LAYERS)
    assert {column.kind for name in MADE for column in example_model(name).signature.inputs} == set(KINDS)


@pytest.mark.parametrize("name", [*TRAINED, *MADE])
def test_a_model_has_a_thousand_edge_rows_that_agree_with_themselves(name: str) -> None:
    model = example_model(name)
    model.check_golden()
    rows, outputs = example_rows(name)
    assert outputs.shape == (1000, model.network.output_size)
    assert find_disagreement(model.signature, outputs, model.signature.decode_arrays(outputs)) is None
    assert edge_rows(model, 20)[0] == rows[:20]


def test_edge_rows_hold_missing_values_unknown_categories_and_large_numbers() -> None:
    rows = [row for row in example_rows("categories")[0] if isinstance(row, list)]
    assert {None, "", "bx", "🐧 penguin"} <= {row[1] for row in rows}
    assert any(abs(row[3]) > 1e30 for row in rows)
    assert any(np.signbit(row[3]) and row[3] == 0 for row in rows)
    assert refused_rows(example_model("refused category"))


@pytest.mark.parametrize(
    ("name", "part"), [("numbers", "probabilities"), ("vectors", "values"), ("several labels", "probabilities")]
)
def test_a_value_that_is_off_is_found_with_its_row(name: str, part: str) -> None:
    model = example_model(name)
    outputs = edge_rows(model, 30)[1]
    for row, off in [(7, 1e-4), (8, 1e-7)]:
        found = {key: value.copy() for key, value in model.signature.decode_arrays(outputs).items()}
        found[part][row, 0] += off * (np.abs(found[part][row, 0]) + 1)
        different = find_disagreement(model.signature, outputs, found)
        assert (None if different is None else different[0]) == (7 if off == 1e-4 else None)


def test_another_label_is_found_unless_the_probabilities_are_as_good_as_equal() -> None:
    model = example_model("numbers")
    outputs = np.array([[0.5, 0.3, 0.2], [0.4, 0.4000001, 0.2]], np.float32)
    found = {"probabilities": outputs, "label": np.array(["ant", "ant"], object)}
    assert find_disagreement(model.signature, outputs, found) is None
    found["label"][0] = "cat"
    assert find_disagreement(model.signature, outputs, found) == (0, "label 'ant'", "'cat'")
