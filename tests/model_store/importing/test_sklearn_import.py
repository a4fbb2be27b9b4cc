"""Pipelines of scikit-learn become models with the same answers, and what they cannot have is named."""

import json
import pickle
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from skops import io

from model_store.artifact.model import Model
from model_store.cli.main import main
from model_store.errors import ModelImportError
from model_store.importing import files
from model_store.importing.publication import prepare
from model_store.importing.sklearn import skops_file
from model_store.importing.sklearn.pipeline import read_sklearn
from model_store.registry.store import open_store
from tests.test_arrows import ROOT

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
TEXTS = ["island", "sex"]
PENGUINS = pd.read_csv(ROOT / "examples/penguins.csv")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def classifier(**settings: Any) -> MLPClassifier:
    return MLPClassifier((6,), max_iter=15, random_state=0, **settings)


def imported(estimator: Any, directory: Path) -> Model:
    path = directory / "pipeline.skops"
    io.dump(estimator, path)
    return prepare(read_sklearn(path, trust=False))


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as a client sends them, None for a missing value."""
    return [
        {key: None if pd.isna(value) else value for key, value in row.items()}
        for row in table.to_dict(orient="records")
    ]


def check_probabilities(model: Model, estimator: Any, table: pd.DataFrame) -> None:
    """The model's answers are scikit-learn's."""
    predictions = model.predict(rows(table[list(model.signature.names)]))
    found = [list(one["probabilities"].values()) for one in predictions]
    np.testing.assert_allclose(found, estimator.predict_proba(table), rtol=0, atol=1e-5)
    assert [one["label"] for one in predictions] == estimator.predict(table).tolist()


ENCODERS: dict[str, Any] = {
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "without the first": OneHotEncoder(drop="first"),
    "binary": OneHotEncoder(drop="if_binary", handle_unknown="ignore"),
    "infrequent": OneHotEncoder(min_frequency=100, handle_unknown="infrequent_if_exist"),
    "imputed": make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
    "constant": make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder()),
    "ordinal": make_pipeline(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), StandardScaler()
    ),
}


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_a_pipeline_with_text_columns_answers_as_scikit_learn(encoder: Any, tmp_path: Path) -> None:
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    columns = ColumnTransformer([("texts", encoder, TEXTS), ("numbers", numbers, NUMBERS)])
    estimator = make_pipeline(columns, classifier()).fit(PENGUINS[NUMBERS + TEXTS], PENGUINS.species)
    model = imported(estimator, tmp_path)
    assert model.signature.names == (*NUMBERS, *TEXTS)  # in the order that the pipeline was fitted with
    check_probabilities(model, estimator, PENGUINS[NUMBERS + TEXTS])


def test_unknown_categories_are_encoded_as_by_the_pipeline(tmp_path: Path) -> None:
    columns = ColumnTransformer([("texts", ENCODERS["one-hot"], TEXTS)], remainder="drop")
    estimator = make_pipeline(columns, classifier()).fit(PENGUINS[NUMBERS + TEXTS], PENGUINS.species)
    model = imported(estimator, tmp_path)
    assert model.signature.names == tuple(TEXTS)  # the others do not matter
    unknown = PENGUINS[NUMBERS + TEXTS].head(2).assign(island=["Atlantis", None])
    check_probabilities(model, estimator, unknown)


SCALERS = [StandardScaler(), StandardScaler(with_mean=False), MinMaxScaler(), MaxAbsScaler(), RobustScaler()]


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_scaled_numbers_of_the_breast_cancer_table_answer_as_scikit_learn(scaler: Any, tmp_path: Path) -> None:
    table, classes = load_breast_cancer(return_X_y=True, as_frame=True)
    estimator = make_pipeline(scaler, classifier()).fit(table, classes)
    model = imported(estimator, tmp_path)
    assert model.network.output_size == 1  # the probability of the second class
    check_probabilities(model, estimator, table)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_a_regression_of_the_diabetes_table_answers_as_scikit_learn(activation: str, tmp_path: Path) -> None:
    table, targets = load_diabetes(return_X_y=True)
    table *= np.arange(10)  # all have the same variance
    regressor = MLPRegressor(hidden_layer_sizes=(8, 4), activation=activation, max_iter=30, random_state=0)
    estimator = make_pipeline(VarianceThreshold(0.05), StandardScaler(), regressor).fit(table, targets)
    model = imported(estimator, tmp_path)
    chosen = table[:, [int(name[1:]) for name in model.signature.names]]
    assert chosen.shape[1] == 5
    found = model.predict(chosen.tolist())
    np.testing.assert_allclose(found, estimator.predict(table), rtol=1e-5)


def test_several_targets_and_positive_targets_answer_as_scikit_learn(tmp_path: Path) -> None:
    table, targets = load_diabetes(return_X_y=True)
    estimator = MLPRegressor(loss="poisson", hidden_layer_sizes=(4,), max_iter=30, random_state=0).fit(table, targets)
    found = imported(estimator, tmp_path).predict(table.tolist())
    np.testing.assert_allclose(found, estimator.predict(table), rtol=1e-5)
    both = np.column_stack([targets, targets**0.5])
    estimator = MLPRegressor(hidden_layer_sizes=(4,), max_iter=30, random_state=0).fit(table, both)
    answers = [list(one.values()) for one in imported(estimator, tmp_path).predict(table.tolist())]
    np.testing.assert_allclose(answers, estimator.predict(table), rtol=1e-5)


def test_images_without_names_are_one_array(tmp_path: Path) -> None:
    images, digits = load_digits(return_X_y=True)
    images = np.hstack([images, images])  # more than 100 numbers
    estimator = classifier().fit(images, digits)
    model = imported(estimator, tmp_path)
    assert model.signature.table_shape == (128,)
    found = [list(one["probabilities"].values()) for one in model.predict(images.tolist())]
    np.testing.assert_allclose(found, estimator.predict_proba(images), rtol=0, atol=1e-5)


def test_rows_with_several_labels_answer_as_scikit_learn(tmp_path: Path) -> None:
    table, digits = load_digits(return_X_y=True)
    several = np.column_stack([digits % 2 == 0, digits > 4, digits == 7]).astype(int)
    estimator = classifier().fit(table, several)
    predictions = imported(estimator, tmp_path).predict(table.tolist())
    found = [list(one["probabilities"].values()) for one in predictions]
    np.testing.assert_allclose(found, estimator.predict_proba(table), rtol=0, atol=1e-5)


def test_categories_of_numbers_are_texts_of_their_digits(tmp_path: Path) -> None:
    table = np.array([[1.0, 20], [2, 30], [3, 20], [1, 10]] * 5)
    columns = ColumnTransformer([("code", OneHotEncoder(handle_unknown="ignore"), [0])], remainder="passthrough")
    estimator = make_pipeline(columns, StandardScaler(), classifier()).fit(table, ["a", "b", "a", "b"] * 5)
    model = imported(estimator, tmp_path)
    found = model.predict([["1", 20], [3, 20], ["9", 10]])
    expected = estimator.predict_proba(np.array([[1.0, 20], [3, 20], [9, 10]]))
    np.testing.assert_allclose([list(one["probabilities"].values()) for one in found], expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def fitted() -> Any:
    table, classes = load_breast_cancer(return_X_y=True)
    return make_pipeline(StandardScaler(), classifier()).fit(table, classes)


def test_a_pickle_needs_trust(fitted: Any, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.joblib"
    joblib.dump(fitted, path)
    with pytest.raises(ModelImportError, match="--trust, because reading a pickle runs the code in it"):
        read_sklearn(path, trust=False)
    assert prepare(read_sklearn(path, trust=True)).signature.names[0] == "x0"


class _Marker:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_runs_nothing_without_trust(tmp_path: Path) -> None:
    path, created = tmp_path / "pipeline.pkl", tmp_path / "created"
    path.write_bytes(pickle.dumps(_Marker(created)))
    with pytest.raises(ModelImportError):
        read_sklearn(path, trust=False)
    assert not created.exists()


def test_types_that_skops_does_not_trust_are_named(fitted: Any, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.skops"
    io.dump(make_pipeline(FunctionTransformer(Path.touch), classifier()), path)
    with pytest.raises(ModelImportError, match=r"expected types that skops trusts, found .*touch"):
        read_sklearn(path, trust=False)


def test_no_names_are_made_for_columns_that_a_number_claims(tmp_path: Path) -> None:
    estimator = classifier().fit(np.eye(4), [0, 1, 0, 1])
    estimator.n_features_in_ = 60_000_000
    with pytest.raises(
        ModelImportError, match=r"expected at most \d+ more values of a file of this size, found 61440000000"
    ):
        imported(estimator, tmp_path)


def test_no_estimator_starts_the_processes_that_its_file_asks_for(tmp_path: Path) -> None:
    columns = ColumnTransformer([("a", StandardScaler(), [0]), ("b", StandardScaler(), [1])])
    estimator = make_pipeline(columns, classifier()).fit(np.random.default_rng(0).random((8, 2)), [0, 1] * 4)
    columns.n_jobs, columns.verbose = 40, True
    path = tmp_path / "pipeline.joblib"
    joblib.dump(estimator, path)
    loaded = joblib.load(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joblib, "load", lambda _: loaded)
        prepare(read_sklearn(path, trust=True))
    assert (loaded[0].n_jobs, loaded[0].verbose) == (None, False)


def test_a_member_of_a_skops_file_counts_each_time_that_it_is_read(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipeline.skops"
    io.dump(fitted, path)
    monkeypatch.setattr(files, "MIN_UNPACKED_BYTES", 0)
    with zipfile.ZipFile(path) as archive:
        schema = json.loads(archive.read("schema.json"))
    with zipfile.ZipFile(path, "w") as archive:
        array = BytesIO()
        np.save(array, np.zeros(109))
        archive.writestr("big.npy", array.getvalue())
        archive.writestr("schema.json", json.dumps({**schema, "content": [{"file": "big.npy"}] * 10_000}))
    with pytest.raises(ModelImportError, match=r"expected nodes that read at most \d+ bytes, found 10000000"):
        read_sklearn(path, trust=False)


def test_a_large_schema_of_a_skops_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skops_file, "MAX_SCHEMA_BYTES", 1000)
    path = tmp_path / "PIPELINE.SKOPS"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "[" * 1001)
    with pytest.raises(ModelImportError, match=r"schema\.json: expected 1000 bytes at most"):
        read_sklearn(path, trust=False)


UNSUPPORTED = [
    (make_pipeline(PCA(3), classifier()), r"step 'pca' \(PCA\): expected one of"),
    (
        make_pipeline(MinMaxScaler(clip=True), classifier()),
        r"step 'minmaxscaler' .*expected clip=False",
    ),
    (make_pipeline(StandardScaler(), LogisticRegression()), r"step 'logisticregression' .*expected an MLPClassifier"),
    (make_pipeline(SimpleImputer(missing_values=-1), classifier()), r"'simpleimputer' .*missing values to be nan"),
    (make_pipeline(StandardScaler(), OneHotEncoder(handle_unknown="ignore"), classifier()), "expected it before other"),
]


@pytest.mark.parametrize(("estimator", "problem"), UNSUPPORTED, ids=[problem[:30] for _, problem in UNSUPPORTED])
def test_a_step_that_cannot_be_carried_is_named(estimator: Any, problem: str, tmp_path: Path) -> None:
    table, classes = load_breast_cancer(return_X_y=True)
    with pytest.raises(ModelImportError, match=problem):
        imported(estimator.fit(table[:60], classes[:60]), tmp_path)


def test_an_estimator_that_was_not_fitted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelImportError, match="expected a fitted estimator"):
        imported(make_pipeline(StandardScaler(), classifier()), tmp_path)


def test_the_command_publishes_a_version_with_its_source(fitted: Any, tmp_path: Path) -> None:
    path, store = tmp_path / "pipeline.skops", str(tmp_path / "models")
    io.dump(fitted, path)
    described = tmp_path / "signature.json"
    described.write_text('{"labels": ["malignant", "benign"], "name": "diagnosis"}')
    arguments = ["import", str(path), "--name", "cancer", "--store", store, "--signature", str(described)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "Published cancer/1" in result.output
    _, model = open_store(store).load("cancer")
    record = model.training["import"]
    assert (record["format"], record["file"]) == ("scikit-learn", "pipeline.skops")
    assert record["largest_difference"] <= 1e-5
    shown = CliRunner().invoke(main, ["show", "cancer", "--store", store])
    assert "import.sha256" in shown.output
    assert "diagnosis: one of malignant, benign" in shown.output
    table, _ = load_breast_cancer(return_X_y=True)
    answer = model.predict(table[:1].tolist())[0]
    assert list(answer["probabilities"]) == ["malignant", "benign"]
