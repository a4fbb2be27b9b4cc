"""The estimators: targets, tables, weights, continued training and parameters."""

import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import NotFittedError

from tests.training.sklearn.tables import amounts, answers, people
from training.sklearn import ForwardPassClassifier, ForwardPassRegressor

SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "ensemble": 1, "max_iter": 30}


@pytest.mark.parametrize(
    "labels",
    [np.array([7, 9, 20]), np.array(["a", "b", "ccc"]), np.array([0.0, 1.0, 2.0]), np.array([-1, 0, 1], np.int8)],
    ids=["int", "str", "float", "int8"],
)
def test_predictions_are_the_classes_that_were_given(labels: np.ndarray) -> None:
    x, y = load_iris(return_X_y=True)
    classifier = ForwardPassClassifier(**SMALL).fit(x, labels[y])
    assert classifier.classes_.dtype == labels.dtype
    assert classifier.predict(x).dtype == labels.dtype
    assert classifier.score(x, labels[y]) > 0.9
    assert (labels[classifier.predict_proba(x).argmax(axis=1)] == classifier.predict(x)).all()


def test_nullable_integers_of_pandas_are_integers() -> None:
    x, y = load_iris(return_X_y=True)
    assert ForwardPassClassifier(**SMALL).fit(x, pd.Series(y, dtype="Int64")).predict(x).dtype.kind == "i"


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.02), ("adamw", 0.02), ("rmsprop", 0.01), ("sgd", 0.01)])
def test_optimizers_have_a_rate_and_a_decay_that_fit_them(optimizer: str, rate: float) -> None:
    x, y = load_iris(return_X_y=True)
    classifier = ForwardPassClassifier(ensemble=1, max_iter=40, optimizer=optimizer).fit(x, y)
    section = classifier.model_.training["job"]["train"]
    assert (section["learning_rate"], section.get("weight_decay")) == (rate, 0.1 if optimizer == "adamw" else None)
    assert optimizer not in ("adam", "adamw") or classifier.score(x, y) > 0.9


def test_booleans_are_classes() -> None:
    x, y = load_iris(return_X_y=True)
    classifier = ForwardPassClassifier(**SMALL).fit(x, y == 1)
    assert classifier.predict(x).dtype == bool
    assert classifier.model_.signature.output.labels == ("False", "True")  # type: ignore[union-attr]


def test_a_row_may_have_several_labels() -> None:
    x, y = make_multilabel_classification(n_samples=120, n_classes=3, random_state=0)
    frame = pd.DataFrame(y, columns=["red", "green", "blue"])
    classifier = ForwardPassClassifier(**SMALL).fit(x, frame)
    assert classifier.predict(x).shape == classifier.predict_proba(x).shape == (120, 3)
    assert classifier.model_.signature.output.labels == ("red", "green", "blue")  # type: ignore[union-attr]
    assert classifier.score(x, y) > 0.3  # all three right


def test_several_targets_are_predicted() -> None:
    x, y = load_diabetes(return_X_y=True)
    both = np.column_stack([y, -2 * y])
    regressor = ForwardPassRegressor(**SMALL).fit(x, both)
    assert regressor.predict(x).shape == (442, 2)
    assert regressor.score(x, both) > 0.3


@pytest.mark.parametrize(("name", "expected"), [("price", "price"), ("", "y"), (None, "y")])
def test_a_target_has_the_name_of_a_series(name: str | None, expected: str) -> None:
    x, y = load_diabetes(return_X_y=True)
    regressor = ForwardPassRegressor(**SMALL).fit(x, pd.Series(y, name=name))
    assert regressor.model_.signature.output.names == (expected,)  # type: ignore[union-attr]


def test_columns_of_a_frame_have_the_kinds_that_training_infers() -> None:
    table = people()
    classifier = ForwardPassClassifier(**SMALL).fit(table, answers(table))
    assert {column.name: column.kind for column in classifier.model_.signature.inputs} == {
        "city": "category",
        "mass": "number",
        "sex": "category",
        "member": "category",
        "children": "number",
        "since": "date",
        "price": "number",
    }
    assert classifier.feature_names_in_.tolist() == list(table)
    assert classifier.n_features_in_ == 7
    assert classifier.score(table, answers(table)) > 0.9
    strange = table.head(2).assign(city="Paris", mass=np.nan)
    assert np.isfinite(classifier.predict_proba(strange)).all()


def test_frames_of_pandas_and_of_pyarrow_give_the_same_model() -> None:
    table = people().drop(columns="sex")  # a dictionary of PyArrow, below
    y = answers(table)
    arrow = pa.Table.from_pandas(table.assign(mass=table["mass"].astype("float64[pyarrow]")))
    one, other = (ForwardPassClassifier(**SMALL).fit(x, y) for x in (table, arrow))
    assert one.predict_proba(table).tobytes() == other.predict_proba(arrow).tobytes()


def test_a_dictionary_of_pyarrow_is_a_category() -> None:
    codes = np.arange(60) % 3
    table = pa.table({"code": pa.array([str(code) for code in codes]).dictionary_encode()})
    classifier = ForwardPassClassifier(**SMALL).fit(table, codes)
    assert classifier.model_.signature.inputs[0].kind == "category"
    assert classifier.score(table, codes) == 1


def test_kinds_of_an_array_can_be_stated() -> None:
    x = np.column_stack([np.arange(90) % 3, np.arange(90) / 90])
    y = (x[:, 0] == 1).astype(int)
    classifier = ForwardPassClassifier(**SMALL, kinds={"x0": "category"}).fit(x, y)
    assert [column.kind for column in classifier.model_.signature.inputs] == ["category", "number"]
    assert classifier.model_.signature.inputs[0].categories == ("0", "1", "2")  # type: ignore[attr-defined]
    assert classifier.score(x, y) == 1


def test_texts_that_identify_rows_are_left_out_with_a_note() -> None:
    table = people().assign(code=[f"c{i:04d}" for i in range(120)])
    classifier = ForwardPassClassifier(**SMALL).fit(table, answers(table))
    assert "code" not in classifier.model_.signature.names
    assert "left out columns that identify rows: code" in classifier.notes_[0]
    assert classifier.n_features_in_ == 8


def test_the_order_of_the_rows_does_not_change_the_model() -> None:
    table = people()
    order = np.random.default_rng(1).permutation(len(table))
    one = ForwardPassRegressor(**SMALL).fit(table, amounts(table))
    other = ForwardPassRegressor(**SMALL).fit(table.iloc[order], amounts(table).iloc[order])
    assert one.predict(table).tobytes() == other.predict(table).tobytes()


def test_a_weight_of_a_whole_number_is_as_many_rows() -> None:
    x, y = load_diabetes(return_X_y=True)
    weights = np.random.default_rng(0).integers(0, 4, len(y))
    one = ForwardPassRegressor(**SMALL).fit(x, y, sample_weight=weights)
    other = ForwardPassRegressor(**SMALL).fit(x.repeat(weights, axis=0), y.repeat(weights))
    assert one.predict(x).tobytes() == other.predict(x).tobytes()


def test_a_weight_that_is_a_fraction_multiplies_the_loss() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1))
    group = np.arange(400) % 2
    y = np.where(group, 1.0, -1.0) + rng.normal(scale=0.01, size=400)
    weights = np.where(group, 0.9, 0.1)
    regressor = ForwardPassRegressor(**SMALL).fit(x, y, sample_weight=weights)
    assert regressor.predict(x).mean() == pytest.approx(0.8, abs=0.1)
    assert regressor.model_.training["metrics"]["weight"] == "sample_weight"


def test_partial_fit_learns_from_batches() -> None:
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    classifier = ForwardPassClassifier(hidden_layer_sizes=(16,))
    for _ in range(15):
        for batch in np.array_split(order, 3):
            classifier.partial_fit(x[batch], y[batch], classes=[0, 1, 2])
    assert classifier.score(x, y) > 0.9
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 45
    assert classifier.loss_curve_[-1] < classifier.loss_curve_[0] / 2


def test_partial_fit_continues_from_a_pickle_with_the_same_bits() -> None:
    x, y = load_diabetes(return_X_y=True)
    one = ForwardPassRegressor(hidden_layer_sizes=(8,)).partial_fit(x[:200], y[:200])
    other = pickle.loads(pickle.dumps(one))  # noqa: S301  # our own
    for regressor in (one, other):
        regressor.partial_fit(x[200:], y[200:])
    assert one.predict(x).tobytes() == other.predict(x).tobytes()


def test_partial_fit_continues_all_networks_of_a_fit() -> None:
    x, y = load_diabetes(return_X_y=True)
    regressor = ForwardPassRegressor(hidden_layer_sizes=(8,), ensemble=3, max_iter=5).fit(x, y)
    before = regressor.predict(x)
    regressor.partial_fit(x, y)
    assert len(regressor.model_.network.modules[0].members) == 3  # type: ignore[attr-defined]
    assert (regressor.predict(x) != before).any()


def test_partial_fit_needs_the_classes_once_and_refuses_others() -> None:
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="expected classes, all that y may have, in the first call"):
        ForwardPassClassifier().partial_fit(x, y)
    classifier = ForwardPassClassifier(**SMALL).partial_fit(x[:100], y[:100], classes=[0, 1])
    with pytest.raises(ValueError, match=r"found others: \[2\]"):
        classifier.partial_fit(x, y)


@pytest.mark.parametrize("ensemble", [1, 3])
def test_warm_start_continues_from_the_last_weights(ensemble: int) -> None:
    x, y = load_diabetes(return_X_y=True)
    options: dict[str, Any] = {"hidden_layer_sizes": (8,), "ensemble": ensemble, "max_iter": 10, "random_state": 3}
    warm = ForwardPassRegressor(**options, warm_start=True).fit(x, y)
    first = warm.loss_curve_
    warm.fit(x, y)
    assert warm.loss_curve_[0] < first[0]
    with pytest.raises(ValueError, match=f"set ensemble={ensemble}, or warm_start=False"):
        warm.set_params(ensemble=5).fit(x, y)


def test_class_weights_move_the_decision() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 2)), np.arange(200) % 2
    counts = [
        (ForwardPassClassifier(**SMALL, class_weight=weight).fit(x, y).predict(x) == 0).sum()
        for weight in ({0: 0.05}, {0: 20.0, 1: 1.0})
    ]
    assert counts[0] < 20
    assert counts[1] > 180


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rate": -1.0}, "train.learning_rate: expected a number above 0, found -1.0"),
        ({"activation": "rely"}, "did you mean 'relu'"),
        ({"kinds": {"x9": "category"}}, "unknown input 'x9'"),
        ({"settings": {"data.path": "x.csv"}}, "found 'data.path'"),
        ({"settings": {"train.momentun": 0.5}}, "train.momentun: unknown key"),
        ({"validation_fraction": 2}, "split.validation: expected a fraction"),
    ],
)
def test_invalid_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError) as error:
        ForwardPassClassifier(**parameters).fit(x, y)
    assert message in str(error.value)


def test_parameters_reach_the_job() -> None:
    x, y = load_iris(return_X_y=True)
    classifier = ForwardPassClassifier(
        (8, 4), "tanh", dropout=0.0, optimizer="sgd", learning_rate=np.float64(0.05), weight_decay=0.001, batch_size=16,
        max_iter=np.int64(12), n_iter_no_change=7, ensemble=1, settings={"train.label_smoothing": 0.1},
    ).fit(x, y)  # fmt: skip
    job = classifier.model_.training["job"]
    assert job["network"]["layers"][-4:] == [8, "tanh", 4, "tanh"]
    expected = {
        "optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.001, "batch_size": 16, "epochs": 12,
        "label_smoothing": 0.1, "seed": 0,
    }  # fmt: skip
    assert expected.items() <= job["train"].items()
    assert job["train"]["early_stopping"]["patience"] == 7
    assert len(classifier.loss_curve_) == classifier.n_iter_ == len(classifier.validation_loss_curve_)


def test_without_early_stopping_all_rows_are_trained_on() -> None:
    x, y = load_iris(return_X_y=True)
    classifier = ForwardPassClassifier(**SMALL, early_stopping=False).fit(x, y)
    assert classifier.model_.training["split"] == {"training": 150, "validation": 0, "test": 0}
    assert classifier.n_iter_ == 30


def test_infinite_numbers_and_strange_cells_are_located() -> None:
    table = pd.DataFrame({"a": [1.0, np.inf, 2.0], "b": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"Input X contains infinity: column a: .* in row 1"):
        ForwardPassRegressor().fit(table, [1, 2, 3])
    with pytest.raises(TypeError, match=r"argument must be a string or a.* number, not 'list'"):
        ForwardPassRegressor().fit(pd.DataFrame({"a": [[1], [2], [3]]}), [1, 2, 3])


def test_cells_that_do_not_fit_a_column_are_located_in_predict() -> None:
    table = people()
    classifier = ForwardPassClassifier(**SMALL).fit(table, answers(table))
    with pytest.raises(ValueError, match=r"X\.0\.mass: expected a number, found 'heavy'"):
        classifier.predict(table.head(2).assign(mass=["heavy", "light"]))
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(table.rename(columns={"mass": "weight"}))


def test_columns_of_a_frame_are_taken_by_place_if_fit_had_no_names() -> None:
    x, y = load_iris(return_X_y=True)
    classifier = ForwardPassClassifier(**SMALL).fit(x, y)
    with pytest.warns(UserWarning, match="X has feature names"):
        found = classifier.predict_proba(pd.DataFrame(x, columns=list("abcd")))
    assert found.tobytes() == classifier.predict_proba(x).tobytes()


def test_an_estimator_that_is_not_fitted_predicts_and_publishes_nothing() -> None:
    with pytest.raises(NotFittedError):
        ForwardPassClassifier().predict([[1.0]])
    with pytest.raises(NotFittedError):
        ForwardPassClassifier().publish("models", "none")


def test_nothing_else_imports_scikit_learn() -> None:
    modules = "training, training.cli.main, model_store.cli.main, service.app"
    script = f"import sys, json, {modules}; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"sklearn", "training.sklearn"} & set(json.loads(found.stdout))


def test_without_scikit_learn_the_error_names_the_extra() -> None:
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "sklearn" else find(name, *rest)
import training.sklearn
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "ImportError: training.sklearn needs scikit-learn: pip install 'scikit-learn>=1.8'" in found.stderr
    assert "(the extra 'sklearn')" in found.stderr
