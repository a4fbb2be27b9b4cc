"""The estimators work inside those of scikit-learn."""

from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import AdaBoostRegressor, VotingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.training.sklearn.tables import answers, people
from training.sklearn import ForwardPassClassifier, ForwardPassRegressor

SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "ensemble": 1, "max_iter": 20}


def test_a_pipeline_passes_frames_on() -> None:
    table = people()
    steps = make_column_transformer(
        (StandardScaler(), ["mass"]), remainder="passthrough", verbose_feature_names_out=False
    )
    pipeline = make_pipeline(steps.set_output(transform="pandas"), ForwardPassClassifier(**SMALL))
    pipeline.fit(table, answers(table))
    assert pipeline.score(table, answers(table)) > 0.8
    assert pipeline[-1].feature_names_in_[0] == "mass"


def test_a_grid_search_tries_parameters() -> None:
    x, y = load_iris(return_X_y=True)
    grid = {"learning_rate": np.array([1e-6, 0.02]), "hidden_layer_sizes": [(4,), (16,)]}
    search = GridSearchCV(ForwardPassClassifier(**SMALL), grid, cv=3).fit(x, y)
    assert search.best_params_["learning_rate"] == 0.02
    assert search.best_score_ > 0.9


def test_cross_validation_scores_frames_with_gaps() -> None:
    table = people()
    assert cross_val_score(ForwardPassClassifier(**SMALL), table, answers(table), cv=3).mean() > 0.75
    assert cross_val_predict(
        ForwardPassClassifier(**SMALL), table, answers(table), cv=3, method="predict_proba"
    ).shape == (120, 2)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_probabilities_can_be_calibrated(method: str) -> None:
    x, y = load_iris(return_X_y=True)
    calibrated = CalibratedClassifierCV(ForwardPassClassifier(**SMALL), method=method, cv=3).fit(x, y)
    np.testing.assert_allclose(calibrated.predict_proba(x).sum(axis=1), 1)
    assert calibrated.score(x, y) > 0.9


def test_targets_are_transformed_chained_and_boosted() -> None:
    x, y = load_diabetes(return_X_y=True)
    regressor = ForwardPassRegressor(**SMALL)
    assert TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp).fit(x, y).score(x, y) > 0.3
    assert MultiOutputRegressor(regressor).fit(x, np.column_stack([y, y])).score(x, np.column_stack([y, y])) > 0.3
    assert AdaBoostRegressor(regressor, n_estimators=3, random_state=0).fit(x, y).score(x, y) > 0.3


def test_voters_and_importances() -> None:
    x, y = load_iris(return_X_y=True)
    voters = [("network", ForwardPassClassifier(**SMALL)), ("line", LogisticRegression(max_iter=500))]
    voting = VotingClassifier(voters, voting="soft").fit(x, y)
    assert voting.score(x, y) > 0.9
    importance = permutation_importance(ForwardPassClassifier(**SMALL).fit(x, y), x, y, n_repeats=3, random_state=0)
    assert importance.importances_mean.argmax() in (2, 3)  # the petals


def test_weights_are_routed() -> None:
    x, y = load_iris(return_X_y=True)
    weights = np.where(y == 2, 0, 1)
    with sklearn.config_context(enable_metadata_routing=True):
        classifier = (
            ForwardPassClassifier(**SMALL).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        )
        search = GridSearchCV(classifier, {"dropout": [0.0, 0.1]}, cv=3).fit(x, y, sample_weight=weights)
    assert search.best_estimator_.classes_.tolist() == [0, 1]
