"""An ensemble: the average of networks that are each validated on another fold, published as one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact.npz import read, write
from model_store.nn import Average
from tests.training.tables import job, refusal, rows
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


def test_jobs_without_test_rows_or_in_order_of_time_have_no_ensemble(tmp_path: Path) -> None:
    assert "split.test: expected test rows for an ensemble" in refusal(
        tmp_path, rows(40), train={"ensemble": 2}, split={"test": 0}
    )
    assert "train.ensemble: the networks of an ensemble would be validated on rows before" in refusal(
        tmp_path, rows(40), train={"ensemble": 2}, split={"by": "time", "column": "x"}
    )
    assert "train.ensemble: needs the rows in memory" in refusal(
        tmp_path, rows(40), train={"ensemble": 2}, data={"stream": True}
    )
    assert "train.ensemble: expected an integer from 2 to 64, found 1" in refusal(
        tmp_path, rows(40), train={"ensemble": 1}
    )
