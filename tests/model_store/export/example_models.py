"""Models of every kind for the tests of all export targets: the trained examples, and small ones made by hand.

Each layer, kind of column, option of a column and kind of output is in one of `MADE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model_store.artifact.golden_rows import make_up_rows
from model_store.artifact.model import Golden, Model
from model_store.nn import Array, BatchNorm, Clip, ConstantInputs, Gather, Module, build
from model_store.nn.layers.activations import ACTIVATIONS
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, DateColumn, NumberColumn, TextColumn
from model_store.schema.columns.date_text import DateFormat
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Output, RegressionOutput, Signature
from model_store.schema.target_transform import TargetTransform
from tests.model_store.export.edge_rows import edge_rows
from training.pipeline import job

EXAMPLES = Path(__file__).parents[3] / "examples"
TRAINED = ("xor", "penguins", "digits")

_STATISTICS = {"min": -2.0, "max": 9.0, "mean": 3.0, "std": 2.0}
AGE = NumberColumn("age", 3.0, 2.0, statistics=_STATISTICS)
HEIGHT = NumberColumn("height", 170.5, 9.25, fill=168.0, statistics={"min": 140.0, "max": 210.0, "mean": 170.5})
INCOME = NumberColumn(
    "income", 2.0, 1.5, fill=1e4, indicator=True, linear_width=800.0, statistics={"min": 0, "max": 9e6}
)
PRECISE = NumberColumn("precise", 1e9, 0.02, statistics={"min": 1e9 - 0.05, "max": 1e9 + 0.05, "mean": 1e9})
TINY_WIDTH = NumberColumn("tiny width", 1.0, 2.0, linear_width=1e-9, statistics={"min": 0.0, "max": 1e6})
TOWN = CategoryColumn("town", ("Bath", "York", "São Paulo"))
PORT = CategoryColumn("port", ("a", "b", "NA", " c"), "bucket", "b")
SMOKER = CategoryColumn("smoker", ("no", "yes", "missing"), "bucket", "missing")
STREET = CategoryColumn("street", tuple(f"{i}. Straße" for i in range(40)), "bucket", "0. Straße", encoding="code")
DAY = DateColumn(
    "day", 1.6e9, 1e7, 1.61e9, cycles=("day", "week", "year"), indicator=True, statistics={"min": 1.5e9, "max": 1.7e9}
)
CLOCK = DateColumn("clock", 43_200.0, 20_000.0, format=DateFormat("time"), cycles=("day",))
TITLE = TextColumn("title", 32, "")

SPECIES = ClassificationOutput("species", ("ant", "bee", "cat"))
RARE = ClassificationOutput("y", ("no", "yes"), threshold=0.3)
PRICE = RegressionOutput(("price",), (2.5e5,), (4e4,))


def linear(inputs: int, outputs: int) -> dict[str, Any]:
    return {"type": "Linear", "input_size": inputs, "output_size": outputs}


def made(
    columns: Sequence[Column], output: Output, layers: Sequence[dict[str, Any]], dtype: str = "float32", seed: int = 0
) -> Model:
    """Return a model of random weights, whose other arrays are random, too, with golden rows."""
    rng = np.random.default_rng(seed)
    network = build(layers, dtype, rng=rng)
    for module in network.modules:
        _randomize(module, rng)
    signature = Signature(tuple(columns), output)
    model = Model(network, signature, "Made by hand", {})
    rows = make_up_rows(signature, rng)
    return replace(model, golden=Golden(rows, network(model.encode(rows))))


def _randomize(module: Module, rng: np.random.Generator) -> None:
    """Replace arrays that start as all zeros or all ones."""
    for array in module.arrays().values():
        if np.ptp(array) == 0:
            array[...] = rng.normal(size=array.shape)
    if isinstance(module, BatchNorm):
        module.running_variance = np.abs(module.running_variance) + 0.1
    if isinstance(module, ConstantInputs):
        module.constant = (np.arange(module.size) % 3 == 0).astype(module.constant.dtype)
    if isinstance(module, Gather):
        module.index = np.arange(module.index.size) * 7 % module.input_size
    if isinstance(module, Clip):
        module.low, module.high = np.full(module.size, -0.7), np.full(module.size, 0.6)


def activations(dtype: str) -> Model:
    """A regression through each activation, and each as a parametric one."""
    layers: list[dict[str, Any]] = [linear(2, 8)]
    for name, kind in ACTIVATIONS.items():
        layers += [kind().config(), {"type": "ParametricActivation", "size": 8, "activation": name}, linear(8, 8)]
    return made([AGE, HEIGHT], PRICE, [*layers, {"type": "Tanh"}, linear(8, 1)], dtype)


def pool(kind: str, shape: list[int], size: Any, stride: Any, **others: Any) -> dict[str, Any]:
    return {"type": kind, "input_shape": shape, "size": size, "stride": stride, **others}


def image_layers(outputs: int) -> list[dict[str, Any]]:
    return [
        {"type": "ConstantInputs", "size": 9 * 8 * 2},
        {"type": "Conv2D", "input_shape": [9, 8, 2], "filters": 4, "kernel": 3, "stride": 1, "padding": 2},
        {"type": "BatchNorm", "size": 4, "momentum": 0.1, "epsilon": 1e-5},
        {"type": "ReLU"},
        {"type": "MaxPool2D", "input_shape": [11, 10, 4], "size": 3, "stride": 2},
        {"type": "AveragePool2D", "input_shape": [5, 4, 4], "size": 3, "stride": 1, "padding": 1},
        pool("MaxPool2D", [5, 4, 4], [3, 2], 1, padding=[2, 0, 0, 1], dilation=[2, 1]),
        pool("AveragePool2D", [3, 4, 4], 2, [1, 2], padding=[1, 0, 0, 0], dilation=[2, 1], include_padding=True),
        {"type": "Gather", "input_size": 16, "shape": [5, 4, 4]},
        {
            "type": "Conv2D",
            "input_shape": [5, 4, 4],
            "filters": 3,
            "kernel": [2, 3],
            "stride": 2,
            "padding": [0, 0, 0, 1],
        },
        {"type": "LayerNorm", "size": 3, "epsilon": 1e-5},
        {"type": "Flatten", "input_shape": [2, 2, 3]},
        {"type": "Dropout", "rate": 0.5},
        linear(12, outputs),
    ]


def table_layers(width: int, outputs: int, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Return what `train init` writes for tables: numbers at `positions` become waves."""
    embedded = width + 3 * len(positions)
    return [
        {"type": "SmoothClip"},
        {"type": "PeriodicEmbedding", "input_size": width, "positions": list(positions), "waves": 16, "size": 4},
        {"type": "FeatureScale", "size": embedded},
        linear(embedded, 12),
        {"type": "ParametricActivation", "size": 12, "activation": "mish"},
        linear(12, outputs),
    ]


def embedding() -> Model:
    layers = [
        {"type": "Embedding", "input_size": 3, "positions": [1], "counts": [41], "size": 8},
        linear(10, 8),
        {"type": "SELU"},
        linear(8, 3),
        {"type": "Softmax"},
    ]
    return made([AGE, STREET, HEIGHT], SPECIES, layers)


def ensemble() -> Model:
    members = [[*table_layers(2, 3, [0, 1]), {"type": "Softmax"}] for _ in range(3)]
    return made([AGE, HEIGHT], SPECIES, [{"type": "Average", "members": members}])


def quantiles() -> Model:
    """A regression of two targets through their normal scores."""
    knots = ((0.0, 0.0, 0.0, 5.0, 80.0, 1e4), (-3.0, -1.0, 0.0, 1.0, 1.5, 9.0))
    transform = TargetTransform("quantile", (-2.3, -1.0, -0.2, 0.3, 1.1, 2.4), knots)
    return made(
        [AGE, HEIGHT], RegressionOutput(("a", "b"), (0.0, 0.1), (1.0, 0.9), transform=transform), [linear(2, 2)]
    )


def transformed(kind: str, *last: dict[str, Any]) -> Model:
    output = RegressionOutput(("price",), (3.0,), (0.8,), transform=TargetTransform(kind))
    return made([AGE, HEIGHT], output, [linear(2, 6), {"type": "Tanh"}, linear(6, 1), *last])


def classifier(*columns: Column, output: Output = SPECIES, last: str = "Softmax", outputs: int = 3) -> Model:
    width = sum(column.width for column in columns)
    return made(columns, output, [linear(width, 8), {"type": "Tanh"}, linear(8, outputs), {"type": last}])


def image(dtype: str) -> Model:
    column = ArrayColumn("pixels", (9, 8, 2), 8.0, 4.0, 0.0, 16.0, {"min": 0.0, "max": 16.0, "mean": 5.0, "std": 4.0})
    return made([column], SPECIES, [*image_layers(3), {"type": "Softmax"}], dtype)


def precise_vector() -> Model:
    statistics = {"min": 1e6 - 1.0, "max": 1e6 + 1.0, "mean": 1e6, "std": 0.5}
    return made([ArrayColumn("signal", (3,), 1e6, 0.5, statistics=statistics)], PRICE, [linear(3, 1)])


def vector() -> Model:
    column = ArrayColumn("signal", (6,), 0.5, 2.0, statistics={"min": -4.0, "max": 5.0, "mean": 0.5, "std": 2.0})
    layers = [linear(6, 5), {"type": "BatchNorm", "size": 5, "momentum": 0.1, "epsilon": 1e-3}]
    layers += [
        {"type": "ELU", "alpha": 0.3},
        {"type": "GELU"},
        {"type": "LayerNorm", "size": 5, "epsilon": 1e-5},
        linear(5, 2),
    ]
    return made([column], RegressionOutput(("left", "right"), (1.0, -1.0), (3.0, 0.01)), layers)


MADE: dict[str, Callable[[], Model]] = {
    "numbers": lambda: classifier(AGE, HEIGHT, INCOME, TINY_WIDTH),
    "precise numbers": lambda: classifier(PRECISE, AGE),
    "categories": lambda: classifier(TOWN, PORT, SMOKER, AGE),
    "refused category": lambda: classifier(TOWN, AGE, output=ClassificationOutput("n", (3, -7, 9))),
    "dates": lambda: classifier(DAY, CLOCK, AGE),
    "texts": lambda: classifier(TITLE, AGE),
    "one output": lambda: classifier(AGE, HEIGHT, output=ClassificationOutput("y", (0, 1)), last="Sigmoid", outputs=1),
    "two outputs": lambda: classifier(AGE, output=ClassificationOutput("y", ("no", "yes")), outputs=2),
    "one output and a threshold": lambda: classifier(AGE, output=RARE, last="Sigmoid", outputs=1),
    "two outputs and a threshold": lambda: classifier(AGE, HEIGHT, output=RARE, outputs=2),
    "several labels": lambda: classifier(
        AGE, HEIGHT, output=MultiLabelOutput("tags", ("red", "wet", "hot"), "|", 0.3), last="Sigmoid"
    ),
    "column label": lambda: classifier(replace(AGE, name="label"), replace(HEIGHT, name="größe [cm]")),
    "activations": lambda: activations("float32"),
    "activations in float64": lambda: activations("float64"),
    "tabular": lambda: made([INCOME, HEIGHT, TOWN], PRICE, [*table_layers(6, 1, [0, 2]), {"type": "Clip", "size": 1}]),
    "tabular in float64": lambda: made([INCOME, HEIGHT], PRICE, table_layers(3, 1, [0, 2]), "float64"),
    "embedding": embedding,
    "ensemble": ensemble,
    "images": lambda: image("float32"),
    "images in float64": lambda: image("float64"),
    "vectors": vector,
    "precise vectors": precise_vector,
    "log": lambda: transformed("log"),
    "log1p": lambda: transformed("log1p"),
    "quantile": quantiles,
    "counts": lambda: made(
        [AGE],
        RegressionOutput(("count",), (0.0,), (7.5,)),
        [linear(1, 4), {"type": "Tanh"}, linear(4, 1), {"type": "Exp"}],
    ),
}


@cache
def example_model(name: str) -> Model:
    """Return a model of `TRAINED`, after a few epochs, or of `MADE`."""
    if name in MADE:
        return MADE[name]()
    made = job.load(EXAMPLES / f"{name}.toml", {"train.epochs": 5})
    return job.train_and_evaluate(job.prepare(made)).model


@cache
def example_rows(name: str) -> tuple[list[Any], Array]:
    """Return `edge_rows` of a model."""
    return edge_rows(example_model(name))


def all_layer_types() -> set[str]:
    """Return the types of layers that `MADE` has."""
    return {str(part) for name in MADE for part in _types(example_model(name).network.config())}


def _types(config: Any) -> set[str]:
    if isinstance(config, list):
        return set().union(*map(_types, config)) if config else set()
    return {config["type"], *_types(config.get("members", []))}
