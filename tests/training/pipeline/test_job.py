"""Training a job: what is learned and recorded, and that it repeats bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.errors import InputError
from model_store.registry.store import open_store
from tests.training.tables import job
from training import DivergedError
from training.pipeline.job import PreparedJob, from_dict, load, prepare, run, train_and_evaluate


@pytest.mark.parametrize(
    ("sections", "outputs", "last"),
    [
        ({}, 2, "Softmax"),
        ({"train": {"loss": "binary_cross_entropy"}}, 1, "Sigmoid"),
        ({"network": {"output": "sigmoid"}}, 1, "Sigmoid"),
        ({"network": {"output": "sigmoid"}, "train": {"loss": "mse"}}, 1, "Sigmoid"),
        ({"train": {"loss": "mse"}}, 2, "Softmax"),
    ],
)
def test_two_classes_are_trained_with_one_output_or_two(
    job_file: Path, sections: dict[str, dict[str, Any]], outputs: int, last: str
) -> None:
    overrides = {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}
    prepared = prepare(load(job_file, {"train.epochs": 60, "train.batch_size": 4, **overrides}))
    outcome = train_and_evaluate(prepared)
    assert outcome.model.network.output_size == outputs
    assert outcome.model.network.config()[-1]["type"] == last
    assert outcome.metrics["accuracy"] == 1.0
    predicted = [prediction["label"] for prediction in outcome.model.predict(prepared.evaluation_instances)]
    assert predicted == prepared.evaluation_labels


def test_a_regression_predicts_in_the_targets_units(tmp_path: Path) -> None:
    table = "x,y\n" + "".join(f"{i},{1000 + 50 * i}\n" for i in range(60))
    prepared = prepare(job(tmp_path, table, train={"epochs": 100, "learning_rate": 0.1}))
    outcome = train_and_evaluate(prepared)
    found = outcome.metrics["targets"]["y"]
    assert found["r2"] > 0.999
    assert found["rmse"] < outcome.baseline["targets"]["y"]["rmse"] / 10
    assert outcome.model.predict(prepared.evaluation_instances) == pytest.approx(prepared.evaluation_labels, rel=0.02)


def test_the_metrics_are_those_of_the_models_predictions(job_file: Path) -> None:
    prepared = prepare(load(job_file))
    outcome = train_and_evaluate(prepared)
    predicted = [prediction["label"] for prediction in outcome.model.predict(prepared.evaluation_instances)]
    right = sum(a == b for a, b in zip(predicted, prepared.evaluation_labels, strict=True))
    assert outcome.metrics["accuracy"] == right / len(predicted)


def test_the_record_describes_the_training(job_file: Path) -> None:
    record = train_and_evaluate(prepare(load(job_file, {"publish.alias": "x"}))).model.training
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record) == {
        *(
            "job",
            "data",
            "split",
            "metrics",
            "linear",
            "held_out",
            "baseline",
            "epochs",
            "best_epoch",
            "history",
            "diagnostics",
            "notes",
        ),
    }
    assert set(record["job"]) == {"model", "data", "split", "network", "train", "answers"}
    assert record["job"]["train"]["loss"] == "cross_entropy"
    assert record["job"]["network"]["output"] == "softmax"
    assert record["job"]["data"]["path"] == "flowers.csv"
    assert record["split"] == {"training": 28, "validation": 4, "test": 8}
    assert [point["epoch"] for point in record["history"]] == [1, 2, 3]
    assert set(record["history"][0]) == {"epoch", "loss", "validation_loss"}


def test_the_recorded_job_trains_the_same_model_again(job_file: Path) -> None:
    first = train_and_evaluate(prepare(load(job_file)))
    again = train_and_evaluate(prepare(from_dict(first.model.training["job"], job_file.parent)))
    np.testing.assert_array_equal(first.model.network.parameter_vector, again.model.network.parameter_vector)
    stated = {"notes": None}  # nothing was inferred the second time
    assert again.model.training | stated == first.model.training | stated


def test_without_test_rows_metrics_are_of_the_training_rows_and_say_so(job_file: Path) -> None:
    outcome = train_and_evaluate(prepare(load(job_file, {"split.test": 0, "split.validation": 0})))
    assert (outcome.metrics["of"], outcome.metrics["rows"]) == ("training rows", 40)
    assert "validation_loss" not in outcome.model.training["history"][0]


def test_features_without_training_rows_have_zero_weights(job_file: Path) -> None:
    network = train_and_evaluate(prepare(load(job_file, {"data.unknown": "bucket"}))).model.network
    weights = network.arrays()["modules.0.weights"]
    assert not weights[:, -1].any()
    assert weights[:, :-1].all()


def test_divergence_is_reported_with_epoch_and_step(tmp_path: Path) -> None:
    table = "x,y\n" + "".join(f"{i},{i * i}.5\n" for i in range(60))
    with pytest.raises(DivergedError) as caught:
        train_and_evaluate(
            prepare(job(tmp_path, table, data={"scale": "none"}, train={"learning_rate": 10.0, "epochs": 50}))
        )
    assert caught.value.epoch >= 1
    assert caught.value.step >= 1


def published(job_file: Path, store: Path, seed: int = 0) -> bytes:
    outcome = run(load(job_file, {"train.seed": seed}), open_store(store))
    assert outcome.version is not None
    return Path(outcome.version.location).read_bytes()


def test_the_same_job_and_seed_give_the_same_bytes_in_any_directory(job_file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "some" / "where" / "else"
    shutil.copytree(job_file.parent, moved, ignore=shutil.ignore_patterns("some"))
    first = published(job_file, tmp_path / "a")
    np.random.default_rng(1).random()
    assert published(moved / job_file.name, tmp_path / "b") == first
    assert published(job_file, tmp_path / "c", seed=1) != first
    assert str(tmp_path).encode() not in first


@pytest.mark.parametrize("name", ["xor", "penguins", "digits"])
def test_the_examples_retrain_to_the_same_bytes(examples: Path, tmp_path: Path, name: str) -> None:
    made = load(examples / f"{name}.toml", {"train.epochs": 3})
    digests = {npz.write(tmp_path / f"{i}.npz", train_and_evaluate(prepare(made)).model) for i in range(2)}
    assert len(digests) == 1


def accuracy(prepared: PreparedJob) -> float:
    return float(train_and_evaluate(prepared).metrics["accuracy"])


@pytest.mark.parametrize(("name", "expected"), [("penguins", 0.95), ("digits", 0.94)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_examples_are_learned_with_any_seed(examples: Path, name: str, expected: float, seed: int) -> None:
    assert accuracy(prepare(load(examples / f"{name}.toml", {"train.seed": seed}))) >= expected


def test_xor_is_learned(examples: Path) -> None:
    prepared = prepare(load(examples / "xor.toml"))
    model = train_and_evaluate(prepared).model
    assert model.predict([[0, 0], [0, 1], [1, 0], [1, 1]]) == pytest.approx([0, 1, 1, 0], abs=0.05)


def test_targets_of_any_size_leave_no_infinity_in_the_record(tmp_path: Path) -> None:
    table = "x,y\n" + "".join(f"{i},{(-1) ** i * i}e306\n" for i in range(60))
    outcome = train_and_evaluate(prepare(job(tmp_path, table, train={"epochs": 1})))
    assert 1e306 < outcome.metrics["targets"]["y"]["rmse"] < 1e308
    json.dumps(outcome.model.training, allow_nan=False)


def test_refused_missing_values_are_also_rejected_in_predictions(tmp_path: Path) -> None:
    table = "a,b,y\n" + "".join(f"{i},{'uv'[i % 2]},{'pq'[i % 2]}\n" for i in range(40))
    model = train_and_evaluate(prepare(job(tmp_path, table, data={"missing": "refuse", "columns": ["a", "b"]}))).model
    assert model.predict([[1, "w"]])
    for row in ([None, "u"], [1, None]):
        with pytest.raises(InputError):
            model.predict([row])
