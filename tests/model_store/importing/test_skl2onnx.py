"""Pipelines that skl2onnx converts answer as scikit-learn to 1e-5, whatever encoders, imputers and labels they have."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from model_store.artifact.model import Model
from model_store.errors import ModelImportError
from model_store.importing.onnx.graph import read_onnx
from model_store.importing.publication import prepare

NUMBERS, TEXTS, COUNTS = ["width", "height"], ["size", "colour"], ["rooms"]
TYPES = {
    **dict.fromkeys(NUMBERS, FloatTensorType([None, 1])),
    **dict.fromkeys(TEXTS, StringTensorType([None, 1])),
    **dict.fromkeys(COUNTS, Int64TensorType([None, 1])),
}
NUMBER_STEPS: dict[str, Any] = {
    "as they are": lambda: "passthrough",
    "scaled": StandardScaler,
    "imputed": lambda: make_pipeline(SimpleImputer(), MinMaxScaler()),
}
UNKNOWN: dict[str, Any] = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
ORDER = [["small", "medium", "large"], ["red", "green", "blue"]]


def imputer(fill: str) -> SimpleImputer:
    """Return an imputer of texts, whose missing ones are empty: skl2onnx takes no others."""
    return SimpleImputer(missing_values="", strategy="constant", fill_value=fill)


TEXT_STEPS: dict[str, Any] = {
    "indicators": lambda: OneHotEncoder(handle_unknown="ignore"),
    "all but one indicator": lambda: OneHotEncoder(drop="first"),
    "codes": lambda: OrdinalEncoder(**UNKNOWN),
    "codes in an order": lambda: OrdinalEncoder(categories=ORDER),
    "scaled codes": lambda: make_pipeline(OrdinalEncoder(), StandardScaler()),
    "imputed indicators": lambda: make_pipeline(
        SimpleImputer(missing_values="", strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    ),
    "imputed as a category": lambda: make_pipeline(imputer("no text"), OneHotEncoder()),
    "imputed codes": lambda: make_pipeline(imputer("other"), OrdinalEncoder(**UNKNOWN)),
}
COUNT_STEPS: dict[str, Any] = {
    "as they are": lambda: "passthrough",
    "indicators": lambda: OneHotEncoder(handle_unknown="ignore"),
    "codes": lambda: OrdinalEncoder(**UNKNOWN),
}
LABELS: dict[str, list[Any]] = {
    "two texts": ["no", "yes"],
    "texts": ["low", "high", "middle"],
    "numbers": [7, 0, 3, 12],
}
pytestmark = pytest.mark.filterwarnings("ignore")


def table_of(seed: int, numbers: str, texts: str, labels: list[Any]) -> tuple[pd.DataFrame, list[Any]]:
    """Return rows, in which texts and numbers are missing if their steps impute them, and a label for each."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "width": rng.normal(3, 2, 80).astype(np.float32),
            "height": rng.exponential(9, 80).astype(np.float32),
            "size": rng.choice(ORDER[0], 80),
            "colour": rng.choice(ORDER[1], 80),
            "rooms": rng.integers(0, 5, 80),
        }
    )
    score = table.width + table.rooms + (table.colour == "red")
    for columns, step, missing in ((NUMBERS, numbers, np.nan), (TEXTS, texts, "")):
        if step.startswith("imputed"):
            for column in columns:
                table.loc[rng.random(80) < 0.15, column] = missing
    return table, [labels[i] for i in pd.qcut(score, len(labels), labels=False)]


def fitted(numbers: str, texts: str, counts: str, table: pd.DataFrame, labels: list[Any], seed: int = 0) -> Any:
    steps = [(NUMBER_STEPS[numbers](), NUMBERS), (TEXT_STEPS[texts](), TEXTS), (COUNT_STEPS[counts](), COUNTS)]
    columns = ColumnTransformer([(f"{i}", *step) for i, step in enumerate(steps)])
    return make_pipeline(columns, MLPClassifier((4,), max_iter=5, random_state=seed)).fit(table, labels)


def imported(estimator: Any, *, zipmap: bool | str = True) -> Model:
    types = [(name, TYPES[name]) for name in (*NUMBERS, *TEXTS, *COUNTS)]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        options = {"zipmap": zipmap}
        path.write_bytes(to_onnx(estimator, initial_types=types, options=options).SerializeToString())
        return prepare(read_onnx(path))


def check_answers(model: Model, estimator: Any, table: pd.DataFrame) -> None:
    """Compare probabilities to 1e-5, and labels, of rows as clients send them."""
    found = model.predict(table.astype(object).where(table.notna(), None).to_dict(orient="records"))
    probabilities = [[one["probabilities"][str(label)] for label in estimator.classes_.tolist()] for one in found]
    np.testing.assert_allclose(probabilities, estimator.predict_proba(table), rtol=0, atol=1e-5)
    assert [one["label"] for one in found] == estimator.predict(table).tolist()


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(NUMBER_STEPS)),
    st.sampled_from(sorted(TEXT_STEPS)),
    st.sampled_from(sorted(COUNT_STEPS)),
    st.sampled_from(sorted(LABELS)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_pipeline_of_skl2onnx_answers_as_scikit_learn(
    numbers: str, texts: str, counts: str, labels: str, zipmap: bool, seed: int
) -> None:
    table, target = table_of(seed, numbers, texts, LABELS[labels])
    estimator = fitted(numbers, texts, counts, table, target, seed)
    check_answers(imported(estimator, zipmap=zipmap), estimator, table)


@pytest.mark.parametrize("texts", sorted(TEXT_STEPS))
def test_each_encoding_of_texts_answers_as_scikit_learn(texts: str) -> None:
    """Also for categories that it has not seen, where it accepts them."""
    table, labels = table_of(1, "imputed", texts, LABELS["texts"])
    estimator = fitted("imputed", texts, "codes", table, labels)
    model = imported(estimator)
    check_answers(model, estimator, table)
    if texts in {"indicators", "codes", "imputed indicators", "imputed codes"}:
        check_answers(model, estimator, table.head(3).assign(colour="violet", rooms=77))


def test_columns_of_whole_numbers_are_compared_with_whole_numbers() -> None:
    """onnx's reference evaluator cuts off the fractions of rows that are made up, and would answer others."""
    table, labels = table_of(2, "scaled", "codes", LABELS["two texts"])
    model = imported(fitted("scaled", "codes", "as they are", table, labels))
    assert model.training["import"]["largest_difference"] <= 1e-5
    assert model.golden is not None
    assert {float(row[-1]).is_integer() for row in model.golden.instances} == {True}


def test_an_output_for_each_class_is_refused_with_the_fix() -> None:
    table, labels = table_of(3, "scaled", "codes", LABELS["texts"])
    estimator = fitted("scaled", "codes", "codes", table, labels)
    with pytest.raises(ModelImportError, match=r"found output_label, .*; convert it with options={'zipmap': False}"):
        imported(estimator, zipmap="columns")
