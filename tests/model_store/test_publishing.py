"""A network that was trained in Python becomes a version, or an error says what a model file cannot hold."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store import make_signature, open_store, publish
from model_store.errors import ArtifactError, InputError
from model_store.nn import Array, Conv2D, Flatten, Linear, Module, ReLU, Sequential, Sigmoid, Softmax, Tanh
from model_store.registry.store import Store
from model_store.schema.columns import CategoryColumn
from model_store.schema.signature import ArrayColumn, ClassificationOutput, NumberColumn, RegressionOutput, Signature
from training.evaluation.metrics import evaluate

RNG = np.random.default_rng(0)
X = RNG.normal([10, -3], [4, 0.5], (50, 2))
COLUMNS, LABELS = ["length", "width"], ["rose", "lily"]


class Swish(Tanh):
    """A layer of one's own."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "models")


def classifier(*hidden: Module, features: int = 2, outputs: int = 2, dtype: Any = np.float32) -> Sequential:
    rng = np.random.default_rng(1)
    last: Module = Softmax() if outputs > 1 else Sigmoid()
    layers = [Linear(features, 4, rng=rng, dtype=dtype), *hidden, Linear(4, outputs, rng=rng, dtype=dtype), last]
    return Sequential(layers)


def test_a_published_network_answers_as_the_trained_one(store: Store) -> None:
    signature = make_signature(X, columns=COLUMNS, labels=LABELS, offset=X.mean(0), scale=X.std(0), name="flower")
    network = classifier(ReLU())
    version = publish(store, "flowers", network, signature, metrics={"accuracy": np.float32(0.5)}, who="me")
    assert (version.name, version.number) == ("flowers", 1)
    _, model = store.load("flowers")
    rows = X[:5].tolist()
    expected = network((X[:5] - X.mean(0)) / X.std(0))
    assert [list(row["probabilities"].values()) for row in model.predict(rows)] == expected.tolist()
    assert model.predict([dict(zip(COLUMNS, rows[0], strict=True))]) == model.predict(rows[:1])
    assert model.training == {"metrics": {"accuracy": 0.5}}
    assert model.golden is not None
    assert len(model.golden.instances) == 8
    assert all(row not in X.tolist() for row in model.golden.instances)
    assert store.publication("flowers", 1).who == "me"
    assert store.report_location("flowers", 1) is not None
    column = model.signature.inputs[0]
    assert column.training_range() == {"min": X[:, 0].min(), "mean": X[:, 0].mean(), "max": X[:, 0].max()}
    assert column.bins(np.float32) is not None
    assert publish(store, "flowers", network, signature).number == 2


def test_the_mean_of_the_rows_is_the_baseline_of_explanations(store: Store) -> None:
    options = {"offset": X.mean(0), "scale": X.std(0), "labels": LABELS}
    known = make_signature(X, columns=COLUMNS, **options)
    unknown = make_signature(shape=(2,), columns=COLUMNS, **options)
    for name, signature, rows, expected in (
        ("statistics", known, None, np.zeros(2)),
        ("rows", unknown, X[:7], known.encode(X[:7]).mean(axis=0)),
        ("objects", unknown, [dict(zip(COLUMNS, row, strict=True)) for row in X[:7].tolist()], None),
        ("neither", unknown, None, None),
    ):
        publish(store, name, classifier(ReLU()), signature, baseline=rows)
        answers = store.load(name)[1].answers
        if name == "objects":
            expected = store.load("rows")[1].answers.baseline
        if expected is None:
            assert answers is None
        else:
            np.testing.assert_allclose(answers.baseline, expected, rtol=1e-5, atol=1e-6)
    images = RNG.integers(0, 256, (20, 6, 6))
    publish(
        store,
        "images",
        classifier(features=36),
        make_signature(images, scale=255, labels=LABELS),
        baseline=images,
    )
    np.testing.assert_allclose(
        store.load("images")[1].answers.baseline, images.reshape(20, 36).mean(axis=0) / 255, rtol=1e-5
    )


def test_rows_of_the_baseline_that_do_not_fit_are_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_store.artifact.mean_row._PIECE_VALUES", 6)
    signature = make_signature(X, columns=COLUMNS, labels=LABELS)
    for rows, words in (
        ([*X[:7].tolist(), [1, "x"]], "baseline.7.width: expected a number"),
        ([], "baseline: expected one row or more"),
    ):
        with pytest.raises(InputError, match=words):
            publish(store, "flowers", classifier(ReLU()), signature, baseline=rows)
    assert not store.root.exists()


def test_images_regressions_and_single_outputs_are_published(store: Store) -> None:
    images = RNG.integers(0, 256, (20, 6, 6))
    convolution = Sequential([Conv2D((6, 6, 1), 2), ReLU(), Flatten((4, 4, 2)), Linear(32, 3), Softmax()])
    signature = make_signature(images, scale=255, labels=np.arange(3))
    publish(store, "images", convolution, signature, examples=images[:3])
    _, model = store.load("images")
    assert model.golden is not None
    assert model.golden.instances == images[:3].tolist()
    np.testing.assert_array_equal(model.golden.outputs, convolution(images[:3].reshape(3, 36) / 255))
    assert {type(row["label"]) for row in model.predict(images[:3].tolist())} == {int}

    price = make_signature(X, columns=COLUMNS, targets="price", target_offset=100, target_scale=20)
    linear = Sequential([Linear(2, 1)])
    publish(store, "price", linear, price)
    assert store.load("price")[1].predict([[1, 2]]) == [pytest.approx(100 + 20 * float(linear([[1.0, 2.0]])[0, 0]))]

    price = make_signature(X, columns=COLUMNS, targets="price", target_offset=2, target_transform="log")
    publish(store, "price", linear, price)
    expected = math.exp(2 + float(linear([[1.0, 2.0]])[0, 0]))
    assert store.load("price")[1].predict([[1, 2]]) == [pytest.approx(expected)]
    with pytest.raises(ValueError, match=r"target_transform: expected 'log' or 'log1p', found 'sqrt'"):
        make_signature(X, targets="price", target_transform="sqrt")  # type: ignore[arg-type]

    publish(store, "binary", classifier(outputs=1), make_signature(shape=(2,), columns=COLUMNS, labels=LABELS))
    assert set(store.load("binary")[1].predict([[1, 2]])[0]["probabilities"]) == set(LABELS)
    publish(store, "vector", classifier(), make_signature(shape=[2], labels=LABELS))
    assert store.load("vector")[1].signature.inputs[0] == ArrayColumn("x", (2,))


def test_a_store_is_taken_by_its_directory(tmp_path: Path) -> None:
    signature = make_signature(X, columns=COLUMNS, labels=LABELS)
    metrics = evaluate(signature.output, np.array([0, 1, 0]), np.eye(2)[[0, 1, 1]])
    published = publish(str(tmp_path / "models"), "flowers", classifier(), signature, metrics=metrics)
    assert publish(tmp_path / "models", "flowers", classifier(), signature).number == published.number + 1


def test_nested_networks_are_unfolded_and_other_columns_taken(store: Store) -> None:
    nested = Sequential([Sequential([Linear(3, 4), Sequential([Tanh()])]), Linear(4, 2), Softmax()])
    columns = (CategoryColumn("colour", ("blue", "red")), NumberColumn("size", fill=1.0))
    publish(store, "nested", nested, Signature(columns, ClassificationOutput("kind", ("a", "b"))))
    _, model = store.load("nested")
    assert [type(module) for module in model.network.modules] == [Linear, Tanh, Linear, Softmax]
    encoded = model.encode([["red", None]])
    assert model.network(encoded).tolist() == nested(encoded).tolist()


class Halved(Linear):
    """A subclass with another formula."""

    def __call__(self, inputs: Array) -> Array:
        return super().__call__(inputs) / 2


def test_a_signature_of_complex_numbers_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"make_signature\.x: expected numbers, found complex128"):
        make_signature(np.ones((3, 2), complex), columns=COLUMNS, labels=LABELS)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            lambda: classifier(Swish()),
            r"modules\.1: expected a layer that a model file can hold, found Swish of .*; a model",
        ),
        (lambda: Sequential([Sequential([Halved(2, 2)]), Softmax()]), r"modules\.0\.modules\.0: .* found Halved"),
        (Tanh, "expected a Sequential, found Tanh"),
        (lambda: classifier(dtype=np.float16), "expected float32 or float64, found float16; build the network with"),
        (
            lambda: Sequential([Linear(2, 2)]),
            r"modules\.0: expected a Softmax at the end.* found Linear; add Softmax\(\)",
        ),
        (lambda: Sequential([Linear(2, 2), Sigmoid()]), r"modules\.1: expected a Softmax .* found Sigmoid"),
        (lambda: classifier(features=3), "expected 2, the signature's encoded width; found 3"),
        (lambda: classifier(outputs=3), "expected an output size of 2, one output for each label; found 3"),
    ],
)
def test_what_cannot_be_served_is_named_and_not_published(
    store: Store, network: Callable[[], Module], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        publish(store, "m", network(), make_signature(X, columns=COLUMNS, labels=LABELS))
    assert not store.root.exists()


def test_arguments_that_do_not_fit_are_not_published(store: Store) -> None:
    signature = make_signature(X, columns=COLUMNS, labels=LABELS)
    broken = classifier()
    broken.modules[0].arrays()["weights"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"publish\.metrics\.accuracy: expected a finite number, found nan"):
        publish(store, "m", classifier(), signature, metrics={"accuracy": np.nan})
    for metrics, location in (
        ({"accuracy": "high"}, r"accuracy: expected a finite number, found 'high'"),
        ({"accuracy": None}, "accuracy: expected a finite number, found None|null"),
        ({"accuracy": True}, "accuracy: expected a finite number"),
        ({"classes": {"rose": {"f1": "good"}}}, r"classes\.rose\.f1: expected a finite number, found 'good'"),
        ({"accuracy": [0.5]}, "accuracy: expected a finite number, found"),
    ):
        with pytest.raises(ValueError, match=rf"publish\.metrics\.{location}"):
            publish(store, "m", classifier(), signature, metrics=metrics)
    with pytest.raises(InputError, match=r"examples\.0\.width: expected a number, found 'x'"):
        publish(store, "m", classifier(), signature, examples=[[1, "x"]])
    with pytest.raises(ValueError, match="expected a row or more, found none"):
        publish(store, "m", classifier(), signature, examples=[])
    with pytest.raises((ValueError, ArtifactError), match="finite"):
        publish(store, "m", broken, signature)
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"labels": LABELS}, "expected training rows or the shape of one, found neither"),
        ({"x": X}, "expected labels or targets, found neither"),
        ({"x": X, "labels": LABELS, "targets": "t"}, "expected labels or targets, found both"),
        ({"x": X, "labels": ["a"]}, "expected two different labels or more"),
        ({"x": X, "labels": [1, "1"]}, "labels: expected different names, found '1' twice"),
        ({"x": X, "columns": ["a"], "labels": LABELS}, "columns: expected 2 names, found 1"),
        ({"x": X, "columns": ["a", "a"], "labels": LABELS}, "columns: expected different names, found 'a' twice"),
        ({"x": X, "targets": ["a", "a"]}, "targets: expected different names, found 'a' twice"),
        ({"x": X, "columns": COLUMNS, "scale": [1, 0], "labels": LABELS}, "scale: expected numbers above 0, found 0"),
        ({"x": X, "columns": COLUMNS, "offset": [1, 2, 3], "labels": LABELS}, "offset: expected one number or 2"),
        ({"x": X, "scale": [1, 2], "labels": LABELS}, "scale: expected one number for an array"),
        ({"x": X * np.nan, "labels": LABELS}, "x: expected finite numbers"),
        ({"x": X[0], "labels": LABELS}, r"x: expected finite numbers \(rows, features\), found shape \(2,\)"),
    ],
)
def test_arguments_of_a_signature_that_do_not_fit_are_named(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make_signature(**arguments)


def test_several_targets_have_scales_of_their_own() -> None:
    found = make_signature(X, targets=["a", "b"], target_offset=[1, 2], target_scale=[3, 4])
    assert found.output == RegressionOutput(("a", "b"), (1.0, 2.0), (3.0, 4.0))


def test_the_network_is_imported_without_the_store() -> None:
    code = "import sys, model_store.nn; print({'marshmallow', 'model_store.publishing'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        __import__("model_store").nothing  # noqa: B018


def test_masked_values_are_no_training_rows() -> None:
    masked = np.ma.array([[1.0, 999.0]], mask=[[False, True]])
    with pytest.raises(ValueError, match="found masked values"):
        make_signature(masked, columns=["a", "b"], labels=["x", "y"])


@pytest.mark.parametrize("signature", [{"labels": LABELS}, {"targets": "y"}])
@pytest.mark.parametrize("layers", [[], [Tanh()], [Sequential([])]])
def test_a_network_without_weights_is_named(store: Store, layers: list[Module], signature: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"publish\.network: expected at least one layer with weights"):
        publish(store, "flowers", Sequential(layers), make_signature(X, columns=COLUMNS, **signature))


def test_a_single_nested_network_is_unfolded(store: Store) -> None:
    network = Sequential([Sequential([Linear(2, 1, rng=np.random.default_rng(0))])])
    publish(store, "flowers", network, make_signature(X, columns=COLUMNS, targets="y"))
    assert [type(module) for module in store.load("flowers")[1].network.modules] == [Linear]


def test_anything_but_a_signature_is_named(store: Store) -> None:
    with pytest.raises(ValueError, match=r"publish\.signature: expected a Signature, found NoneType"):
        publish(store, "flowers", classifier(), None)  # type: ignore[arg-type]
