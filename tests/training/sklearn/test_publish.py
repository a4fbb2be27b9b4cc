"""A published estimator is a version like any other: the service answers it with the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient
from sklearn.datasets import load_diabetes, make_multilabel_classification

from model_store.registry.store import Store, open_store
from service.app import create_app
from service.config import Settings
from tests.training.sklearn.tables import amounts, answers, people
from training.sklearn import ForwardPassClassifier, ForwardPassRegressor

SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "max_iter": 20}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "models")


def client(store: Store) -> FlaskClient:
    settings: Any = {"store": str(store.root), "poll_seconds": 0, "cache_dir": f"{store.root}-cache"}
    return create_app(Settings(**settings)).test_client()


def instances(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as a client has them: JSON values by the names of columns."""
    cells = table.assign(since=table["since"].astype(str)).astype(object)
    rows = cells.where(table.notna(), None).to_dict("records")
    return [{name: None if pd.isna(value) else value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("ensemble", [1, 3])
def test_the_service_answers_a_classifier_with_the_same_bits(store: Store, ensemble: int) -> None:
    table = people()
    classifier = ForwardPassClassifier(**SMALL, ensemble=ensemble).fit(table, answers(table))
    version = classifier.publish(store, "answers", description="of people")
    assert (version.name, version.number) == ("answers", 1)
    answer = client(store).post("/models/answers/predict", json={"instances": instances(table)}).get_json()
    served = [list(one["probabilities"].values()) for one in answer["predictions"]]
    assert np.array(served, np.float32).tobytes() == classifier.predict_proba(table).tobytes()
    assert [one["label"] for one in answer["predictions"]] == classifier.predict(table).tolist()
    assert list(answer["predictions"][0]["probabilities"]) == classifier.classes_.tolist()


@pytest.mark.parametrize("ensemble", [1, 3])
def test_the_service_answers_a_regressor_with_the_same_bits(store: Store, ensemble: int) -> None:
    table = people()
    regressor = ForwardPassRegressor(**SMALL, ensemble=ensemble).fit(table, amounts(table))
    regressor.publish(store, "amounts")
    answer = client(store).post("/models/amounts/predict", json={"instances": instances(table)}).get_json()
    assert np.array(answer["predictions"]).tobytes() == regressor.predict(table).tobytes()


def test_the_service_answers_several_targets_and_labels_with_the_same_bits(store: Store) -> None:
    x, y = load_diabetes(return_X_y=True)
    regressor = ForwardPassRegressor(**SMALL, ensemble=1).fit(x, np.column_stack([y, -y]))
    regressor.publish(store, "both")
    z, labels = make_multilabel_classification(n_samples=80, n_classes=3, random_state=0)
    classifier = ForwardPassClassifier(**SMALL, ensemble=1).fit(z, labels)
    classifier.publish(store, "labels")
    served = client(store)
    answer = served.post("/models/both/predict", json={"instances": x.tolist()}).get_json()
    found = np.array([list(one.values()) for one in answer["predictions"]])
    assert found.tobytes() == regressor.predict(x).tobytes()
    answer = served.post("/models/labels/predict", json={"instances": z.tolist()}).get_json()
    found = np.array([list(one["probabilities"].values()) for one in answer["predictions"]], np.float32)
    assert found.tobytes() == classifier.predict_proba(z).tobytes()


def test_a_version_has_the_record_and_the_report_of_a_training(store: Store) -> None:
    table = people()
    classifier = ForwardPassClassifier(**SMALL, ensemble=3).fit(table, answers(table))
    version = classifier.publish(store, "answers", description="of people")
    _, model = store.load("answers", 1)
    assert model.description == "of people"
    assert model.training["job"]["model"]["name"] == "answers"
    assert model.training["job"]["data"]["kinds"]["city"] == "category"
    assert "path" not in model.training["job"]["data"]
    assert model.training["metrics"]["rows"] == 120
    assert "Rome" in Path(version.location).with_suffix(".html").read_text(encoding="utf-8")
    assert store.publish("copy", classifier.model_).digest != version.digest


def test_a_share_of_the_rows_can_be_held_out_for_the_record(store: Store) -> None:
    table = people()
    classifier = ForwardPassClassifier(**SMALL, ensemble=1, test_fraction=0.25).fit(table, answers(table))
    version = classifier.publish(store, "answers")
    record = store.load("answers", 1)[1].training
    assert record["metrics"]["of"] == "test rows"
    assert record["split"]["test"] == record["metrics"]["rows"] == 30
    assert {"diagnostics", "held_out", "linear"} <= record.keys()
    assert "importance" in Path(version.location).with_suffix(".html").read_text(encoding="utf-8")


def test_equal_rows_publish_equal_digests_in_any_order(store: Store) -> None:
    table = people()
    digests = [
        ForwardPassClassifier(**SMALL, ensemble=1).fit(part, answers(part)).publish(store, "answers").digest
        for part in (table, table.sample(frac=1, random_state=0))
    ]
    assert digests[0] == digests[1]


def test_a_model_of_partial_fit_is_published(store: Store) -> None:
    x, y = load_diabetes(return_X_y=True)
    regressor = ForwardPassRegressor(hidden_layer_sizes=(8,)).partial_fit(x[:300], y[:300])
    regressor.partial_fit(x[300:], y[300:])
    regressor.publish(str(store.root), "steps")
    answer = client(store).post("/models/steps/predict", json={"instances": x[:9].tolist(), "explain": True}).get_json()
    assert np.array(answer["predictions"]).tobytes() == regressor.predict(x[:9]).tobytes()
    baseline = regressor.model_.answers.baseline
    np.testing.assert_allclose(baseline, regressor.model_.encode(x).mean(axis=0), rtol=1e-5, atol=1e-6)
    for explanation in answer["explanations"]:
        total = sum(explanation["contributions"].values())
        assert total == pytest.approx(explanation["answer"] - explanation["baseline"], rel=1e-3)


def test_partial_fit_after_fit_counts_the_rows_of_both() -> None:
    x, y = load_diabetes(return_X_y=True)
    regressor = ForwardPassRegressor(**SMALL, validation_fraction=0).fit(x[:300], y[:300])
    regressor.partial_fit(x[300:], y[300:])
    baseline = regressor.model_.answers.baseline
    np.testing.assert_allclose(baseline, regressor.model_.encode(x).mean(axis=0), rtol=1e-4, atol=1e-5)


def test_partial_fit_on_a_pickle_of_an_earlier_version_has_no_baseline() -> None:
    """It does not know the rows before."""
    x, y = load_diabetes(return_X_y=True)
    regressor = ForwardPassRegressor(hidden_layer_sizes=(8,)).partial_fit(x, y)
    del regressor._trained.__dict__["mean"]
    assert regressor.partial_fit(x, y).model_.answers is None
