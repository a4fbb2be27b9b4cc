"""Two trained versions of one job are compared on the same rows, in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_store.evaluation.compare import Comparison, compare
from model_store.registry.store import open_store
from tests.training.streams import job, table
from training.pipeline.job import run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    columns = table(1000)
    rows = [",".join(columns)]
    rows += [
        ",".join("" if cell is None else f'"{cell}"' for cell in row) for row in zip(*columns.values(), strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return tmp_path / "t.csv"


def compared(path: Path, first: dict[str, Any], second: dict[str, Any]) -> Comparison:
    store = open_store(path.parent / "models")
    versions = [run(job(path, **sections), store).version for sections in (first, second)]
    assert all(versions)
    return compare(*((f"m/{v.number}", store.manifest("m", v.number)[1]) for v in versions if v))  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
def test_classifiers_with_other_columns_answer_the_same_rows(path: Path, stream: bool) -> None:
    few = {"data": {"stream": stream, "columns": ["weight"]}}
    found = compared(path, few, {"data": {"stream": stream}, "train": {"epochs": 8}})
    assert (found.same_rows, found.verdict.paired, found.verdict.better) == (True, True, "second")
    assert found.verdict.significant
    assert "McNemar's test in pairs: of the same 200 rows, " in str(found.verdict.method)


@pytest.mark.parametrize("stream", [False, True])
def test_regressions_with_other_columns_answer_the_same_rows(path: Path, stream: bool) -> None:
    data = {"stream": stream, "target": "price"}
    rate = {"train": {"learning_rate": 0.02}}
    found = compared(path, {"data": {**data, "columns": ["weight"]}, **rate}, {"data": data, **rate})
    assert (found.same_rows, found.verdict.paired, found.verdict.better) == (True, True, "second")
    assert found.verdict.significant
    assert "from the errors of the same 200 rows" in str(found.verdict.method)


def test_versions_of_another_seed_answer_other_rows(path: Path) -> None:
    found = compared(path, {}, {"train": {"seed": 1}})
    assert (found.same_rows, found.verdict.paired) == (False, False)


def test_models_evaluated_on_training_rows_record_no_rows(path: Path) -> None:
    outcome = run(job(path, data={"stream": False}, split={"test": 0}))
    assert "held_out" not in outcome.model.training
