"""Models with a training record, and a parser of pages, for the tests of reports."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential, Softmax
from model_store.schema.signature import (
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x00&amp;'</style></title>"
VOID = {"meta", "rect", "line", "circle", "path", "polyline"}


class Page(HTMLParser):
    """The elements and the text of a page; fails if an element is not closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)

    @property
    def words(self) -> str:
        return " ".join(self.text)


def classifier(labels: tuple[Any, ...], training: dict[str, Any], column: str = "size", **options: str) -> Model:
    signature = Signature(
        (NumberColumn(column), CategoryColumn("town", ("Bath", "York"))), ClassificationOutput("kind", labels)
    )
    return Model(Sequential([Linear(3, len(labels)), Softmax()]), signature, training=training, **options)


def record(labels: tuple[Any, ...], rows: int = 90) -> dict[str, Any]:
    """Return the training record of a classifier of (size, town)."""
    share = rows // len(labels) or 1
    figures = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": share}
    confusion = [[share if i == j else int(j == i + 1) for j in range(len(labels))] for i in range(len(labels))]
    found: dict[str, Any] = {
        "rows": rows,
        "of": "test rows",
        "accuracy": 0.8,
        "classes": {str(label): figures for label in labels},
        "mistakes": [{"true": labels[0], "answered": labels[1], "rows": 3}],
        "confusion": confusion,
    }
    bins = [{"low": 0.8, "high": 0.9, "rows": rows, "said": 0.85, "found": 0.8}]
    return {
        "metrics": found,
        "baseline": {"answer": labels[0], "accuracy": 0.4},
        "linear": {"accuracy": 0.7, "log_loss": 0.5},
        "history": [{"epoch": i, "loss": 1 / i, "validation_loss": 2 / i} for i in range(1, 31)],
        "epochs": 30,
        "best_epoch": 20,
        "job": {"model": {"name": "chess"}, "train": {"epochs": 30, "early_stopping": {"patience": 3}}},
        "data": {"sha256": "ab" * 32, "rows": 100},
        "split": {"training": 10, "validation": 0, "test": rows},
        "diagnostics": {
            "calibration": {"of": None, "rows": rows, "expected_error": 0.05, "log_loss": 0.3, "bins": bins},
            "roc": {"of": str(labels[1]), "area": 0.91, "points": [[0, 0], [0.1, 0.8], [1, 1]]},
            "precision_recall": {"of": str(labels[1]), "average": 0.62, "points": [[0.2, 0.9], [1, 0.5]]},
            "costs": {
                "of": str(labels[1]),
                "rows": rows,
                "positives": rows // 2,
                "options": [
                    {"cost_ratio": ratio, "threshold": 1 / (1 + ratio), "false_positives": 4, "false_negatives": 5}
                    for ratio in (0.5, 1.0, 10.0)
                ],
            },
            "importance": {
                "measure": "log_loss",
                "score": 0.3,
                "rows": rows,
                "repeats": 5,
                "left_out": 0,
                "parts": [
                    {"name": "size", "cost": 0.3, "low": 0.26, "high": 0.34},
                    {"name": "town", "cost": -0.01, "low": -0.02, "high": 0.0},
                ],
            },
            "worst_rows": [{"row": "line 17", "true": labels[0], "predicted": labels[1], "probability": 0.97}],
            "weak_spots": {
                "measure": "error_rate",
                "test": "fisher_exact",
                "rows": rows,
                "tried": 12,
                "spots": [
                    {
                        "where": [{"column": "town", "missing": True}, {"column": "size", "low": 1.0, "high": 4.0}],
                        "rows": 10,
                        "error": 0.5,
                        "elsewhere": 0.1,
                        "p": 0.00001,
                    }
                ],
            },
            "slice_metrics": [
                {
                    "column": "town",
                    "slices": [{"value": "Bath", "rows": 60}, {"missing": True, "rows": 10}],
                    "metrics": {"accuracy": [0.9, 0.5], "error_rate": [0.1, 0.5], "recall": [0.8, None]},
                }
            ],
            "slices": {
                "measure": "error_rate",
                "error": 0.2,
                "columns": [
                    {
                        "column": "town",
                        "slices": [
                            {"value": "Bath", "rows": 60, "error": {"value": 0.1, "low": 0.05, "high": 0.2}},
                            {"others": 3, "rows": 20, "error": {"value": 0.4, "low": 0.2, "high": 0.6}},
                            {"missing": True, "rows": 10, "error": {"value": 0.5, "low": 0.2, "high": 0.8}},
                        ],
                    }
                ],
            },
        },
    }


def regression(names: tuple[str, ...] = ("price",), points: Sequence[Any] = ([1.0, 1.5], [2.0, 1.5])) -> Model:
    target = {
        "rows": 40,
        "bias": -0.5,
        "median": 1.0,
        "p90": 2.0,
        "points": [list(point) for point in points],
        "edges": [-2.0, 0.0, 2.0],
        "counts": [10, 30],
        "outside": 0,
    }
    figures = {"rmse": 1.25, "mae": 1.0, "r2": 0.75}
    training = {
        "metrics": {"rows": 40, "of": "test rows", "targets": dict.fromkeys(names, figures)},
        "baseline": {"answer": [1.0], "targets": dict.fromkeys(names, figures | {"rmse": 5.0})},
        "linear": {"targets": dict.fromkeys(names, figures | {"rmse": 2.5})},
        "diagnostics": {
            "residuals": {"left_out": 2, "targets": dict.fromkeys(names, target)},
            "worst_rows": [{"row": "line 9", "target": names[0], "error": -7.5}],
            "slices": {
                "measure": "rmse",
                "error": 1.25,
                "columns": [
                    {
                        "column": "size",
                        "slices": [
                            {"low": 1.0, "high": 4.0, "rows": 20, "error": {"value": 1.0, "low": 0.8, "high": 1.2}},
                            {"value": 5.0, "rows": 20, "error": {"value": 1.5, "low": 1.3, "high": 1.7}, "bias": 0.5},
                        ],
                    }
                ],
            },
        },
    }
    signature = Signature((NumberColumn("size"),), RegressionOutput(names, (0.0,) * len(names), (1.0,) * len(names)))
    return Model(Sequential([Linear(1, len(names))]), signature, training=training)


def search(count: int = 40, **changes: Any) -> dict[str, Any]:
    """Return the record of a search over a rate, a number and layers; every fourth trial was pruned."""
    parameters = [
        {"name": "train.learning_rate", "low": 0.001, "high": 0.1, "log": True, "importance": 0.7},
        {"name": "train.epochs", "low": 5, "high": 50, "log": False, "importance": 0.2},
        {"name": "network.layers", "options": ['[16, "tanh"]', '[64, "relu"]'], "importance": 0.1},
    ]
    found = [
        {"number": i, "state": "pruned", "values": [0.001, 5, 0]}
        if i % 4 == 0
        else {"number": i, "state": "complete", "value": 1 / i, "values": [min(0.001 * i, 0.1), min(5 + i, 50), i % 2]}
        for i in range(1, count + 1)
    ]
    complete = sum(trial["state"] == "complete" for trial in found)
    return {
        "metric": "log_loss",
        "higher_is_better": False,
        "pruning": "median",
        "complete": complete,
        "pruned": count - complete,
        "failed": 0,
        "best": count - 1,
        "parameters": parameters,
        "trials": found,
        **changes,
    }
