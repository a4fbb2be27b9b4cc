"""scikit-learn's own checks pass, all of them: none is expected to fail."""

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from training.sklearn import ForwardPassClassifier, ForwardPassRegressor

SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "ensemble": 1, "max_iter": 60}


@parametrize_with_checks([ForwardPassClassifier(**SMALL), ForwardPassRegressor(**SMALL)])
def test_small_networks_pass_the_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([ForwardPassClassifier(), ForwardPassRegressor()])
def test_the_default_passes_the_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
