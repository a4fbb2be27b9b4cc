"""Diagnostics: how a model errs on the rows it is judged on, as the figures that its report draws.

    calibration   {"of": label, "rows", "expected_error", "log_loss", "bins": [...]}, a bin being
                  {"low", "high", "rows", "said", "found"}: its mean probability, and how often that came true
    roc           {"of": label, "area", "points": [[false positive rate, true positive rate], ...]}, of two classes
    residuals     {"left_out", "targets": {name: {"rows", "bias", "median", "p90", "points": [[truth, answer], ...],
                  "edges", "counts", "outside"}}}; median and p90 of the errors' size, a histogram of the errors
    importance    {"measure", "score", "rows", "repeats", "left_out", "parts": [{"name", "cost", "deviation"}]}, the
                  costliest first; of an image patch by patch, with "grid" and "patch", both [rows, columns]

All of it is JSON: exact numbers, None where one is not defined, and never more of them than a page can show. Chance
comes from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.nn import Sequential
from model_store.schema.signature import ArrayColumn, ClassificationOutput, RegressionOutput, Signature
from training.evaluation.metrics import finite, predicted

BINS = 10  # of a reliability diagram
MOST_JUDGED = 100_000  # rows, drawn from more: enough for any figure here, and little memory
MOST_PARTS = 30  # columns whose importance is kept
MOST_TARGETS = 6  # of a regression whose residuals are kept
_MOST_POINTS = 300  # of a scatter of residuals
_MOST_STEPS = 100  # of an ROC curve
_MOST_ROWS = 2000  # that are shuffled
_LEAST_ROWS = 100
_REPEATS = 5
_SIDE = 8  # patches an image is divided into, each way


def diagnose(
    network: Sequential,
    signature: Signature,
    x: NDArray[Any],
    answers: NDArray[Any],
    outputs: NDArray[Any],
    rng: np.random.Generator,
    passes: int,
) -> dict[str, Any]:
    """The diagnostics of a network's raw `outputs` for encoded rows `x` with these `answers` (see `Dataset`).

    `passes` bounds the rows that importance may send through the network.
    """
    found: dict[str, Any] = {}
    output, judged, given = signature.output, answers, outputs
    if len(answers) > MOST_JUDGED:
        chosen = np.sort(rng.permutation(len(answers))[:MOST_JUDGED])
        judged, given = answers[chosen], outputs[chosen]
    if isinstance(output, ClassificationOutput):
        found["calibration"] = calibration(output.labels, judged, given)
        if len(output.labels) == 2:
            found["roc"] = roc(output.labels[1], judged == 1, given[:, -1])
    else:
        found["residuals"] = residuals(output, judged, given, rng)
    found["importance"] = importance(network, signature, x, answers, rng, passes)
    return found


def calibration(labels: Sequence[str | int], answers: NDArray[Any], outputs: NDArray[Any]) -> dict[str, Any]:
    """How often a probability that the model says comes true.

    Of two labels it is the second's probability, of more that of the answer. The expected calibration error is
    `Σ rows_b / rows · |said_b - found_b|` over the bins b.
    """
    p = _probabilities(outputs)
    said, came = (p[:, 1], answers == 1) if len(labels) == 2 else (p.max(axis=1), p.argmax(axis=1) == answers)
    bins = []
    slots = np.clip((said * BINS).astype(np.int64), 0, BINS - 1)
    for i in range(BINS):
        inside = slots == i
        if rows := int(inside.sum()):
            means = {"said": float(said[inside].mean()), "found": float(came[inside].mean())}
            bins.append({"low": i / BINS, "high": (i + 1) / BINS, "rows": rows, **means})
    return {
        "of": str(labels[1]) if len(labels) == 2 else None,
        "rows": len(p),
        "expected_error": sum(part["rows"] * abs(part["said"] - part["found"]) for part in bins) / len(p),
        "log_loss": _log_loss(p, answers),
        "bins": bins,
    }


def roc(label: str | int, truth: NDArray[np.bool_], score: NDArray[Any]) -> dict[str, Any] | None:
    """The rates of false and of true positives as the threshold falls; None when the rows are all of one class."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # of the rows that share a score
    true = np.concatenate([[0.0], np.cumsum(truth[order])[last] / positives])
    false = np.concatenate([[0.0], np.cumsum(~truth[order])[last] / negatives])
    area = float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())
    kept = np.unique(np.linspace(0, len(true) - 1, _MOST_STEPS).astype(np.int64))
    return {"of": str(label), "area": area, "points": np.column_stack([false[kept], true[kept]]).tolist()}


def residuals(
    output: RegressionOutput, answers: NDArray[Any], outputs: NDArray[Any], rng: np.random.Generator
) -> dict[str, Any] | None:
    """Each target's answers beside the truth, and how their errors (answer - truth) are spread.

    Histograms leave the outermost percent out where that makes them wider than their middle deserves; None
    when an error is beyond what a number can say.
    """
    found = outputs.astype(np.float64) * output.scale + output.offset
    with np.errstate(over="ignore"):
        if not np.isfinite(((found - answers) ** 2).sum()):
            return None
    chosen = np.sort(rng.permutation(len(answers))[:_MOST_POINTS])
    targets = {}
    for i, name in enumerate(output.names[:MOST_TARGETS]):
        errors = found[:, i] - answers[:, i]
        low, high = np.quantile(errors, [0.005, 0.995]) if len(errors) >= 200 else (errors.min(), errors.max())
        counts, edges = np.histogram(errors, bins=int(np.clip(len(errors) ** 0.5, 5, 30)), range=_widened(low, high))
        size = np.abs(errors)
        targets[name] = {
            "rows": len(errors),
            "bias": float(errors.mean()),
            "median": float(np.median(size)),
            "p90": float(np.quantile(size, 0.9)),
            "points": np.column_stack([answers[chosen, i], found[chosen, i]]).tolist(),
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "outside": int(len(errors) - counts.sum()),
        }
    return {"left_out": max(0, len(output.names) - MOST_TARGETS), "targets": targets}


@dataclass(frozen=True)
class _Part:
    """Features of the network that are shuffled together: a column, or a patch of an image."""

    name: str
    features: NDArray[np.int64]


def importance(
    network: Sequential,
    signature: Signature,
    x: NDArray[Any],
    answers: NDArray[Any],
    rng: np.random.Generator,
    passes: int,
) -> dict[str, Any] | None:
    """Permutation importance (Breiman 2001): what it costs to shuffle one part of the rows among each other.

    A cost is the loss of accuracy, of arrays the rise of the log loss, which a patch or a value more moves too; of a
    regression the rise of the RMSE, each of several targets by its scale. It is a mean over `repeats` shuffles, with
    its standard deviation. None when there are fewer than two rows to shuffle.
    """
    parts, grid = _parts(signature)
    rows = min(len(x), _MOST_ROWS, max(_LEAST_ROWS, passes // len(parts)))
    repeats = int(np.clip(passes // (rows * len(parts) or 1), 1, _REPEATS))
    if rows < 2:
        return None
    chosen = np.sort(rng.permutation(len(x))[:rows])
    measure, loss = _measure(signature, answers[chosen])
    x = x[chosen]
    before = loss(network(x))
    costs = []
    for part in parts:
        kept = x[:, part.features]
        losses = []
        for _ in range(repeats):
            x[:, part.features] = kept[rng.permutation(rows)]
            losses.append(loss(network(x)) - before)
        x[:, part.features] = kept
        costs.append({"name": part.name, "cost": finite(_mean(losses)), "deviation": finite(np.std(losses))})
    score = 1 - before if measure == "accuracy" else before
    found = {"measure": measure, "score": finite(score), "rows": rows, "repeats": repeats}
    if grid is not None:
        return {**found, **grid, "parts": costs}
    costs.sort(key=lambda part: -np.inf if part["cost"] is None else part["cost"], reverse=True)
    return {**found, "left_out": max(0, len(costs) - MOST_PARTS), "parts": costs[:MOST_PARTS]}


def _parts(signature: Signature) -> tuple[list[_Part], dict[str, Any] | None]:
    """What to shuffle; of an image, also the grid of its patches, row by row."""
    first = signature.inputs[0]
    if not isinstance(first, ArrayColumn):
        ends = list(accumulate(column.width for column in signature.inputs))
        spans = zip(signature.inputs, [0, *ends], ends, strict=False)
        return [_Part(column.name, np.arange(start, end)) for column, start, end in spans], None
    features = np.arange(first.width)
    if len(first.shape) == 1:
        runs = np.array_split(features, min(len(features), _SIDE * _SIDE))
        return [_Part(_span(first.name, run), run) for run in runs], None
    height, width = first.shape[:2]
    pixels = features.reshape(height, width, -1)
    patch = -(-height // _SIDE), -(-width // _SIDE)
    tops, lefts = range(0, height, patch[0]), range(0, width, patch[1])
    patches = [
        _Part(f"row {top}, column {left}", pixels[top : top + patch[0], left : left + patch[1]].reshape(-1))
        for top in tops
        for left in lefts
    ]
    return patches, {"grid": [len(tops), len(lefts)], "patch": list(patch)}


def _span(name: str, run: NDArray[np.int64]) -> str:
    return f"{name} {run[0]}" if len(run) == 1 else f"{name} {run[0]} to {run[-1]}"


def _measure(signature: Signature, answers: NDArray[Any]) -> tuple[str, Callable[[NDArray[Any]], float]]:
    """What importance is measured by, and how much of it outputs lose."""
    output = signature.output
    if isinstance(output, RegressionOutput):
        truth = (answers - output.offset) / output.scale
        unit = output.scale[0] if len(output.scale) == 1 else 1.0
        return "rmse", lambda outputs: float(np.sqrt(((outputs - truth) ** 2).mean()) * unit)
    if isinstance(signature.inputs[0], ArrayColumn):
        return "log_loss", lambda outputs: _log_loss(_probabilities(outputs), answers)
    return "accuracy", lambda outputs: float((predicted(outputs) != answers).mean())


def _probabilities(outputs: NDArray[Any]) -> NDArray[np.float64]:
    """A column for each label, also where the network gives the second of two alone."""
    p = outputs.astype(np.float64)
    return np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p


def _log_loss(p: NDArray[np.float64], answers: NDArray[Any]) -> float:
    """`-mean ln p(true label)`; a probability of 0 counts as the smallest normal number."""
    true = p[np.arange(len(p)), answers]
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def _mean(values: Sequence[float]) -> float:
    """0 exactly where the values cancel each other out, but for rounding."""
    mean = float(np.mean(values))
    return 0.0 if abs(mean) <= 1e-12 * np.abs(values).max() else mean


def _widened(low: Any, high: Any) -> tuple[float, float]:
    """A range that is wide enough to be divided: a model may make no error at all."""
    middle, half = (float(low) + float(high)) / 2, (float(high) - float(low)) / 2
    half = max(half, abs(middle) * 1e-6, 1e-9)
    return middle - half, middle + half
