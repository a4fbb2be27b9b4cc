"""A table and a job for tests of streaming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model_store.nn import Sequential
from training.engine.loop import TrainingState
from training.pipeline.job import PreparedJob, from_dict

ROWS = 5000


def table(rows: int = ROWS) -> dict[str, list[Any]]:
    """Return numbers, categories, missing values, and a target that depends on them."""
    rng = np.random.default_rng(3)
    size, weight = rng.standard_normal(rows) * 3 + 10, rng.random(rows)
    colour = rng.integers(0, 3, rows)
    return {
        "size": [None if i % 50 == 7 else float(v) for i, v in enumerate(size.round(3))],
        "weight": weight.round(6).tolist(),
        "colour": [None if i % 70 == 3 else ("red", "white", "blue, pale")[c] for i, c in enumerate(colour)],
        "kind": [("rose", "lily")[int(v + c > 10.5 + w)] for v, c, w in zip(size, colour, weight, strict=True)],
        "price": (size * 2 + colour + rng.standard_normal(rows) / 10).round(4).tolist(),
    }


def job(path: Path, **sections: dict[str, Any]) -> Any:
    content: dict[str, Any] = {
        "model": {"name": "m"},
        "data": {
            "path": path.name,
            "target": "kind",
            "columns": ["size", "weight", "colour"],
            "stream": True,
            "unknown": "refuse",
        },
        "train": {"epochs": 4, "batch_size": 50, "learning_rate": 0.2},
    }
    for name, keys in sections.items():
        content[name] = {**content.get(name, {}), **keys}
    return from_dict(content, path.parent)


def everything(prepared: PreparedJob) -> tuple[np.ndarray, np.ndarray]:
    """Return all training rows of a streamed job, in the order of its record file."""
    found = [(x.copy(), y.copy()) for x, y, _, _ in prepared.samples.epoch_blocks(TrainingState(Sequential([])), 50)]
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])
