"""Folders of images: from `train init` to the service, which predicts the bits of the training's own rows."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from model_store.cli.main import main as models
from model_store.registry.store import open_store
from model_store.report.page import render
from service.app import create_app
from service.config import Settings
from tests.image_files import image_file, noise
from training.cli.main import main as train
from training.pipeline.job import from_dict, prepare, run, train_and_evaluate

KINDS = {"png": "PNG", "jpg": "JPEG"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 images of three colours, in PNG and JPEG, and a job that `train init` wrote for them."""
    path = tmp_path_factory.mktemp("images")
    for i in range(90):
        colour, suffix = ("blue", "green", "red")[i % 3], ("png", "jpg")[i // 3 % 2]
        pixels = noise(20 + i % 5, 24, 3, seed=i) // 3
        pixels[..., 2 - i % 3] += 150
        file = path / "colours" / colour / f"{i}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image_file(pixels, KINDS[suffix]))
    found = CliRunner().invoke(train, ["init", str(path / "colours")])
    assert found.exit_code == 0, found.output
    assert "classification of 90 images in 3 classes" in found.output
    return path


@pytest.fixture(scope="module")
def job(folder: Path) -> dict[str, Any]:
    content = tomllib.loads((folder / "colours.toml").read_text())
    content["train"] |= {"epochs": 4, "augment": {"flip": "both", "shift": 0.1, "rotate": 10}}
    del content["train"]["early_stopping"]
    return content


def test_init_measures_size_and_colour(folder: Path) -> None:
    data = tomllib.loads((folder / "colours.toml").read_text())["data"]
    assert data["path"] == "colours/"
    assert data["image"] == {"size": [22, 22], "colour": "rgb", "crop": "center"}
    layers = tomllib.loads((folder / "colours.toml").read_text())["network"]["layers"]
    assert layers[:3] == [{"conv": 16, "kernel": 3}, {"pool": 2}, "relu"]


def test_the_service_predicts_the_bits_of_the_trainings_rows(folder: Path, job: dict[str, Any]) -> None:
    store = open_store(folder / "models")
    outcome = run(from_dict(job, folder), store)
    _, model = store.load("colours")
    assert outcome.metrics["accuracy"] > 0.9
    assert model.signature.inputs[0].image_crop == "center"
    assert "22 × 22 × 3" in render(model, "colours/1")
    prepared = prepare(from_dict(job, folder))
    files = [file for kind in ("blue", "green", "red") for file in sorted((folder / "colours" / kind).iterdir())]
    rows = np.asarray(prepared.encode_rows(np.arange(90)))
    np.testing.assert_array_equal(model.encode([file.read_bytes() for file in files]), rows)
    wanted = model.signature.decode(model.network(rows))
    settings: Any = {"store": str(store.root), "poll_seconds": 0, "cache_dir": str(folder / "cache")}
    client = create_app(Settings(**settings)).test_client()
    sent = {"instances": [{"b64": base64.b64encode(file.read_bytes()).decode()} for file in files]}
    assert client.post("/models/colours/predict?warnings=true", json=sent).json["predictions"] == wanted
    assert client.post("/models/colours/predict", json=client.get("/models/colours/example").json).status_code == 200
    row = json.dumps(sent["instances"][0])
    found = CliRunner().invoke(models, ["predict", "colours", "--row", row, "--json", "--store", str(store.root)])
    assert found.exit_code == 0, found.output
    assert wanted[0]["label"] in found.output
    found = CliRunner().invoke(models, ["predict", "colours", str(files[0]), "--json", "--store", str(store.root)])
    assert json.loads(found.stdout)["predictions"] == wanted[:1]
    found = CliRunner().invoke(
        models, ["predict", "colours", str(folder / "colours"), "--json", "--store", str(store.root)]
    )
    answers = json.loads(found.stdout)
    assert answers["files"] == sorted(map(str, files))
    by_file = dict(zip(answers["files"], answers["predictions"], strict=True))
    for file, expected in zip(files, wanted, strict=True):
        assert by_file[str(file)]["label"] == expected["label"]
        assert by_file[str(file)]["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)


def test_the_same_job_gives_the_same_bytes(folder: Path, job: dict[str, Any]) -> None:
    first, second = (run(from_dict(job, folder), open_store(folder / name)) for name in ("one", "two"))
    assert [(folder / name / "colours" / "1.npz").read_bytes() for name in ("one",)] == [
        (folder / name / "colours" / "1.npz").read_bytes() for name in ("two",)
    ]
    assert first.metrics == second.metrics


def test_augmentation_is_for_images(folder: Path) -> None:
    (folder / "a.csv").write_text("a,b\n" + "1,x\n2,y\n" * 20)
    content = {"model": {"name": "a"}, "data": {"path": "a.csv", "target": "b"}, "train": {"augment": {"shift": 0.1}}}
    (folder / "a.json").write_text(json.dumps(content))
    with pytest.raises(Exception, match=r"train.augment: only for images.*found values of shape \(\)"):
        prepare(from_dict(content, folder))


def test_dense_networks_and_batches_of_all_rows_are_augmented_too(folder: Path, job: dict[str, Any]) -> None:
    content = {**job, "network": {"layers": [8, "relu"]}, "train": {**job["train"], "batch_size": "all"}}
    still = {**content, "train": {**content["train"], "augment": {}}}
    changed, unchanged = (train_and_evaluate(prepare(from_dict(one, folder))) for one in (content, still))
    assert changed.model.training["history"] != unchanged.model.training["history"]


def test_a_test_folder_has_the_classes_of_training(folder: Path, job: dict[str, Any]) -> None:
    content = {**job, "split": {"test_file": "colours/"}}
    prepared = prepare(from_dict(content, folder))
    assert prepared.sizes["test"] == 90
