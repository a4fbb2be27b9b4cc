"""One table in memory, as a CSV stream and as Parquet is the same data: kinds, labels, task, statistics and errors."""

from __future__ import annotations

import csv
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from model_store.registry.store import open_store
from training.errors import DataError
from training.pipeline.job import PreparedJob, from_dict, prepare, run

ROWS = 300
NUMBERS = np.random.default_rng(0).standard_normal(ROWS)
NEARLY_CONSTANT = [(0.3, 0.1 + 0.2)[i % 2] for i in range(ROWS)]
AB = [("a", "b")[i % 2] for i in range(ROWS)]
FORMS: dict[str, dict[str, Any]] = {
    "csv": {"path": "t.csv"},
    "stream": {"path": "t.csv", "stream": True},
    "parquet": {"path": "t.parquet", "stream": True},
}


def dictionary(unused: int) -> pa.Array:
    """Return the values u and v, from a dictionary with other values too, as a filtered or sliced table has."""
    return pa.DictionaryArray.from_arrays(
        pa.array([i % 2 for i in range(ROWS)], pa.int32()), pa.array(["u", "v", *(f"w{i}" for i in range(unused))])
    )


def write(folder: Path, **columns: Any) -> None:
    content = pa.table(columns)
    parquet.write_table(content, folder / "t.parquet")
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(content.column_names)
        writer.writerows(["" if v is None else v for v in row.values()] for row in content.to_pylist())


def content(form: str, **data: Any) -> dict[str, Any]:
    return {
        "model": {"name": "m"},
        "data": {"target": "y", **FORMS[form], **data},
        "network": {"layers": [4, "tanh"]},
        "train": {"epochs": 2},
    }


def outcomes(folder: Path) -> list[PreparedJob]:
    return [prepare(from_dict(content(form), folder)) for form in FORMS]


def refusals(folder: Path) -> list[str]:
    found = []
    for form in FORMS:
        with pytest.raises(DataError) as caught:
            prepare(from_dict(content(form), folder))
        found.append(str(caught.value))
    return found


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array(NUMBERS), "number"),
        (pa.array(NUMBERS.astype(np.float32)), "number"),
        (pa.array(NUMBERS.astype(np.float16)), "number"),
        (pa.array([None if i % 7 == 0 else i for i in range(ROWS)], pa.int64()), "number"),
        (pa.array([math.nan if i % 7 == 0 else i for i in range(ROWS)], pa.float64()), "number"),
        (pa.array([2**64 - 1 - i * 2**20 for i in range(ROWS)], pa.uint64()), "number"),
        (pa.array([Decimal(i) / 100 for i in range(ROWS)], pa.decimal128(10, 2)), "number"),
        (pa.array([i % 5 for i in range(ROWS)]).dictionary_encode(), "number"),
        (pa.array([f" +{i}. " if i % 5 else "NA" for i in range(ROWS)]), "number"),
        (pa.array(NUMBERS * 1e200), "number"),
        (pa.array(NUMBERS * 1e-200), "number"),
        (pa.array(np.random.default_rng(1).uniform(-1, 1, ROWS) * 1.7e308), "number"),
        (pa.array(NEARLY_CONSTANT), "number"),
        (dictionary(1), "category"),
        (dictionary(2000), "category"),
        (pa.array([" Dream", "NA", "Dream "] * (ROWS // 3)), "category"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_column_has_the_same_kind_and_statistics(tmp_path: Path, values: pa.Array, kind: str) -> None:
    write(tmp_path, x=values, y=AB)
    in_memory, *streams = outcomes(tmp_path)
    (expected,) = in_memory.signature.inputs
    every = in_memory.dataset.inputs["x"]
    for found in (prepared.signature.inputs[0] for prepared in streams):
        assert (found.kind, found.is_constant, found.width) == (kind, expected.is_constant, expected.width)
        if kind == "number":  # of other rows, as the split differs
            spread = float(np.nanmax(np.abs(every)))
            assert found.offset / spread == pytest.approx(expected.offset / spread, abs=0.2)
            assert found.scale == pytest.approx(expected.scale, rel=0.3)
    assert streams[0].signature == streams[1].signature


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (dictionary(1), ("u", "v")),
        (pa.array([2**53 + i % 2 for i in range(ROWS)]), (str(2**53), str(2**53 + 1))),
        (pa.array([2**64 - 1 - i % 2 for i in range(ROWS)], pa.uint64()), (str(2**64 - 2), str(2**64 - 1))),
        (pa.array([i % 5 for i in range(ROWS)], pa.int8()), (0, 1, 2, 3, 4)),
        (pa.array([None if i % 7 == 0 else float(i % 2) for i in range(ROWS)]), (0, 1)),
        (pa.array(NUMBERS * 1e200), ()),
        (pa.array(NUMBERS * 1e-200), ()),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_target_has_the_same_task_and_labels(tmp_path: Path, values: pa.Array, labels: tuple[object, ...]) -> None:
    write(tmp_path, x=NUMBERS, y=values)
    assert [prepared.dataset.labels for prepared in outcomes(tmp_path)] == [labels] * 3


def with_infinity(values: Any, row: int = 5) -> pa.Array:
    found = np.array(values, np.float64)
    found[row] = -math.inf
    return pa.array(found)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"x": with_infinity(NUMBERS), "y": AB}, "column x: expected a finite number, found"),
        ({"x": with_infinity([i % 5 for i in range(ROWS)]), "y": AB}, "column x: expected a finite number, found"),
        ({"x": NUMBERS, "y": with_infinity(NUMBERS)}, "column y: expected a finite number, found"),
        ({"x": NUMBERS, "y": with_infinity([i % 5 for i in range(ROWS)])}, "column y: expected a finite number, found"),
        ({"x": NUMBERS, "y": NEARLY_CONSTANT}, "expected a target that varies, found 0.3"),
        ({"x": NUMBERS, "y": [f"name {i}" for i in range(ROWS)]}, "column y: too many classes: 300 in 300 rows"),
    ],
)  # fmt: skip
def test_invalid_values_are_the_same_error(tmp_path: Path, columns: dict[str, Any], expected: str) -> None:
    write(tmp_path, **columns)
    for found in refusals(tmp_path):
        assert expected in found


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_durations_are_numbers_of_seconds(tmp_path: Path, unit: str) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    waits = [None if i % 9 == 0 else i * per_second * 3 // 2 for i in range(ROWS)]
    write(tmp_path, wait=pa.array(waits, pa.duration(unit)), emb=pa.array([[1.0, 2.0]] * ROWS), y=AB)
    for stream in (False, True):
        data = {**content("parquet"), "data": {"path": "t.parquet", "target": "y", "stream": stream}}
        prepared = prepare(from_dict(data | {"split": {"test": 0, "validation": 0}}, tmp_path))
        (wait,) = prepared.signature.inputs
        assert wait.kind == "number"
        assert wait.statistics["max"] == 299 * per_second * 3 // 2 / per_second
        assert wait.statistics["missing"] == 34
        assert "ignored columns (lists, structures, bytes or the index of pandas): emb" in prepared.notes


@pytest.mark.parametrize("form", FORMS)
def test_a_constant_up_to_rounding_does_not_move_an_answer(tmp_path: Path, form: str) -> None:
    write(tmp_path, x=NUMBERS, c=NEARLY_CONSTANT, y=AB)
    outcome = run(from_dict({**content(form), "train": {"epochs": 3, "optimizer": "adam"}}, tmp_path))
    usual, other = outcome.model.network(outcome.model.encode([[1.0, 0.3], [1.0, 100.0]]))
    np.testing.assert_allclose(usual, other, atol=1e-6)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_numbers_far_from_1_are_learned_and_published_like_others(tmp_path: Path, stream: bool, unit: float) -> None:
    write(tmp_path, x=NUMBERS * unit, y=NUMBERS * 3 * unit)
    data = {"path": "t.csv", "target": "y", "stream": stream}
    train = {"epochs": 60, "learning_rate": 0.1}
    found = run(
        from_dict({"model": {"name": "m"}, "data": data, "train": train}, tmp_path),
        open_store(str(tmp_path / "models")),
    )
    assert found.metrics["targets"]["y"]["r2"] > 0.99
    assert found.model.predict([[0.5 * unit]])[0] / unit == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("stream", [False, True])
def test_long_doubles_are_trained_and_published(tmp_path: Path, stream: bool) -> None:
    np.savez(tmp_path / "t.npz", x=NUMBERS.reshape(-1, 2).astype(np.longdouble), y=np.arange(ROWS // 2) % 2)
    data = {"path": "t.npz", "stream": stream}
    outcome = run(
        from_dict({"model": {"name": "m"}, "data": data, "train": {"epochs": 1}}, tmp_path),
        open_store(str(tmp_path / "models")),
    )
    assert outcome.version is not None


def test_a_scaled_number_that_does_not_fit_is_reported_with_its_column(tmp_path: Path) -> None:
    write(tmp_path, x=NUMBERS * 1e200, y=AB)
    for form in FORMS:
        with pytest.raises(DataError, match=r"column x: .*fit.* float32 \(.*write dtype = 'float64' in \[network\]"):
            prepare(from_dict(content(form, scale="none"), tmp_path))
