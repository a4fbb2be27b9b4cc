"""A weak spot from a CSV file to the note of `train`, the record and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from model_store.evaluation.group_metrics import parse_slice_metrics
from model_store.evaluation.record import TrainingRecord
from model_store.report.page import render
from training.pipeline.job import Outcome, from_dict, run


def train(tmp_path: Path, rows: list[str], test: float = 0.3) -> Outcome:
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    content: dict[str, Any] = {
        "model": {"name": "planted"},
        "data": {"path": "rows.csv", "target": "y"},
        "split": {"test": test},
        "network": {"layers": [8, "relu"]},
        "train": {"epochs": 25 if test else 1, "learning_rate": 0.01},
    }
    return run(from_dict(content, tmp_path))


def planted(*, regression: bool) -> list[str]:
    """Return rows whose target is noise if `site` is north, as no model can predict."""
    rng = np.random.default_rng(0)
    rows = ["x,site,y"]
    for _ in range(1500):
        x, site = rng.normal(), rng.choice(["north", "south", "west"])
        noise = rng.normal() * (3 if site == "north" else 0.2)
        y = 3 * x + noise if regression else ("yes" if x + noise > 0 else "no")
        rows.append(f"{x:.4f},{site},{y if isinstance(y, str) else round(y, 4)}")
    return rows


def test_a_planted_weak_spot_is_in_the_note_the_record_and_the_report(tmp_path: Path) -> None:
    for regression, title in ((False, "wrong rows"), (True, "mean absolute error")):
        outcome = train(tmp_path, planted(regression=regression))
        (note,) = [note for note in outcome.notes if note.startswith("weak spot")]
        assert note.startswith("weak spot: site north, ")
        assert title in note
        found = TrainingRecord.parse(json.loads(json.dumps(outcome.model.training)))
        assert found.weak_spots is not None
        (where,) = found.weak_spots["spots"][0]["where"]
        assert (where["column"], where["value"]) == ("site", "north")
        page = render(outcome.model, "planted/1")
        assert "Slices with a higher error" in page
        assert "site north" in page
        (site,) = [one for one in parse_slice_metrics(outcome.model.training) if one["column"] == "site"]
        assert {part["value"] for part in site["slices"]} == {"north", "south", "west"}


def test_weak_spots_are_of_held_out_rows_only(tmp_path: Path) -> None:
    diagnostics = train(tmp_path, planted(regression=False), test=0).model.training["diagnostics"]
    assert "weak_spots" not in diagnostics
    assert diagnostics["slice_metrics"]
