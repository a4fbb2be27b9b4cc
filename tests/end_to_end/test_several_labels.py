"""Rows with any number of labels: trained from a table, published, compared, promoted, served by every protocol."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.cli.main import main as models
from model_store.errors import InputError
from model_store.evaluation.record import TrainingRecord
from model_store.publishing import make_signature, publish
from model_store.registry.promotion import parse_gate
from model_store.registry.store import Store, open_store
from model_store.report.page import render
from model_store.schema.signature import MultiLabelOutput
from service.app import create_app
from service.config import Settings
from training.cli.main import main as train
from training.pipeline.job import from_dict, prepare, run, train_and_evaluate

LABELS = ["action", "comedy", "drama"]
ROW = {"budget": 9.0, "minutes": 95.0, "rated": "PG"}
FORMS: dict[str, dict[str, Any]] = {
    "flags": {"path": "flags.csv", "target": LABELS},
    "stream": {"path": "flags.csv", "target": LABELS, "stream": True},
    "texts": {"path": "texts.csv", "target": "genres", "label_separator": "|"},
    "streamed texts": {"path": "texts.csv", "target": "genres", "label_separator": "|", "stream": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    budget, minutes = rng.normal(0, 3, 400).round(2), rng.normal(100, 10, 400).round(1)
    rated = rng.choice(["G", "PG", "R"], 400)
    has = np.column_stack([budget > 0.5, minutes < 101, (rated == "R") | (minutes > 112)])
    with (path / "flags.csv").open("w") as flags, (path / "texts.csv").open("w") as texts:
        flags.write("budget,minutes,rated,action,comedy,drama\n")
        texts.write("budget,minutes,rated,genres\n")
        for row, present in zip(zip(budget, minutes, rated, strict=True), has, strict=True):
            cells = ",".join(map(str, row))
            flags.write(f"{cells},{','.join('yes' if one else 'no' for one in present)}\n")
            names = [label for label, one in zip(LABELS, present, strict=True) if one]
            texts.write(f"{cells},{'|'.join(names)}\n")
    return path


def content(data: dict[str, Any], **train_section: Any) -> dict[str, Any]:
    section = {"epochs": 40, "optimizer": "adam", "learning_rate": 0.02, **train_section}
    return {"model": {"name": "films"}, "data": data, "network": {"layers": [16, "relu"]}, "train": section}


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    """A model of each form of the target, in the order of FORMS."""
    found = open_store(folder / "models")
    for data in FORMS.values():
        run(from_dict(content(data), folder), found)
    return found


@pytest.fixture(scope="module")
def client(store: Store, folder: Path) -> FlaskClient:
    settings: Any = {"store": str(store.root), "poll_seconds": 0, "cache_dir": str(folder / "cache")}
    return create_app(Settings(**settings)).test_client()


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_trained_model_is_much_better_than_the_frequencies(store: Store, version: int) -> None:
    _, model = store.load("films", version)
    metrics, baseline = model.training["metrics"], model.training["baseline"]
    assert metrics["micro_f1"] > 0.9 > baseline["micro_f1"]
    assert metrics["log_loss"] < baseline["log_loss"] / 2
    assert list(metrics["labels"]) == LABELS
    record = TrainingRecord.parse(json.loads(json.dumps(dict(model.training))))
    assert record.multi_label is not None
    assert None not in (record.baseline, record.linear, record.calibration, record.importance, record.slices)
    assert record.calibration["log_loss"] == pytest.approx(metrics["log_loss"], rel=1e-4)  # type: ignore[index]


@pytest.mark.parametrize("versions", [(1, 3), (2, 4)])
def test_both_forms_of_the_target_give_the_same_network(store: Store, versions: tuple[int, int]) -> None:
    flags, texts = (store.load("films", version)[1] for version in versions)
    for one, other in zip(flags.network.parameters(), texts.network.parameters(), strict=True):
        assert one.tobytes() == other.tobytes()
    assert flags.training["metrics"] == texts.training["metrics"]


def test_the_artifact_keeps_the_output(store: Store) -> None:
    found = npz.read(store.path("films", 3))
    found.check_golden()
    assert found.signature.output == MultiLabelOutput("genres", tuple(LABELS), "|", 0.5)
    assert found.signature.output.columns == ("genres",)
    assert store.load("films", 1)[1].signature.output == MultiLabelOutput("labels", tuple(LABELS))


def test_predictions_have_the_labels_above_the_threshold(client: FlaskClient) -> None:
    (found,) = client.post("/models/films/predict", json={"instances": [ROW]}).json["predictions"]
    assert found["labels"] == ["action", "comedy"]
    assert list(found["probabilities"]) == sorted(LABELS)
    assert all((found["probabilities"][label] >= 0.5) == (label in found["labels"]) for label in LABELS)


def test_the_threshold_of_the_job_decides(folder: Path) -> None:
    cautious = content(FORMS["flags"] | {"label_threshold": 0.999999})
    model = train_and_evaluate(prepare(from_dict(cautious, folder)), diagnostics=False).model
    assert model.predict([ROW | {"budget": 0.4}])[0]["labels"] == []
    assert model.signature.output.public_details()["threshold"] == 0.999999


def test_top_k_leaves_the_most_probable_ones(client: FlaskClient) -> None:
    whole = client.post("/models/films/predict", json={"instances": [ROW]}).json["predictions"][0]
    answer = client.post("/models/films/predict?top_k=2&receipt=true", json={"instances": [ROW]})
    (found,) = json.loads(answer.data)["predictions"]
    ranked = sorted(whole["probabilities"].items(), key=lambda item: -item[1])[:2]
    assert list(found["probabilities"].items()) == ranked
    assert found["labels"] == whole["labels"]


def test_tensors_have_a_flag_for_each_label(client: FlaskClient) -> None:
    (native,) = client.post("/models/films/predict", json={"instances": [ROW]}).json["predictions"]
    expected = [label in native["labels"] for label in LABELS], list(native["probabilities"].values())
    (row,) = client.post("/v1/models/films:predict", json={"instances": [ROW]}).json["predictions"]
    assert (row["labels"], row["probabilities"]) == expected
    named = {"inputs": {name: [value] for name, value in ROW.items()}}
    columns = client.post("/v1/models/films:predict", json=named).json["outputs"]
    assert (columns["labels"], columns["probabilities"]) == tuple([part] for part in expected)
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}
        for name, value in ROW.items()
    ]
    flags, probabilities = client.post("/v2/models/films/infer", json={"inputs": inputs}).json["outputs"]
    assert (flags["name"], flags["datatype"], flags["shape"], flags["data"]) == ("labels", "BOOL", [1, 3], expected[0])
    assert probabilities["data"] == expected[1]
    binary = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    answer = client.post("/v2/models/films/infer", json=binary)
    head = int(answer.headers["Inference-Header-Content-Length"])
    assert list(map(bool, answer.data[head : head + 3])) == expected[0]
    assert client.get("/v2/models/films/config").json["output"][0]["labels"] == LABELS
    info = client.get("/v1/models/films/metadata").json["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert info["outputs"]["labels"]["dtype"] == "DT_BOOL"


def test_hosted_platforms_and_csv_get_the_same_predictions(client: FlaskClient) -> None:
    expected = client.post("/models/films/predict", json={"instances": [ROW]}).json["predictions"]
    assert client.post("/invocations", json={"model": "films", "instances": [ROW]}).json["predictions"] == expected
    body = "budget,minutes,rated,genres\n9.0,95.0,PG,action|comedy\n"  # test files contain the targets, too
    answer = client.post("/models/films/predict", data=body, headers={"Content-Type": "text/csv; header=present"})
    assert answer.json["predictions"] == expected


def test_openapi_describes_the_predictions(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    for path, name in (("/models/films/predict", "films.response"), ("/v1/models/films:predict", "films.v1.response")):
        answer = client.post(path, json={"instances": [ROW]}).json
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(answer, schema)
        (row,) = answer["predictions"]
        row["labels"] = ["western"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(answer, schema)
    about = client.get("/models/films").json
    assert about["output"] == {
        "kind": "labels", "name": "genres", "labels": LABELS, "separator": "|", "threshold": 0.5,
    }  # fmt: skip
    page = client.get("/docs").text
    assert "those with a probability of at least 0.5" in page
    assert "Always predicting the frequency of each label has the log loss" in page


def test_models_predicts_a_file(store: Store, folder: Path) -> None:
    options = ["--store", str(store.root)]
    done = CliRunner().invoke(models, ["predict", "films/3", str(folder / "texts.csv"), "--output", "-", *options])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["genres", *(f"probability_{label}" for label in LABELS)]
    with (folder / "texts.csv").open() as file:
        true = [row["genres"] for row in csv.DictReader(file)]
    assert np.mean([row["genres"] == one for row, one in zip(rows, true, strict=True)]) > 0.8
    done = CliRunner().invoke(models, ["predict", "films", "--row", json.dumps(ROW), *options])
    assert "action, comedy" in done.stdout


def test_versions_are_compared_by_exact_matches(store: Store) -> None:
    done = CliRunner().invoke(models, ["compare", "films/1", "films/2", "--store", str(store.root)])
    assert done.exit_code == 0, done.output
    assert "exact match" in done.stdout
    assert "micro F1" in done.stdout
    done = CliRunner().invoke(models, ["show", "films", "--store", str(store.root)])
    assert "genres: any of action, comedy, drama, from a probability of 0.5" in done.stdout
    assert [parse_gate(f"{name}>=1").better for name in ("exact_match", "micro_f1", "hamming_loss")] == [
        "higher",
        "higher",
        "lower",
    ]
    gates = ["--if", "micro_f1>=0.9", "--if", "hamming_loss<0.1", "--if", "labels.action.f1>0.5"]
    done = CliRunner().invoke(models, ["promote", "films", "3", *gates, "--store", str(store.root)])
    assert done.exit_code == 0, done.output


def test_the_report_shows_each_label(store: Store) -> None:
    page = render(store.load("films", 1)[1], "films/1")
    for part in (
        "Metrics by label",
        "All labels right in",
        "pairs of a row and a label",
        "Errors by slice",
        "of “drama”",
    ):
        assert part in page


@pytest.mark.parametrize("metric", ["exact_match", "hamming_loss", "micro_f1", "macro_f1", "log_loss", "roc_auc"])
def test_early_stopping_watches_a_metric(folder: Path, metric: str) -> None:
    job = content(FORMS["flags"], epochs=6, early_stopping={"patience": 3, "metric": metric}, class_weights="balanced")
    outcome = train_and_evaluate(prepare(from_dict(job, folder)), diagnostics=False)
    assert 1 <= outcome.best_epoch <= outcome.epochs <= 6


def test_an_ensemble_averages_the_probabilities(folder: Path) -> None:
    outcome = train_and_evaluate(prepare(from_dict(content(FORMS["texts"], ensemble=2, epochs=8), folder)))
    assert outcome.model.training["ensemble"]["out_of_fold"].keys() >= {"exact_match", "micro_f1", "log_loss"}
    assert "micro F1" in outcome.notes[0]


def test_train_prints_the_metrics_of_each_label(folder: Path, tmp_path: Path) -> None:
    (folder / "films.toml").write_text(
        '[model]\nname = "films"\n[data]\npath = "flags.csv"\ntarget = ["action", "comedy", "drama"]\n'
        "[train]\nepochs = 3\n"
    )
    done = CliRunner().invoke(train, [str(folder / "films.toml"), "--store", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "exact match  Hamming loss  micro F1  macro F1  log loss" in done.stdout
    assert "baseline always predicts the frequency of each label" in done.stdout
    done = CliRunner().invoke(train, [str(folder / "films.toml"), "--folds", "2"])
    assert "micro f1" in done.stdout
    done = CliRunner().invoke(train, ["check", str(folder / "films.toml")])
    assert "several labels; rows with each label: action" in done.stdout


@pytest.mark.parametrize(
    ("table", "target", "lines"),
    [
        ("flags.csv", "action,comedy, drama", ['target = ["action", "comedy", "drama"]', 'task = "multi_label"']),
        ("texts.csv", "genres", ['target = "genres"', 'label_separator = "|"', 'task = "multi_label"']),
        ("texts.csv", "budget,minutes", ['target = ["budget", "minutes"]', 'task = "regression"']),
    ],
)
def test_init_proposes_several_labels(folder: Path, tmp_path: Path, table: str, target: str, lines: list[str]) -> None:
    job = tmp_path / "job.toml"
    done = CliRunner().invoke(train, ["init", str(folder / table), "--target", target, "-o", str(job)])
    assert done.exit_code == 0, done.output
    written = job.read_text()
    for line in lines:
        assert f"\n{line}" in written
    done = CliRunner().invoke(train, ["check", str(job)])
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(train, ["init", str(folder / table), "--target", "budget,minuets", "-o", str(job)])
    assert "there is no column 'minuets' (did you mean 'minutes'?)" in wrong.output


def test_a_network_of_ones_own_may_have_several_labels(tmp_path: Path) -> None:
    from model_store.nn import Linear, Sequential, Sigmoid, Softmax

    rng = np.random.default_rng(0)
    signature = make_signature(shape=(2,), labels=["a", "b"], multi_label=True)
    network = Sequential([Linear(2, 2, rng=rng, dtype="float32"), Sigmoid()])
    publish(tmp_path / "models", "own", network, signature)
    assert open_store(tmp_path / "models").load("own")[1].predict([[1, 2]])[0].keys() == {"labels", "probabilities"}
    with pytest.raises(ValueError, match="expected a Sigmoid at the end"):
        publish(tmp_path / "models", "own", Sequential([*network.modules[:1], Softmax()]), signature)
    with pytest.raises(ValueError, match="multi_label is for labels"):
        make_signature(shape=(2,), targets=["a", "b"], multi_label=True)


def test_an_output_that_is_not_finite_is_no_prediction(store: Store) -> None:
    _, model = store.load("films", 1)
    with pytest.raises(InputError, match="not finite"):
        Model(model.network, model.signature).signature.decode(np.full((1, 3), np.nan, np.float32))


def test_the_diagnostics_of_many_labels_are_those_of_a_sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 1,000 labels and 100,000 rows took more than 2 GB."""
    monkeypatch.setattr("training.evaluation.diagnostics.MAX_EVALUATION_PAIRS", 60)
    monkeypatch.setattr("training.evaluation.diagnostics._MIN_LABELLED_ROWS", 10)
    record = train_and_evaluate(prepare(from_dict(content(FORMS["flags"], epochs=1), folder))).model.training
    assert record["diagnostics"]["calibration"]["rows"] == 20
    assert record["metrics"]["rows"] == 80
