"""Permutation importance: how much the loss grows when the values of a column are shuffled among the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.schema.signature import MultiLabelOutput, RegressionOutput, Signature
from training.encoded_rows import EncodedRows, apply_in_pieces
from training.evaluation.error_analysis import target_units
from training.evaluation.label_metrics import label_log_probabilities
from training.evaluation.loss_metrics import SQUARED_ERROR, TargetLoss
from training.evaluation.metrics import Weights, finite_or_none, log_probabilities
from training.evaluation.predictor import Predictor

MAX_PARTS = 30  # columns whose importance is kept
_MAX_ROWS, _MIN_ROWS = 2000, 100
_MAX_VALUES = 1 << 22  # of all shuffled rows together: 17 MB in float32
_MAX_REPEATS = 5
_PATCHES_PER_SIDE = 8  # of an image
_Z_95 = 1.96  # 95 % of a normal distribution are within so many standard deviations


@dataclass(frozen=True)
class _FeatureGroup:
    """Features that are shuffled together: those of a column, or of a patch of an image."""

    name: str
    features: NDArray[np.int64]


def permutation_importance(
    predictor: Predictor,
    signature: Signature,
    x: EncodedRows,
    y_true: NDArray[Any],
    rng: np.random.Generator,
    row_budget: int,
    weights: Weights = None,
    loss: TargetLoss = SQUARED_ERROR,
) -> dict[str, Any] | None:
    """Return the permutation importance (Breiman 2001): the cost of shuffling one feature group among the rows.

    The cost is the increase of the mean loss of a row, over `repeats` shuffles: of the log loss for a classification;
    for a regression of the squared error, divided by the variance of the targets, or with a `loss` that has a metric of
    its own of that, divided by the metric of the best constant. `low` and `high` are its 95 %
    confidence interval over the rows. None if there are fewer than two rows to shuffle.

    weights: of the rows (n,), default 1; means and variances are weighted.
    row_budget: the number of rows that may be sent through the network.
    """
    groups, grid = _feature_groups(signature)
    repeats = int(np.clip(row_budget // (_MIN_ROWS * len(groups)), 1, _MAX_REPEATS))
    most = min(_MAX_ROWS, max(_MIN_ROWS, _MAX_VALUES // signature.width))
    rows = min(len(x), most, max(_MIN_ROWS, row_budget // (len(groups) * repeats)))
    if rows < 2:
        return None
    sample = np.sort(rng.permutation(len(x))[:rows])
    own = None if weights is None else weights[sample]
    if own is not None and not own.any():
        return None
    effective = float(rows if own is None else own.sum() ** 2 / (own**2).sum())
    measure, losses = _row_losses(predictor.select(sample), signature, y_true[sample], own, loss)
    shuffled: NDArray[Any] = np.array(x[sample])
    before = losses(shuffled)
    costs = []
    for group in groups:
        original = shuffled[:, group.features]
        increase = np.zeros(rows)
        for _ in range(repeats):
            shuffled[:, group.features] = original[rng.permutation(rows)]
            increase += (losses(shuffled) - before) / repeats
        shuffled[:, group.features] = original
        cost = _mean(increase, own)
        variance = float(np.average((increase - cost) ** 2, weights=own))
        margin = _Z_95 * (variance / (effective - 1)) ** 0.5 if effective > 1 else 0.0
        limits = {"cost": cost, "low": cost - margin, "high": cost + margin}
        costs.append({"name": group.name, **{key: finite_or_none(value) for key, value in limits.items()}})
    score = finite_or_none(np.average(before, weights=own))
    found = {"measure": measure, "score": score, "rows": rows, "repeats": repeats}
    if grid is not None:
        return {**found, **grid, "parts": costs}
    costs.sort(key=lambda part: -np.inf if part["cost"] is None else part["cost"], reverse=True)
    left_out = max(0, len(costs) - MAX_PARTS)
    return {**found, "left_out": left_out, "parts": costs[:MAX_PARTS]}


def _feature_groups(signature: Signature) -> tuple[list[_FeatureGroup], dict[str, Any] | None]:
    """Return the groups to shuffle; for an image also the grid of its patches, row by row."""
    first = signature.inputs[0]
    if not first.is_whole_row:
        ends = list(accumulate(column.width for column in signature.inputs))
        spans = zip(signature.inputs, [0, *ends], ends, strict=False)
        return [_FeatureGroup(column.name, np.arange(start, end)) for column, start, end in spans], None
    features = np.arange(first.width)
    if len(first.shape) == 1:
        runs = np.array_split(features, min(len(features), _PATCHES_PER_SIDE**2))
        return [_FeatureGroup(_range_name(first.name, run), run) for run in runs], None
    height, width = first.shape[:2]
    pixels = features.reshape(height, width, -1)
    patch = -(-height // _PATCHES_PER_SIDE), -(-width // _PATCHES_PER_SIDE)
    tops, lefts = range(0, height, patch[0]), range(0, width, patch[1])
    patches = [
        _FeatureGroup(f"row {top}, column {left}", pixels[top : top + patch[0], left : left + patch[1]].reshape(-1))
        for top in tops
        for left in lefts
    ]
    return patches, {"grid": [len(tops), len(lefts)], "patch": list(patch)}


def _range_name(name: str, run: NDArray[np.int64]) -> str:
    return f"{name} {run[0]}" if len(run) == 1 else f"{name} {run[0]} to {run[-1]}"


def _row_losses(
    predictor: Predictor, signature: Signature, y_true: NDArray[Any], weights: Weights, loss: TargetLoss
) -> tuple[str, Callable[[NDArray[Any]], NDArray[np.float64]]]:
    """Return the name of the measure, and a function from encoded rows to the loss of each."""
    output = signature.output
    raw_outputs = partial(predictor.apply, apply_in_pieces)
    if isinstance(output, RegressionOutput) and loss.metric is not None:
        least = np.array([loss.least(values, weights) for values in y_true.T])
        least[~(np.isfinite(least) & (least > 0))] = 1.0
        return loss.metric, lambda x: (loss.errors(y_true, output.decode(raw_outputs(x))) / least).mean(axis=1)
    if isinstance(output, RegressionOutput):
        units = target_units(output, y_true)
        true = y_true / units
        variance = np.average((true - np.average(true, axis=0, weights=weights)) ** 2, axis=0, weights=weights)
        variance[variance == 0] = 1.0

        def squared_errors(x: NDArray[Any]) -> NDArray[np.float64]:
            errors: NDArray[np.float64] = ((output.decode(raw_outputs(x)) / units - true) ** 2 / variance).mean(axis=1)
            return errors

        return "squared_error", squared_errors
    if isinstance(output, MultiLabelOutput):
        present = y_true > 0

        def label_losses(x: NDArray[Any]) -> NDArray[np.float64]:
            log_p = predictor.apply(label_log_probabilities, x)
            losses: NDArray[np.float64] = -np.where(present, log_p[:, 0], log_p[:, 1]).mean(axis=1)
            return losses

        return "log_loss", label_losses
    rows = np.arange(len(y_true))
    return "log_loss", lambda x: -predictor.apply(log_probabilities, x)[rows, y_true]


def _mean(values: NDArray[np.float64], weights: Weights) -> float:
    """Return the mean; exactly 0 if the values cancel out except for rounding."""
    mean = float(np.average(values, weights=weights))
    return 0.0 if abs(mean) <= 1e-12 * np.abs(values).max() else mean
