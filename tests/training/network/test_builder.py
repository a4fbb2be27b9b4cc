"""The modules and the networks that the layers of a job file become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.nn import (
    BatchNorm,
    Conv2D,
    Dropout,
    Embedding,
    Flatten,
    LayerNorm,
    Linear,
    MaxPool2D,
    PeriodicEmbedding,
    ReLU,
)
from training.errors import DataError, JobError
from training.network.builder import build_modules
from training.network.feature_kinds import FeatureKinds
from training.pipeline.job import Outcome, PreparedJob, from_dict, load, prepare, train_and_evaluate

EXAMPLE: list[Any] = [
    {"conv": 4, "kernel": 3, "padding": 1},
    "batch_norm",
    "relu",
    {"pool": 2},
    {"conv": 6, "kernel": 2, "stride": 2},
    "layer_norm",
    "gelu",
    12,
    "relu",
    {"dropout": 0.3},
]


def job(layers: Any, path: str = "images.npz", **sections: Any) -> dict[str, Any]:
    model, data = {"name": "m"}, {"path": path, **({"target": "t"} if path.endswith(".csv") else {})}
    return {"model": model, "data": data, "network": {"layers": layers}, **sections}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Write images of 8 x 8 with a vertical or a horizontal bright stripe."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 60, (120, 8, 8)).astype(np.uint8), np.arange(120) % 2
    for image, horizontal in zip(x, y, strict=True):
        location = rng.integers(1, 7)
        (image if horizontal else image.T)[location] += 150
    np.savez(tmp_path / "images.npz", x=x, y=y)
    return tmp_path


def test_module_sizes_follow_from_the_layer_before() -> None:
    rng = np.random.default_rng(0)
    made = build_modules([*EXAMPLE, 3], (8, 8, 1), dtype="float32", rng=rng, initializer=None)
    kinds = [Conv2D, BatchNorm, ReLU, MaxPool2D, Conv2D, LayerNorm]
    assert [type(module) for module in made][:6] == kinds
    assert [type(module) for module in made][7:] == [Flatten, Linear, ReLU, Dropout, Linear]
    assert [array.shape for module in made for array in module.parameters()] == [
        *((4, 3, 3, 1), (4,), (4,), (4,)),
        *((6, 2, 2, 4), (6,), (6,), (6,)),
        *((12, 24), (12,), (3, 12), (3,)),
    ]


def test_the_initializer_fits_the_next_activation_regardless_of_layers_between() -> None:
    def first(*layers: Any) -> np.ndarray:
        made = build_modules(list(layers), (400,), dtype="float64", rng=np.random.default_rng(1), initializer=None)
        return made[0].parameters()[0]

    he, glorot = 2 / 400, 2 / 600
    assert first(200, "batch_norm", {"dropout": 0.1}, "relu").var() == pytest.approx(he, rel=0.05)
    assert first(200, "layer_norm", "tanh", "relu").var() == pytest.approx(glorot, rel=0.05)
    assert first(200, 100, "relu").var() == pytest.approx(glorot, rel=0.05)


def test_flatten_is_optional_before_a_dense_layer() -> None:
    def kinds(*layers: Any) -> list[type]:
        made = build_modules(list(layers), (4, 4, 1), dtype="float32", rng=np.random.default_rng(2), initializer=None)
        return [type(module) for module in made]

    assert kinds({"pool": 2}, "flatten", 3) == kinds({"pool": 2}, 3) == [MaxPool2D, Flatten, Linear]


def test_layers_that_do_not_fit_the_images_are_reported_before_training(images: Path) -> None:
    for layers, location, expected in [
        ([{"conv": 2, "kernel": 9}], "network.layers.0", "expected a window within 8 x 8, found 9 x 9"),
        ([{"pool": 4}, {"pool": 3}], "network.layers.1", "expected a window within 2 x 2, found 3 x 3"),
        (["layer_norm", {"conv": 2}], "network.layers.0", "expected two values or more for 'layer_norm', found 1"),
        (
            [{"conv": 2}, "flatten", {"pool": 2}],
            "network.layers.2",
            "expected images for 'pool', found rows of 72",
        ),
    ]:
        with pytest.raises(JobError) as caught:
            prepare(from_dict(job(layers), images))
        (fault,) = caught.value.faults
        assert fault.location == location
        assert expected in fault.problem


def test_convolutions_reject_tables(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,t\n" + "1,2.5\n2,3.5\n" * 20, encoding="utf-8")
    with pytest.raises(JobError, match=r"expected images, found columns of a table \(conv and pool need arrays"):
        prepare(from_dict(job([{"conv": 2}], "d.csv"), tmp_path))


@pytest.mark.parametrize("early_stopping", [{}, {"early_stopping": {"patience": 2}}])
def test_a_job_with_every_kind_of_layer_trains_and_predicts_the_same_once_published(
    images: Path, early_stopping: dict[str, Any]
) -> None:
    train = {"epochs": 12, "batch_size": 16, "learning_rate": 0.02, **early_stopping}
    files = []
    for name in ("one.npz", "two.npz"):
        prepared = prepare(from_dict(job(EXAMPLE, train=train), images))
        outcome = train_and_evaluate(prepared)
        npz.write(images / name, outcome.model)
        files.append((images / name).read_bytes())
    assert outcome.metrics["accuracy"] >= 0.9
    assert files[0] == files[1]  # dropout uses the job's seed too
    model = npz.read(images / "one.npz")
    model.check_golden()
    instances = prepared.evaluation_instances
    assert model.predict(instances) == outcome.model.predict(instances)
    assert [model.predict([row])[0] for row in instances] == model.predict(instances)
    assert model.training["job"]["network"]["layers"] == EXAMPLE


TABULAR: list[Any] = ["smooth_clip", {"embedding": 3}, {"periodic": 5, "size": 3}, "feature_scale", 8, "mish", 2]


def test_embeddings_take_the_numbers_and_the_categories_wherever_they_lie() -> None:
    options: Any = {"dtype": "float32", "rng": np.random.default_rng(0), "initializer": None}
    features = FeatureKinds(numbers=(1, 4), codes={0: 12, 3: 30})
    modules = build_modules(TABULAR, (5,), features, **options)
    embedding, periodic = (module for module in modules if isinstance(module, (Embedding, PeriodicEmbedding)))
    assert embedding.config() == {
        "type": "Embedding",
        "input_size": 5,
        "positions": [0, 3],
        "counts": [12, 30],
        "size": 3,
    }
    assert isinstance(periodic, PeriodicEmbedding)
    assert periodic.positions == (0, 2)  # the features 1, 2, 4 come first, then the embedded ones
    assert periodic.output_shape((9,)) == (7 + 2 * 3,)
    kinds = [type(module).__name__ for module in build_modules(TABULAR, (5,), **options)]
    assert kinds == ["SmoothClip", "FeatureScale", "Linear", "Mish", "Linear"]


def reloaded(folder: Path, prepared: PreparedJob, outcome: Outcome) -> Model:
    """Write the model of a job, read it, and check that both predict the same, row by row."""
    npz.write(folder / "m.npz", outcome.model)
    model = npz.read(folder / "m.npz")
    model.check_golden()
    instances = prepared.evaluation_instances
    assert [model.predict([row])[0] for row in instances] == outcome.model.predict(instances)
    return model


def test_a_job_with_layers_for_tables_predicts_the_same_once_published(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{x:.3f},{'abc'[i % 3]},{np.sin(6 * x) + i % 3:.3f}" for i, x in enumerate(rng.uniform(-1, 1, 300))]
    (tmp_path / "d.csv").write_text("x,c,t\n" + "\n".join(rows) + "\n", encoding="utf-8")
    prepared = prepare(from_dict(job(TABULAR[:-1], "d.csv", train={"epochs": 60}), tmp_path))
    outcome = train_and_evaluate(prepared)
    assert outcome.metrics["targets"]["t"]["r2"] > 0.9
    reloaded(tmp_path, prepared, outcome)


@pytest.mark.parametrize("stream", [False, True])
def test_columns_of_many_categories_are_embedded(tmp_path: Path, stream: bool) -> None:
    rng = np.random.default_rng(0)
    levels = rng.standard_normal(30)
    codes = rng.integers(0, 30, 600)
    rows = [f"{c / 9:.3f},t{c:02d},{'ab'[i % 2]},{levels[c] + c / 9:.3f}" for i, c in enumerate(codes)]
    (tmp_path / "d.csv").write_text("x,town,side,t\n" + "\n".join(rows) + "\n", encoding="utf-8")
    content = job([{"embedding": 3}, 16, "relu"], "d.csv", train={"epochs": 60})
    content["data"] |= {"stream": stream}
    prepared = prepare(from_dict(content, tmp_path))
    town, side = prepared.signature.inputs[1:]
    assert (town.width, side.width) == (1, 3)
    outcome = train_and_evaluate(prepared)
    assert outcome.metrics["targets"]["t"]["r2"] > 0.9
    model = reloaded(tmp_path, prepared, outcome)
    (embedding,) = (module for module in model.network.modules if isinstance(module, Embedding))
    assert embedding.counts == (31,)
    assert model.encode([[0.1, "Atlantis", "a"]])[0, 1] == 30
    assert embedding.weights[30].tolist() == [0, 0, 0]
    content["network"]["layers"][0]["one_hot"] = 30
    assert prepare(from_dict(content, tmp_path)).signature.inputs[1].width == 31


@pytest.mark.parametrize("layers", [[{"pool": 2}, 8, "relu"], [{"conv": 2}]])
def test_a_pool_or_a_convolution_alone_takes_images(images: Path, layers: list[Any]) -> None:
    outcome = train_and_evaluate(prepare(from_dict(job(layers, train={"epochs": 60, "learning_rate": 0.1}), images)))
    assert outcome.metrics["accuracy"] > 0.9


def test_every_example_is_a_job_without_faults(examples: Path) -> None:
    assert {load(path).settings.model.name for path in examples.glob("*.toml")} >= {"xor", "mnist", "mnist-conv"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("mnist", 0.98), ("mnist-conv", 0.988)])
def test_mnist_is_learned(examples: Path, name: str, expected: float) -> None:
    if not (examples / "mnist").is_dir():
        pytest.skip("the images are not there: sh examples/fetch_mnist.sh fetches them")
    assert train_and_evaluate(prepare(load(examples / f"{name}.toml"))).metrics["accuracy"] >= expected


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """Write counts that grow with x."""
    rng = np.random.default_rng(0)
    rows = [f"{x:.3f},{rng.poisson(np.exp(1 + 2 * x))}" for x in rng.uniform(-1, 1, 400)]
    (tmp_path / "d.csv").write_text("x,t\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_a_poisson_regression_has_positive_predictions_in_the_units_of_the_targets(
    counts: Path, clip: bool, stream: bool
) -> None:
    content = job([], "d.csv", train={"loss": "poisson", "epochs": 60})
    content["data"] |= {"stream": stream}
    content["network"]["clip_outputs"] = clip
    model = train_and_evaluate(prepare(from_dict(content, counts))).model
    predictions = np.array(model.predict([[x] for x in (-1.0, 0.0, 1.0)]))
    np.testing.assert_allclose(predictions, np.exp([-1, 1, 3]), rtol=0.35)
    far = model.predict([[20.0]])[0]
    assert far <= 40 if clip else far > 40


def test_a_pinball_regression_predicts_its_quantile(counts: Path) -> None:
    content = job([], "d.csv", train={"loss": "pinball", "quantile": 0.9, "epochs": 80})
    outcome = train_and_evaluate(prepare(from_dict(content, counts)))
    prepared = prepare(from_dict(content, counts))
    targets = prepared.dataset.targets[prepared.split.training][:, 0]
    found = np.array(outcome.model.predict(prepared.instances(prepared.split.training)))
    assert 0.85 < np.mean(targets <= found) < 0.95


@pytest.mark.parametrize(
    ("loss", "stream", "expected"),
    [
        ("gamma", False, r"line \d+, column t: expected a target above 0 for the loss 'gamma' \(use 'mse'"),
        ("gamma", True, r"column t: expected a target above 0 for the loss 'gamma' \(use 'mse'"),
    ],
)
def test_targets_that_a_loss_cannot_take_are_one_fault(counts: Path, loss: str, stream: bool, expected: str) -> None:
    content = job([8, "tanh"], "d.csv", train={"loss": loss})
    content["data"] |= {"stream": stream}
    with pytest.raises(DataError, match=expected):
        prepare(from_dict(content, counts))


@pytest.mark.parametrize(
    ("task", "section", "expected"),
    [
        ("regression", {"train": {"label_smoothing": 0.1}}, "train.label_smoothing: only for classifications"),
        ("classification", {"train": {"loss": "poisson"}}, "train.loss: 'poisson' is only for regressions"),
        ("classification", {"train": {"loss": "pinball"}}, "train.loss: 'pinball' is only for regressions"),
        (
            "classification",
            {"train": {"loss": "mse", "label_smoothing": 0.1}},
            "train.label_smoothing: expected a loss of probabilities, found 'mse'",
        ),
        ("classification", {"network": {"clip_outputs": True}}, "network.clip_outputs: only for regressions"),
        (
            "regression",
            {"network": {"output": "tanh"}, "train": {"loss": "gamma"}},
            "network.output: 'gamma' needs positive outputs, found 'tanh'",
        ),
        ("regression", {"network": {"output": "exp"}}, "'exp' cannot produce all values of a standardised target"),
        ("regression", {"train": {"quantile": 0.5}}, "train.quantile: only for the loss 'pinball'"),
        (
            "regression",
            {"train": {"regularization_schedule": "plateau"}},
            "train.regularization_schedule: 'plateau' is only for the learning rate",
        ),
        (
            "regression",
            {"train": {"rate_factors": {"biases": 1}}},
            r"train.rate_factors.biases: unknown parameter group \(did you mean 'bias'",
        ),
        ("regression", {"train": {"decay_factors": {"bias": -1}}}, "train.decay_factors.bias: expected a number of at"),
    ],
)
def test_settings_that_do_not_fit_the_task_are_faults(
    counts: Path, task: str, section: dict[str, Any], expected: str
) -> None:
    content = job([8], "d.csv") | section
    content["data"] |= {"task": task}
    with pytest.raises(JobError, match=expected):
        prepare(from_dict(content, counts))


def test_every_setting_of_realmlp_reaches_the_training(counts: Path) -> None:
    """The recipe of Holzmüller, Grinsztajn & Steinwart 2024, for few epochs."""
    layers: list[Any] = ["smooth_clip", {"embedding": 8}, {"periodic": 16, "size": 4, "sigma": 0.1}, "feature_scale"]
    for _ in range(3):
        layers += [32, {"parametric": "mish"}, {"dropout": 0.15}]
    rates = {"bias": 0.1, "feature_scale": 6, "periodic": 0.1, "parametric": 0.1}
    train = {
        "optimizer": "adamw",
        "learning_rate": 0.2,
        "beta2": 0.95,
        "schedule": "coslog4",
        "weight_decay": 0.02,
        "rate_factors": rates,
        "decay_factors": {"bias": 0},
        "regularization_schedule": "flat_cos",
        "epochs": 30,
        "batch_size": 64,
        "early_stopping": {"patience": 30},
    }
    content = job(layers, "d.csv", train=train)
    content["network"] |= {"parametrization": "ntk", "clip_outputs": True}
    content["data"] |= {"scale": "robust"}
    outcome = train_and_evaluate(prepare(from_dict(content, counts)))
    assert outcome.metrics["targets"]["t"]["r2"] > 0.6
    npz.write(counts / "m.npz", outcome.model)
    npz.read(counts / "m.npz").check_golden()
