"""Values that training never had do not change an answer, whatever the first layer is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.nn import ConstantInputs, Linear
from training.errors import JobError
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate

FIRST_LAYERS: list[list[Any]] = [
    [8, "relu"],
    [{"dropout": 0.2}, 8],
    ["batch_norm", 8, "relu"],
    ["layer_norm", 8],
    ["sigmoid", 8],
    ["gelu", "batch_norm", 8],
    [{"dropout": 0.1}, "layer_norm", 8],
    ["smooth_clip", {"periodic": 4}, "feature_scale", 8, {"parametric": "selu"}],
    [],
]
FIRST_IMAGE_LAYERS: list[list[Any]] = [
    [{"conv": 3}, "relu", 6],
    ["batch_norm", "flatten", 6],
    [{"conv": 2}, "layer_norm", 5],
    [{"pool": 2}, {"conv": 2, "kernel": 2}],
    ["flatten", 6],
    [{"dropout": 0.1}, "flatten", 6],
    [6, "tanh"],
]


def prepared(folder: Path, layers: list[Any], path: str, **data: Any) -> PreparedJob:
    train = {"epochs": 4, "batch_size": 16, "learning_rate": 0.05, **data.pop("train", {})}
    content = {"model": {"name": "m"}, "data": {"path": path, **data}, "network": {"layers": layers}, "train": train}
    return prepare(from_dict(content, folder))


def trained(*arguments: Any, **data: Any) -> Model:
    return train_and_evaluate(prepared(*arguments, **data)).model


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a table with a category, a number, and two columns with one value."""
    rng = np.random.default_rng(0)
    rows = [f"{'abc'[i % 3]},{rng.standard_normal():.3f},5.5,only,{'xy'[i % 2]}" for i in range(120)]
    (tmp_path / "d.csv").write_text("colour,n,constant,same,t\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("layers", "scale", "stream"),
    [
        *((layers, "standard", False) for layers in FIRST_LAYERS),
        ([8], "none", False),
        ([8, "relu"], "none", True),
        (["layer_norm", 8], "none", True),
    ],
    ids=str,
)
def test_a_constant_column_and_an_unknown_category_do_not_change_an_answer(
    table: Path, layers: list[Any], scale: str, stream: bool
) -> None:
    model = trained(table, layers, "d.csv", target="t", scale=scale, unknown="bucket", stream=stream)
    constant, bucket, same = (model.signature.names.index(name) for name in ("constant", "colour", "same"))
    row: list[Any] = ["a", 0.3, 5.5, "only"]
    assert (bucket, constant, same) == (0, 2, 3)
    expected = model.predict([row])
    assert model.predict([["a", 0.3, 1e6, "only"]]) == expected
    assert model.predict([["a", 0.3, -7, "other"]]) == expected
    # An unknown category is a row without any of the known ones: its own feature adds nothing.
    x = model.encode([["zebra", 0.3, 5.5, "only"]])
    features = {column.name: column.width for column in model.signature.inputs}
    assert x[0, features["colour"] - 1] == 1
    without = x.copy()
    without[0, features["colour"] - 1] = 0
    assert model.network(x).tolist() == model.network(without).tolist()


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("layers", FIRST_IMAGE_LAYERS, ids=str)
def test_a_pixel_that_is_always_off_does_not_change_an_answer(tmp_path: Path, layers: list[Any], floats: bool) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 200, (80, 6, 6)), np.arange(80) % 2
    x[:, 0], x[y == 1, 3] = 0, 220
    np.savez(tmp_path / "d.npz", x=(x / 220).astype(np.float32) if floats else x.astype(np.uint8), y=y)
    model = trained(tmp_path, layers, "d.npz")
    image = (x[:4] / 220) if floats else x[:4]
    lit = image.copy()
    lit[:, 0] = 1 if floats else 90
    assert model.predict(image.tolist()) == model.predict(lit.tolist())
    assert model.predict(image.tolist()) != model.predict(image[::-1].tolist())
    npz.write(tmp_path / "m.npz", model)
    read = npz.read(tmp_path / "m.npz")
    read.check_golden()
    assert read.predict(lit.tolist()) == model.predict(lit.tolist())


def test_a_network_that_begins_with_a_dense_layer_keeps_its_layers(table: Path) -> None:
    for layers, held in (([8], False), ([{"dropout": 0.2}, 8], False), (["layer_norm", 8], True)):
        network = trained(table, layers, "d.csv", target="t", unknown="bucket").network
        assert isinstance(network.modules[0], ConstantInputs) == held
        if not held:
            first = next(module for module in network.modules if isinstance(module, Linear))
            assert not first.weights[:, [3, 5, 6, 7]].any()  # no such colour; constant; same, and no such
    varied = trained(table, ["layer_norm", 8], "d.csv", target="t", columns=["n", "colour"], unknown="refuse").network
    assert not isinstance(varied.modules[0], ConstantInputs)


def test_batch_norm_needs_batches_of_two_rows(table: Path) -> None:
    with pytest.raises(JobError) as caught:
        prepared(table, ["batch_norm", 8], "d.csv", target="t", train={"batch_size": 1})
    (fault,) = caught.value.faults
    assert fault.location == "train.batch_size"
    assert fault.problem.startswith("expected batches of two rows or more for the BatchNorm at modules.0")
    rows = prepared(table, [8], "d.csv", target="t").sizes["training"]
    job = prepared(table, [8, "batch_norm"], "d.csv", target="t", train={"batch_size": rows - 1, "epochs": 2})
    assert [note for note in job.notes if "the last batch of every epoch has one row" in note]
    train_and_evaluate(job)  # without a warning of Python
