"""A cell is the same features in training and in every way into the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.artifact.model import Model
from model_store.schema import row_parser
from service.protocols import tensors
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate

SPACES = st.text(st.sampled_from(" \t\xa0\u2003"), max_size=2)
WORDS = st.one_of(
    st.sampled_from(
        ["Dream", "Biscoe", "7", "", "NA", "na", "N/A", "NaN", "null", "?", "none", "dream", "Drea", "nul"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=6),
)
CELLS = st.tuples(SPACES, WORDS, SPACES).map("".join)
NUMBERS = st.one_of(
    st.sampled_from(["", "NA", "nan", "?", "1", "+1.5", "-.5", "1e3", "007"]),
    st.floats(-1e9, 1e9).map(repr),
)
NUMBER_CELLS = st.tuples(SPACES, NUMBERS, SPACES).map("".join)


def quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def table(rows: list[tuple[str, str]]) -> str:
    return "".join(f"{quote(island)},{quote(mass)}\n" for island, mass in rows)


BASE = [("Dream", "1"), ("Biscoe", "2"), ("7", "3"), ("Dream", "")] * 10


def prepared(folder: Path, rows: list[tuple[str, str]], **data: Any) -> PreparedJob:
    lines = table([*BASE, *rows]).splitlines(keepends=True)
    with (folder / "t.csv").open("w", encoding="utf-8", newline="") as file:
        file.write("island,mass,y\n" + "".join(f"{line[:-1]},{'pq'[i % 2]}\n" for i, line in enumerate(lines)))
    data = {"path": "t.csv", "target": "y", "kinds": {"island": "category", "mass": "number"}, **data}
    data["optional"] = ["island", "mass"]
    return prepare(from_dict({"model": {"name": "m"}, "data": data, "train": {"epochs": 1}}, folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return train_and_evaluate(prepared(tmp_path_factory.mktemp("model"), [], unknown="bucket")).model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def number(cell: str) -> float | None:
    """Return what a client sends in JSON for a cell of a numeric column."""
    text = cell.strip()
    return None if text.lower() in {"", "na", "n/a", "nan", "null", "?"} else float(text)


def ways_in(model: Model, rows: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the features of the rows by each way into the service and into `models predict`."""
    signature, text = model.signature, table(rows)
    values = [(island, number(mass)) for island, mass in rows]
    islands = np.array([island for island, _ in rows], object)
    masses = np.array([np.nan if mass is None else mass for _, mass in values])
    packed = tensors.to_bytes(islands)
    by_name = [dict(zip(signature.names, row, strict=True)) for row in values]
    binary = tensors.from_bytes("BYTES", [len(rows)], memoryview(packed), "inputs", tensors.FaultCollector())
    assert binary is not None
    csv_rows = row_parser.open_csv(("island,mass\n" + text).encode(), "body.csv", signature).read()
    return {
        "JSON lists": model.encode(json.loads(json.dumps(values))),
        "JSON objects": model.encode(json.loads(json.dumps(by_name))),
        "CSV and models predict": model.encode(csv_rows.rows),
        "models predict --row": model.encode(row_parser.parse_json_rows([json.dumps(row) for row in by_name])),
        "V2": tensors.encode(model, {"island": islands, "mass": masses}, len(rows)).inputs,
        "V2 binary": tensors.encode(model, {"island": binary, "mass": masses}, len(rows)).inputs,
    }


@given(rows=st.lists(st.tuples(CELLS, NUMBER_CELLS), min_size=1, max_size=8))
@settings(max_examples=100)
def test_a_cell_is_the_same_features_in_training_and_in_every_way_in(
    model: Model, folder: Path, rows: list[tuple[str, str]]
) -> None:
    """Training's reader parses the cells; the features are those of the fitted signature."""
    data = prepared(folder, rows, unknown="bucket").dataset
    cells = {name: values[-len(rows) :] for name, values in data.inputs.items()}
    expected = model.signature.encode_columns(cells)
    for way, found in ways_in(model, rows).items():
        np.testing.assert_array_equal(found, expected, err_msg=way)


def test_a_category_with_spaces_and_texts_for_missing_values_do_not_go_to_the_bucket(model: Model) -> None:
    dream, missing = model.encode([["Dream", 1], [None, 1]])
    rows = [(" Dream", "1"), ("", "1"), ("NA", "1")]
    for way, found in ways_in(model, rows).items():
        np.testing.assert_array_equal(found, [dream, missing, missing], err_msg=way)
