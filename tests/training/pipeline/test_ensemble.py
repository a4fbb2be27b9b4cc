"""An ensemble: the average of networks that are each validated on another fold, published as one model."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact.npz import read, write
from model_store.nn import Average
from tests.training.tables import job, refusal, rows
from training.engine.checkpoint import Checkpoint, InterruptedTrainingError
from training.engine.early_stopping import EpochResult
from training.evaluation import metrics
from training.pipeline import network_training
from training.pipeline.cross_validation import cross_validate
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate

TABLE = "x,g,c,y\n" + "".join(f"{i % 17},g{i % 12},{'rst'[i % 3]},{'ab'[(i % 17) > 8]}\n" for i in range(200))
QUANTITY = TABLE.replace(",a\n", ",1.5\n").replace(",b\n", ",7.25\n")


def prepared(folder: Path, table: str = TABLE, **sections: dict[str, Any]) -> PreparedJob:
    sections["train"] = {"ensemble": 3, "learning_rate": 0.1, **sections.get("train", {})}
    return prepare(job(folder, table, **sections))


@pytest.mark.parametrize("table", [TABLE, QUANTITY])
def test_the_model_predicts_the_mean_of_its_networks(tmp_path: Path, table: str) -> None:
    one = prepared(tmp_path, table, data={"task": "classification" if table is TABLE else "regression"})
    model = train_and_evaluate(one).model
    (average,) = model.network.modules
    assert isinstance(average, Average)
    x = np.asarray(one.x_evaluation)
    expected = np.mean([member(x) for member in average.members], axis=0)
    np.testing.assert_allclose(model.network(x), expected, rtol=1e-5, atol=1e-6)
    assert len({member(x).tobytes() for member in average.members}) == 3


def test_test_rows_train_no_network_and_each_other_row_is_validated_once(tmp_path: Path) -> None:
    one = prepared(tmp_path)
    assert one.sizes == {"training": 160, "validation": 0, "test": 40}
    record = train_and_evaluate(one).model.training
    assert record["metrics"]["rows"] == 40
    assert record["ensemble"]["networks"] == 3
    assert record["ensemble"]["out_of_fold"]["rows"] == 160
    assert 0 < record["ensemble"]["out_of_fold"]["accuracy"] <= 1
    assert any("the model is the average of 3 networks" in note for note in record["notes"])


def test_the_artifact_holds_all_networks_and_gives_the_same_answers(tmp_path: Path) -> None:
    one = prepared(tmp_path, train={"early_stopping": {"patience": 1}})
    model = train_and_evaluate(one).model
    write(tmp_path / "m.npz", model)
    again = read(tmp_path / "m.npz")
    assert again.predict(one.evaluation_instances) == model.predict(one.evaluation_instances)
    other = train_and_evaluate(prepared(tmp_path, train={"early_stopping": {"patience": 1}})).model
    assert write(tmp_path / "n.npz", other) == again.digest
    assert json.loads(json.dumps(again.training["job"]))["train"]["ensemble"] == 3
    assert prepare(from_dict(again.training["job"], tmp_path)).sizes == one.sizes


def test_groups_are_not_divided_among_the_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    one = prepared(tmp_path, split={"by": "group", "column": "g"})
    groups = np.array(one.dataset.extra["g"])

    plain = network_training.train_network

    def note(member: PreparedJob, *more: Any) -> Any:
        seen.append((set(groups[member.split.training]), set(groups[member.split.validation])))
        return plain(member, *more)

    monkeypatch.setattr(network_training, "train_network", note)
    train_and_evaluate(one)
    assert len(seen) == 3
    assert all(not trained & validated for trained, validated in seen)
    assert set.union(*(validated for _, validated in seen)) == set(groups[one.split.training])


def test_an_ensemble_is_cross_validated(tmp_path: Path) -> None:
    content = job(tmp_path, TABLE, train={"ensemble": 2, "epochs": 1}, split={"test": 0})
    outcomes = cross_validate(content, 2)
    assert sum(outcome.metrics["rows"] for outcome in outcomes) == 200


@pytest.mark.parametrize("table", [TABLE, QUANTITY])
def test_without_test_rows_the_metrics_are_out_of_fold(tmp_path: Path, table: str) -> None:
    one = prepared(
        tmp_path,
        table,
        data={"task": "classification" if table is TABLE else "regression"},
        split={"test": 0},
        model={"examples": "rows"},
    )
    seen: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
    plain = network_training.train_network

    def note(member: PreparedJob, *more: Any) -> Any:
        trained = plain(member, *more)
        seen.append((member.split.validation, np.asarray(trained.network(np.asarray(member.x_validation)))))
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_training, "train_network", note)
        outcome = train_and_evaluate(one)
    outputs = np.empty((200, one.network_spec.output_size), np.float32)
    for held_out, found in seen:
        outputs[held_out] = found
    record, targets = outcome.model.training, one.dataset.targets
    assert (record["metrics"]["rows"], record["metrics"]["of"]) == (200, "out-of-fold rows")
    assert record["metrics"].items() >= metrics.evaluate(one.signature.output, targets, outputs).items()
    assert record["held_out"]["sha256"] == one.dataset.rows_digest(np.arange(200))
    assert record["linear"] is not None
    diagnostics = record["diagnostics"]
    assert diagnostics["importance"]["rows"] == 200
    if table is TABLE:
        p = outputs[np.arange(200), targets] if outputs.shape[1] > 1 else np.abs(1 - targets - outputs[:, 0])
        assert diagnostics["calibration"]["log_loss"] == pytest.approx(-np.log(p).mean(), rel=1e-4)
    assert any("each row is predicted by the network" in note for note in outcome.notes)
    golden = outcome.model.golden
    assert golden is not None
    np.testing.assert_array_equal(
        golden.outputs, outcome.model.network(np.asarray(one.x_training[: len(golden.outputs)]))
    )


def test_the_only_row_of_a_class_is_not_evaluated_out_of_fold(tmp_path: Path) -> None:
    one = prepared(tmp_path, TABLE + "3,g1,r,once\n", split={"test": 0})
    found = train_and_evaluate(one).metrics
    assert (found["rows"], found["classes"]["once"]["support"]) == (200, 0)


@pytest.mark.parametrize("stopped", [1, 4, 6, 11])
def test_an_interrupted_ensemble_keeps_its_finished_networks_and_resumes_to_the_same_bytes(
    tmp_path: Path, stopped: int
) -> None:
    one = prepared(tmp_path, train={"epochs": 4, "early_stopping": {"patience": 2}, "schedule": {"name": "cosine"}})
    whole = write(tmp_path / "whole.npz", train_and_evaluate(one).model)
    epochs: list[tuple[int, int]] = []
    checkpoint = Checkpoint(tmp_path / "c.npz", one.identity)

    def stop(epoch: EpochResult) -> None:
        epochs.append((epoch.network, epoch.number))
        if len(epochs) == stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedTrainingError):
        train_and_evaluate(one, stop, checkpoint)
    checkpoint.close()
    resumed = Checkpoint(tmp_path / "c.npz", one.identity, resume=True)
    again: list[tuple[int, int]] = []
    outcome = train_and_evaluate(one, lambda epoch: again.append((epoch.network, epoch.number)), resumed)
    resumed.close()
    assert write(tmp_path / "resumed.npz", outcome.model) == whole
    assert min(again, default=(4, 0)) > epochs[-1]


def test_jobs_in_memory_and_not_in_order_of_time_have_ensembles(tmp_path: Path) -> None:
    assert "train.ensemble: the networks of an ensemble would be validated on rows before" in refusal(
        tmp_path, rows(40), train={"ensemble": 2}, split={"by": "time", "column": "x"}
    )
    assert "train.ensemble: expected an integer from 2 to 64, found 1" in refusal(
        tmp_path, rows(40), train={"ensemble": 1}
    )
