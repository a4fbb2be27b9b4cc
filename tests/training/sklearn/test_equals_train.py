"""An estimator trains what a job of `train init` trains on the same rows: the same network, bit for bit."""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.sklearn.tables import amounts, answers, people
from training.cli.scaffold import draft_job
from training.pipeline.job import from_dict, run
from training.sklearn import ForwardPassClassifier, ForwardPassRegressor
from training.sklearn.columns import read_columns
from training.sklearn.row_order import order_rows


@pytest.mark.parametrize("test", [0.0, 0.2])
@pytest.mark.parametrize("estimator", [ForwardPassClassifier, ForwardPassRegressor])
def test_an_estimator_trains_the_network_of_a_job_of_init(estimator: type, test: float, tmp_path: Path) -> None:
    table = people(90)
    y = answers(table) if estimator is ForwardPassClassifier else amounts(table)
    trained = estimator(max_iter=6, n_iter_no_change=3, test_fraction=test).fit(table, y)
    columns = read_columns(estimator(), table, reset=True).values
    targets = np.searchsorted(trained.classes_, y) if estimator is ForwardPassClassifier else y.to_numpy()
    order = order_rows(columns, targets).rows
    file = tmp_path / "people.csv"
    pd.concat([table, y], axis=1).iloc[order].to_csv(file, index=False)
    content = tomllib.loads(draft_job(file, str(y.name), tmp_path / "people.toml").text)
    content["split"]["test"] = test
    content["train"] |= {"epochs": 6, "early_stopping": {"patience": 3}}
    model = run(from_dict(content, tmp_path)).model
    assert trained.model_.training["metrics"] == model.training["metrics"]
    assert model.network.config() == trained.model_.network.config()
    for (name, found), expected in zip(
        trained.model_.network.arrays().items(), model.network.arrays().values(), strict=True
    ):
        assert found.tobytes() == expected.tobytes(), name
