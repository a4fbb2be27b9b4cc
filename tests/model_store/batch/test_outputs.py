"""Batch jobs and single files have the predictions of the service, bit by bit, for every kind of output."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from model_store.artifact.model import Golden, Model
from model_store.batch.scoring import batch_rows
from model_store.nn.from_config import build
from model_store.registry.store import Store
from model_store.schema.columns import NumberColumn
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.outputs import ClassificationOutput, Output, RegressionOutput
from model_store.schema.prediction_table import prediction_cells
from model_store.schema.signature import Signature
from model_store.schema.target_transform import TargetTransform

SIZES = [0.1, 3.0, -2.5, 100 / 7, 0.0]
OUTPUTS: dict[str, tuple[Output, int]] = {
    "one-target": (RegressionOutput(("mass",), (4200.0,), (801.5,)), 1),
    "one-target-of-a-logarithm": (RegressionOutput(("mass",), (4.0,), (0.5,), transform=TargetTransform("log1p")), 1),
    "two-targets": (RegressionOutput(("mass", "height"), (4200.0, 0.1), (801.5, 0.3)), 2),
    "labels-of-texts": (ClassificationOutput("kind", ("a", "b", "c")), 3),
    "labels-of-numbers": (ClassificationOutput("kind", (3, 5)), 2),
    "labels-of-one-output": (ClassificationOutput("kind", (0, 1)), 1),
    "several-labels": (MultiLabelOutput("tags", ("a", "b", "c"), ";", 0.5), 3),
}


def make_model(output: Output, width: int, dtype: str) -> Model:
    layers: list[dict[str, Any]] = [{"type": "Linear", "input_size": 1, "output_size": width}]
    if not isinstance(output, RegressionOutput):
        layers.append({"type": "Softmax" if width > 1 and isinstance(output, ClassificationOutput) else "Sigmoid"})
    network = build(layers, dtype, rng=np.random.default_rng(0))
    signature = Signature((NumberColumn("size", 1.0, 3.0),), output)
    return Model(network, signature, "", {}, Golden([[1.0]], network(signature.encode([[1.0]], dtype=dtype))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_kind_of_output_has_the_predictions_of_the_service(
    models: Any, store: Store, tmp_path: Path, kind: str, dtype: str
) -> None:
    model = make_model(*OUTPUTS[kind], dtype)
    output = model.signature.output
    store.publish("own", model)
    expected = [prediction_cells(row, output) for row in model.predict([[size] for size in SIZES])]
    parquet.write_table(pa.table({"id": range(5), "size": SIZES}), tmp_path / "rows.parquet", row_group_size=2)
    (tmp_path / "rows.csv").write_text("id,size\n" + "".join(f"{i},{size}\n" for i, size in enumerate(SIZES)))
    for name in ("rows.parquet", "rows.csv"):
        models("predict", "own", f"{tmp_path}/{name}", "--keep", "id", "--output", f"{tmp_path}/{name}-out/")
        parts = [parquet.read_table(path) for path in sorted((tmp_path / f"{name}-out").glob("part-*"))]
        found = [list(row.values())[1:] for part in parts for row in part.to_pylist()]
        assert found == expected
        assert len({part.schema.remove_metadata() for part in parts}) == 1
        models("predict", "own", f"{tmp_path}/{name}", "--keep", "id", "--output", f"{tmp_path}/out.csv")
        header, *rows = csv.reader((tmp_path / "out.csv").read_text().splitlines())
        assert parts[0].column_names == header
        assert rows == [[str(i), *map(str, row)] for i, row in enumerate(expected)]


def test_a_batch_has_fewer_rows_the_more_it_predicts() -> None:
    """A model of 10,201 targets and one input took 4.6 GB for 16,384 rows."""
    inputs = (NumberColumn("a"),)
    few = Signature(inputs, RegressionOutput(("y",), (0.0,), (1.0,)))
    names = tuple(f"y{i}" for i in range(10_000))
    many = Signature(inputs, RegressionOutput(names, (0.0,) * 10_000, (1.0,) * 10_000))
    assert batch_rows(few) == 16_384
    assert batch_rows(many) * 10_000 <= 2**23
