"""Tables of what a model file holds have a bounded number of rows, columns and characters."""

from __future__ import annotations

from typing import Any

import pytest

from model_store.cli import tables
from model_store.evaluation.compare import Comparison, Difference
from model_store.evaluation.verdict import ComparisonVerdict

BOUND = 500


def test_a_comparison_shows_the_first_differences_and_counts_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """16,000 differences of a file of 100 kB took `models compare` 3.5 s."""
    job = [Difference(f"k{i}", i, None) for i in range(16_000)]
    verdict = ComparisonVerdict(None, False, "They differ.")
    found = tables.comparison_tables(Comparison(verdict, None, [], [], [], job), ("a/1", "a/2"))
    assert [table.row_count for table in found] == [0, 0, 0, BOUND]
    tables.print_table(found[-1])
    assert capsys.readouterr().out.rstrip().endswith("15500 more: see --json")


def test_the_tables_of_a_record_are_bounded() -> None:
    record: dict[str, Any] = {f"k{i}": i for i in range(2_000)}
    record |= {f"group{i}": {"a": {"b": 1}} for i in range(2_000)}
    record["wide"] = {"a": {f"c{i}": 1 for i in range(1_000)}}
    found = tables.training_tables({"wide": record.pop("wide"), **record}, "Training")
    assert len(found) == 51
    assert found[0].row_count == BOUND
    assert len(found[1].columns) == 31
    assert tables.notes_table(["x"] * 9_999).row_count == BOUND
    assert len(tables.format_value("x" * 90_000)) < 5_100


def test_tables_of_other_things_are_whole() -> None:
    assert tables.predictions_table([1.0] * 2_000).row_count == 2_000
