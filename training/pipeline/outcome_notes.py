"""Notes on a trained model: what its learning curve and its importance say about the job and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.utils.number_format import format_number
from model_store.utils.values import list_names
from training.config.defaults import default_patience
from training.config.settings import TrainSection

_OVERFIT_RATIO = 1.1  # of the last to the lowest validation loss; smaller ratios are noise
_MIN_SUSPICIOUS_R2 = 0.995
_MIN_RELIANCE = 0.05  # of the largest cost of a shuffled column


def find_outcome_notes(
    section: TrainSection, history: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], diagnostics: Any
) -> list[str]:
    """Return the notes of a training with this `history` (see `EarlyStopping.history_points`)."""
    return [*_find_overfitting(section, history), *_find_reliance(metrics, (diagnostics or {}).get("importance"))]


def _find_overfitting(section: TrainSection, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Suggest early stopping if training ran without it and went well past the lowest validation loss."""
    history = [point for point in history if "validation_loss" in point]
    if not history or section.early_stopping is not None:
        return []
    last, best = history[-1], min(history, key=lambda point: point["validation_loss"])
    if last["validation_loss"] <= _OVERFIT_RATIO * best["validation_loss"]:
        return []
    return [
        f"Overfitting: the validation loss was lowest in epoch {best['epoch']} ({best['validation_loss']:.4g}) and "
        f"ended at {last['validation_loss']:.4g}. To keep the best weights, write "
        f"early_stopping = {{ patience = {default_patience(section.epochs)} }} in [train]."
    ]


def _find_reliance(metrics: Mapping[str, Any], importance: Mapping[str, Any] | None) -> list[str]:
    """Name the columns that a regression relies on if it leaves almost no error: they may contain the target."""
    scores = [target["r2"] for target in metrics.get("targets", {}).values()]
    if not importance or "grid" in importance or None in scores or min(scores, default=0.0) < _MIN_SUSPICIOUS_R2:
        return []
    costs = {part["name"]: part["cost"] or 0.0 for part in importance["parts"]}
    relied = [name for name, cost in costs.items() if cost > _MIN_RELIANCE * max(costs.values())]
    if not relied or (len(relied) == len(costs) and len(costs) > 1):
        return []
    return [
        f"R² {format_number(min(scores), 4)} is unusually high: the model relies on {list_names(relied, 8)}. If their "
        "values are not known at prediction time, exclude them: list the other columns in data.columns"
    ]
