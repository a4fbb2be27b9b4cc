"""Comparison of versions: the better one, its significance, and all differences that clients must know."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from marshmallow import fields

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.cli import main
from model_store.errors import ArtifactError
from model_store.evaluation.compare import Comparison, compare
from model_store.evaluation.record import TrainingRecord
from model_store.evaluation.row_results import RowResults
from model_store.nn import Linear, Sequential, Softmax, Tanh
from model_store.registry.store import Store
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)

Manifests = Callable[..., dict[str, Any]]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifests:
    """Return the manifest of a model as its artifact has it."""

    def read(model: Model) -> dict[str, Any]:
        npz.write(tmp_path / "model.npz", model)
        return npz.read_manifest(tmp_path / "model.npz")

    return read


def classifier(right: int = 80, rows: int = 100, hidden: int = 4, labels: tuple[str, ...] = ("no", "yes")) -> Model:
    figures = {"precision": 0.5, "recall": 0.5, "f1": right / rows, "support": rows // 2}
    training = {
        "metrics": {
            "rows": rows,
            "of": "test rows",
            "accuracy": right / rows,
            "classes": dict.fromkeys(labels, figures),
        },
        "data": {"sha256": "ab" * 32, "rows": 500},
        "split": {"training": 400, "validation": 0, "test": 100},
        "job": {"model": {"name": "chess"}, "train": {"epochs": hidden, "seed": 0}, "network": {"layers": [hidden]}},
    }
    signature = Signature(
        (NumberColumn("age"), CategoryColumn("town", ("Bath", "York"))), ClassificationOutput("chess", labels)
    )
    network = Sequential([Linear(3, hidden), Tanh(), Linear(hidden, len(labels)), Softmax()])
    return Model(network, signature, training=training)


def with_rows(model: Model, correct: list[bool] | None = None, rows: str = "ab" * 32, **errors: Any) -> Model:
    """Record the results of each row: whether it was answered correctly, or the errors of each target."""
    values = {name: np.asarray(value, np.float32).astype(float) for name, value in errors.items()} or None
    held_out = RowResults(rows, None if correct is None else np.array(correct), values).as_json()
    return Model(model.network, model.signature, training={**model.training, "held_out": held_out})


def with_log_loss(model: Model, loss: float) -> Model:
    bins = [{"low": 0.8, "high": 0.9, "rows": 9, "said": 0.85, "found": 0.8}]
    calibration = {"of": None, "rows": 9, "expected_error": 0.05, "log_loss": loss, "bins": bins}
    return Model(
        model.network, model.signature, training={**model.training, "diagnostics": {"calibration": calibration}}
    )


def regression(*errors: float) -> Model:
    names = tuple(f"y{i}" for i in range(len(errors)))
    targets = {name: {"rmse": error, "mae": error, "r2": 0.5} for name, error in zip(names, errors, strict=True)}
    signature = Signature((NumberColumn("size"),), RegressionOutput(names, (0.0,) * len(names), (1.0,) * len(names)))
    training = {"metrics": {"rows": 40, "of": "test rows", "targets": targets}}
    return Model(Sequential([Linear(1, len(names))]), signature, training=training)


def compared(manifest: Manifests, first: Model, second: Model) -> Comparison:
    return compare(("chess/1", manifest(first)), ("chess/2", manifest(second)))


def test_a_significant_difference_names_the_better_version(manifest: Manifests) -> None:
    found = compared(manifest, classifier(60), classifier(90)).verdict
    assert (found.better, found.significant) == ("second", True)
    assert found.summary.startswith("chess/2 is better: accuracy 30.0 points higher (95 % interval 18.")
    assert compared(manifest, classifier(90), classifier(60)).verdict.better == "first"


def test_a_difference_that_is_not_significant_is_reported_as_such(manifest: Manifests) -> None:
    found = compared(manifest, classifier(80), classifier(82)).verdict
    assert (found.better, found.significant) == ("second", False)
    assert "chess/2 is ahead: accuracy 2.0 points higher, not significant (95 % interval −" in found.summary


def test_versions_that_answered_the_same_rows_are_compared_in_pairs(manifest: Manifests) -> None:
    """950 against 962 of 1,000 correct rows, all of the 950 among the 962: McNemar's p is .0005."""
    first = with_rows(classifier(950, 1000), [True] * 950 + [False] * 50)
    second = with_rows(classifier(962, 1000), [True] * 962 + [False] * 38)
    found = compared(manifest, first, second)
    assert (found.verdict.better, found.verdict.significant, found.verdict.paired) == ("second", True, True)
    assert found.verdict.summary == (
        "chess/2 is better: accuracy 1.2 points higher (95 % interval 0.5 to 2.0 points; p = 0.00049)."
    )
    assert found.verdict.method == (
        "McNemar's test in pairs: of the same 1000 rows, 12 are correct only with chess/2, and 0 only with chess/1."
    )
    assert found.same_rows is True
    swapped = compared(manifest, second, first).verdict
    assert (swapped.better, swapped.significant) == ("first", True)
    assert "12 are correct only with chess/1" in str(swapped.method)


def test_a_tiny_p_value_is_a_bound(manifest: Manifests) -> None:
    first, second = (
        with_rows(classifier(50), [True] * 50 + [False] * 50),
        with_rows(classifier(90), [True] * 90 + [False] * 10),
    )
    assert compared(manifest, first, second).verdict.summary.endswith("points; p < 0.0001).")


def test_many_discordant_rows_make_the_same_difference_insignificant(manifest: Manifests) -> None:
    first = with_rows(classifier(950, 1000), [False] * 38 + [True] * 950 + [False] * 12)
    second = with_rows(classifier(962, 1000), [True] * 962 + [False] * 38)
    found = compared(manifest, first, second).verdict
    assert (found.better, found.significant, found.paired) == ("second", False, True)
    assert "not significant (95 % interval −0.4 to 2.8 points; p = 0.17)" in found.summary


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda model: with_rows(model, [True] * 962 + [False] * 38, "cd" * 32),
            "they were evaluated on different rows",
        ),
        (lambda model: model, "a version was trained by a release that does not record which rows"),
        (with_rows, "the results of so many rows are not kept"),
        (lambda model: with_rows(model, [True] * 900 + [False] * 100), "a version was trained by a release that"),
    ],
)
def test_without_results_of_the_same_rows_the_interval_is_that_of_independent_samples(
    manifest: Manifests, change: Callable[[Model], Model], why: str
) -> None:
    """Rows differ, one version is old, has too many rows, or bits that contradict its accuracy."""
    first = with_rows(classifier(950, 1000), [True] * 950 + [False] * 50)
    for pair in ((first, change(classifier(962, 1000))), (change(classifier(950, 1000)), first)):
        if pair[0].training["metrics"]["accuracy"] == pair[1].training["metrics"]["accuracy"]:
            continue
        found = compared(manifest, *pair).verdict
        assert (found.better, found.significant, found.paired) == ("second", False, False)
        assert "p =" not in found.summary
        assert str(found.method).startswith(f"Newcombe's interval for independent samples, not in pairs: {why}")


def test_regressions_on_the_same_rows_are_compared_in_pairs(manifest: Manifests) -> None:
    rng = np.random.default_rng(0)
    worse = np.abs(rng.standard_normal(40))
    rmse = [float(np.sqrt((worse**2).mean())) * factor for factor in (1, 0.9)]
    first, second = (
        with_rows(regression(value), y0=worse * factor) for value, factor in zip(rmse, (1, 0.9), strict=True)
    )
    found = compared(manifest, first, second).verdict
    assert (found.better, found.significant, found.paired) == ("second", True, True)
    assert found.summary == "chess/2 is better: RMSE 10.0 % lower (95 % interval 10.0 % to 10.0 %)."
    assert found.method == "The interval of the ratio of the RMSEs in pairs, from the errors of the same 40 rows."
    noisy = with_rows(regression(rmse[1]), y0=rng.permutation(worse) * 0.9)
    found = compared(manifest, noisy, first).verdict
    assert (found.better, found.significant, found.paired) == ("first", False, True)
    assert "chess/1 is ahead: RMSE 10.0 % lower, not significant (95 % interval −" in found.summary
    other = with_rows(regression(rmse[1]), None, "cd" * 32, y0=worse * 0.9)
    found = compared(manifest, first, other).verdict
    assert (found.significant, found.paired) == (False, False)
    assert found.summary.endswith("(significance is not tested).")
    assert str(found.method).endswith("they were evaluated on different rows.")


def test_old_and_new_records_of_the_same_split_have_unknown_rows(manifest: Manifests) -> None:
    """The rows of small classes were divided in another way before the digest was recorded."""
    assert compared(manifest, classifier(), with_rows(classifier(81), [True] * 81 + [False] * 19)).same_rows is None
    assert compared(manifest, classifier(), classifier(81)).same_rows is True
    other = with_rows(classifier(), [True] * 80 + [False] * 20, "cd" * 32)
    assert compared(manifest, other, with_rows(classifier(81), [True] * 81 + [False] * 19)).same_rows is False


def test_models_of_equal_accuracy_are_compared_by_log_loss(manifest: Manifests) -> None:
    one, other = with_log_loss(classifier(), 0.5), with_log_loss(classifier(hidden=3), 0.25)
    found = compared(manifest, one, other).verdict
    assert found.summary == "chess/2 is ahead: equal accuracy, lower log loss (0.25 against 0.5)."
    assert compared(manifest, classifier(), classifier()).verdict.summary == "Their accuracy is equal."


def test_a_model_equals_itself(manifest: Manifests) -> None:
    same = manifest(classifier())
    found = compare(("chess/1", same), ("chess/champion", same))
    assert found.verdict.summary == "chess/1 and chess/champion are the same model."
    assert (found.signature, found.layers, found.job, found.same_rows) == ([], [], [], True)


def test_regressions_are_compared_by_rmse(manifest: Manifests) -> None:
    found = compared(manifest, regression(2.0), regression(1.0)).verdict
    assert (found.better, found.summary) == (
        "second",
        "chess/2 is ahead: RMSE 50.0 % lower (significance is not tested).",
    )
    found = compared(manifest, regression(1.0, 8.0), regression(2.0, 9.0)).verdict
    assert (found.better, found.summary) == (
        "first",
        "chess/1 is ahead: RMSE 33.3 % lower, on average over the targets (significance is not tested).",
    )
    assert compared(manifest, regression(1.0), regression(1.0)).verdict.better is None


def test_regressions_of_one_loss_are_compared_by_its_metric(manifest: Manifests) -> None:
    def trained(rmse: float, quantile: float | None = None, **metrics: float) -> Model:
        model = regression(rmse)
        targets = {"y0": {**model.training["metrics"]["targets"]["y0"], **metrics}}
        found = {**model.training["metrics"], "targets": targets, **({"quantile": quantile} if quantile else {})}
        return Model(model.network, model.signature, training={**model.training, "metrics": found})

    found = compared(manifest, trained(1.0, poisson_deviance=0.8), trained(2.0, poisson_deviance=0.4)).verdict
    assert found.summary == "chess/2 is ahead: Poisson deviance 50.0 % lower (significance is not tested)."
    assert found.method is not None
    assert "a version was trained by a release" in found.method
    first, second = (with_rows(trained(rmse, poisson_deviance=rmse), y0=np.full(10, rmse)) for rmse in (1.0, 2.0))
    assert "the Poisson deviance of each row is not kept" in str(compared(manifest, first, second).verdict.method)
    found = compared(manifest, trained(1.0, 0.9, pinball_loss=0.5), trained(2.0, 0.9, pinball_loss=0.4)).verdict
    assert (found.better, "pinball loss 20.0 % lower" in found.summary) == ("second", True)
    found = compared(manifest, trained(1.0, 0.9, pinball_loss=0.5), trained(2.0, 0.5, pinball_loss=0.4)).verdict
    assert found.summary == "Not comparable: they predict different quantiles, 0.9 and 0.5."
    found = compared(manifest, trained(1.0), trained(2.0, poisson_deviance=0.4)).verdict
    assert found.summary.startswith("chess/1 is ahead: RMSE 50.0 % lower")


def test_deviances_and_pinball_losses_of_the_same_rows_are_compared_in_pairs(manifest: Manifests) -> None:
    rng = np.random.default_rng(0)

    def trained(losses: Any, **metrics: float) -> Model:
        values = np.asarray(losses, np.float32).astype(float)
        model = regression(1.0)
        targets = {"y0": {**model.training["metrics"]["targets"]["y0"], "pinball_loss": values.mean(), **metrics}}
        found = {**model.training["metrics"], "rows": len(values), "targets": targets, "quantile": 0.9}
        held_out = RowResults("ab" * 32, None, None, {"y0": values}).as_json()
        return replace(model, training={**model.training, "metrics": found, "held_out": held_out})

    worse = rng.exponential(1.0, 400)
    found = compared(manifest, trained(worse), trained(worse * 0.9)).verdict
    assert (found.better, found.significant, found.paired) == ("second", True, True)
    assert found.summary == "chess/2 is better: pinball loss 10.0 % lower (95 % interval 10.0 % to 10.0 %)."
    words = "The interval of the ratio of the pinball losses in pairs, from the losses of the same 400 rows."
    assert found.method == words
    found = compared(manifest, trained(worse), trained(rng.permutation(worse) * 0.99)).verdict
    assert (found.better, found.significant) == ("second", False)
    assert "not significant" in found.summary
    contradicting = trained(worse, pinball_loss=7.0)
    found = compared(manifest, contradicting, trained(worse * 0.9)).verdict
    assert (found.paired, "a version was trained by a release" in str(found.method)) == (False, True)


def test_metrics_of_training_rows_are_not_comparable(manifest: Manifests) -> None:
    def on_training_rows(model: Model) -> Model:
        metrics = {**model.training["metrics"], "of": "training rows"}
        return Model(model.network, model.signature, training={**model.training, "metrics": metrics})

    found = compared(manifest, classifier(60), on_training_rows(classifier(99))).verdict
    assert (found.better, found.significant) == (None, False)
    assert found.summary == "Not comparable: the metrics of chess/2 were measured on its training rows."
    found = compared(manifest, on_training_rows(regression(2.0)), on_training_rows(regression(1.0))).verdict
    assert found.summary.endswith("the metrics of chess/1 and chess/2 were measured on their training rows.")


@pytest.mark.parametrize("other", [classifier(labels=("no", "maybe", "yes")), regression(1.0)])
def test_models_of_different_outputs_are_not_comparable(manifest: Manifests, other: Model) -> None:
    for found in (compared(manifest, classifier(), other), compared(manifest, other, classifier())):
        assert found.verdict.better is None
        assert "Not comparable: their " in found.verdict.summary


def test_models_without_metrics_are_not_comparable(manifest: Manifests) -> None:
    bare = Model(classifier().network, classifier().signature)
    found = compared(manifest, bare, classifier())
    assert "Not comparable: one of them has no metrics." in found.verdict.summary
    assert found.same_rows is None


def test_only_differences_are_listed(manifest: Manifests) -> None:
    found = compared(manifest, classifier(hidden=4), classifier(hidden=5))
    assert [(row.name, row.first, row.second) for row in found.job] == [
        ("network.layers", [4], [5]),
        ("train.epochs", 4, 5),
    ]
    assert (found.layers[0].first, found.layers[0].second) == ("Linear 3 → 4", "Linear 3 → 5")
    assert found.signature == []
    assert [row.name for row in found.metrics] == ["rows", "accuracy", "F1, no", "F1, yes"]
    assert found.same_rows is True


def test_differences_that_clients_must_know_are_listed(manifest: Manifests) -> None:
    def model(*inputs: Any, labels: tuple[Any, ...] = ("no", "yes")) -> Model:
        signature = Signature(inputs, ClassificationOutput("chess", labels))
        return Model(Sequential([Linear(signature.width, len(labels)), Softmax()]), signature)

    first = model(NumberColumn("age", fill=3.0), CategoryColumn("town", ("Bath", "York")), NumberColumn("height"))
    second = model(
        NumberColumn("height"),
        NumberColumn("age"),
        CategoryColumn("town", ("Bath", "Hull"), unknown="bucket"),
        NumberColumn("weight"),
        labels=("no", "maybe", "yes"),
    )
    found = compared(manifest, first, second).signature
    assert [(row.name, row.first, row.second) for row in found] == [
        ("column age", "number", "number, required"),
        ("column town", "category, York, required", "category, Hull, unknown categories, required"),
        ("column weight", None, "number, required"),
        ("order of columns", ["age", "town", "height"], ["height", "age", "town"]),
        ("labels", ["no", "yes"], ["no", "maybe", "yes"]),
    ]
    small, large = model(ArrayColumn("image", (8, 8), high=16.0)), model(ArrayColumn("image", (4, 4)))
    (row,) = compared(manifest, small, large).signature
    assert (row.first, row.second) == ("array, 8 × 8, None to 16.0", "array, 4 × 4")


def test_statistics_and_scales_are_not_listed(manifest: Manifests) -> None:
    def model(**options: Any) -> Model:
        signature = Signature((NumberColumn("age", **options),), ClassificationOutput("chess", ("no", "yes")))
        return Model(Sequential([Linear(1, 2), Softmax()]), signature)

    found = compared(manifest, model(offset=1.0, fill=2.0, statistics={"mean": 1.0}), model(offset=9.0, fill=3.0))
    assert found.signature == []


def test_different_test_rows_are_detected(manifest: Manifests) -> None:
    other = classifier(81)
    other = Model(other.network, other.signature, training={**other.training, "data": {"sha256": "cd" * 32}})
    assert compared(manifest, classifier(), other).same_rows is False
    streamed = classifier()
    job = {**streamed.training["job"], "data": {"stream": True}}
    streamed = Model(streamed.network, streamed.signature, training={**streamed.training, "job": job})
    assert compared(manifest, classifier(), streamed).same_rows is False
    assert compared(manifest, streamed, streamed).same_rows is True


def test_an_invalid_manifest_raises_artifact_error(manifest: Manifests) -> None:
    sound = manifest(classifier())
    for broken in ({**sound, "layers": [{"type": "Nope"}]}, {**sound, "signature": {}}):
        with pytest.raises(ArtifactError, match="chess/2: "):
            compare(("chess/1", sound), ("chess/2", broken))


def test_a_deeply_nested_job_is_compared(manifest: Manifests) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    model = classifier()
    other = Model(model.network, model.signature, training={**model.training, "job": deep})
    assert compared(manifest, model, other).job


def test_the_command_prints_tables_or_json(store: Store) -> None:
    for model in (classifier(60), classifier(90, hidden=5)):
        store.publish("chess", model)

    def run(*arguments: str) -> str:
        found = CliRunner().invoke(main.main, ["compare", *arguments, "--store", str(store.root)])
        assert found.exit_code == 0, found.output
        return found.stdout

    shown = run("chess/1", "chess")
    for words in ("chess/2 is better", "accuracy", "+0.3", "Linear 3 → 5", "train.epochs"):
        assert words in shown
    data = json.loads(run("chess/1", "chess/2", "--json"))
    assert (data["first"], data["second"]) == ("chess/1", "chess/2")
    assert data["verdict"]["better"] == "second"
    assert data["verdict"]["significant"] is True
    assert data["same_rows"] is True
    assert {"name": "train.epochs", "first": 4, "second": 5} in data["job"]
    store.publish("birds", classifier(60, labels=tuple(f"bird {i}" for i in range(20))))
    assert "12 more with smaller changes" in run("birds", "birds")
    assert CliRunner().invoke(main.main, ["compare", "chess", "go", "--store", str(store.root)]).exit_code == 5


def test_an_rmse_of_0_is_better_than_any_other(manifest: Manifests) -> None:
    found = compared(manifest, regression(0.0), regression(1.0)).verdict
    assert (found.better, found.significant) == ("first", False)
    assert "is ahead: an RMSE of 0" in found.summary
    assert compared(manifest, regression(1.0, 2.0), regression(0.0, 2.0)).verdict.better == "second"
    assert compared(manifest, regression(0.0, 2.0), regression(1.0, 0.0)).verdict.better is None
    assert compared(manifest, regression(0.0), regression(0.0)).verdict.summary == "Their RMSE is equal."


@pytest.mark.parametrize(("errors", "better"), [((1e100, 5e-324), "second"), ((5e-324, 1e100), "first")])
def test_errors_whose_quotient_underflows_or_overflows_are_compared(
    manifest: Manifests, errors: tuple[float, float], better: str
) -> None:
    assert compared(manifest, regression(errors[0]), regression(errors[1])).verdict.better == better


def test_a_confusion_matrix_of_thousands_of_classes_is_rejected_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """380 lists of 10,000 numbers took 21 s."""
    read: list[Any] = []
    monkeypatch.setattr(fields.Integer, "_deserialize", lambda self, value, *_, **__: read.append(value) or value)
    training = {"metrics": {**classifier().training["metrics"], "confusion": [[1] * 10_000] * 380}}
    assert TrainingRecord.parse(training).classification is None
    assert len(read) < 1000
