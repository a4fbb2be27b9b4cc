"""Intervals and sets of the examples hold the truth of held-out rows as often as they promise."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import betabinom

from model_store.artifact.conformal import score_rank
from training.pipeline.job import from_dict, prepare, train_and_evaluate

EXAMPLES = Path(__file__).parents[3] / "examples"
CHANCE = 1e-4  # of a failure, for each example and level
MASS = {"target": "body_mass_g", "columns": ["species", "island", "bill_length_mm", "flipper_length_mm", "sex"]}


@pytest.mark.parametrize(
    ("example", "data", "epochs"),
    [("penguins", {}, 60), ("penguins", MASS, 60), ("digits", {}, 15)],
    ids=["penguins", "masses", "digits"],
)
def test_coverage_of_an_example_is_within_its_bounds(example: str, data: dict[str, Any], epochs: int) -> None:
    """Of m test rows, with scores of n exchangeable ones, the number held is beta-binomial: Vovk 2012, Proposition 2a.

    Sets are not randomised: they hold the truth as often or more often.
    """
    content = tomllib.loads((EXAMPLES / f"{example}.toml").read_text(encoding="utf-8"))
    content["split"] |= {"test": 0.3, "validation": 0.1, "calibration": 0.3}
    content["data"] |= data
    content["train"] |= {"epochs": epochs}
    content["train"].pop("early_stopping", None)
    outcome = train_and_evaluate(prepare(from_dict(content, EXAMPLES)), diagnostics=False)
    table = outcome.model.training["coverage"]
    n, m = table["calibration_rows"], table["rows"]
    assert len(table["levels"]) >= 9
    for one in table["levels"]:
        rank, held = score_rank(n, one["level"]), round(one["covered"] * m)
        number = betabinom(m, rank, n + 1 - rank)
        assert number.cdf(held) > CHANCE, one
        if table["method"] in ("absolute", "normalized"):
            assert number.sf(held - 1) > CHANCE, one
