"""Metrics: how good a model's answers are, beside the answers of somebody who looked at no input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.schema.signature import ClassificationOutput, RegressionOutput

MOST_CLASSES = 100  # whose confusion matrix is kept
MOST_MISTAKES = 20


def evaluate(
    output: ClassificationOutput | RegressionOutput, answers: NDArray[Any], outputs: NDArray[Any]
) -> dict[str, Any]:
    """JSON-able metrics of a network's raw `outputs` for rows with these `answers` (see `Dataset`)."""
    if isinstance(output, ClassificationOutput):
        return classification(output.labels, answers, predicted(outputs))
    return regression(output.names, answers, outputs.astype(np.float64) * output.scale + output.offset)


def baseline(
    output: ClassificationOutput | RegressionOutput, answers: NDArray[Any], training: NDArray[Any]
) -> dict[str, Any]:
    """The same metrics of the most frequent class, or of the mean, of the `training` answers."""
    if isinstance(output, ClassificationOutput):
        majority = int(np.bincount(training, minlength=len(output.labels)).argmax())
        found = classification(output.labels, answers, np.full(len(answers), majority))
        return {"answer": output.labels[majority], "accuracy": found["accuracy"]}
    means = training.mean(axis=0)
    return {
        "answer": [finite(mean) for mean in means],
        **regression(output.names, answers, np.broadcast_to(means, answers.shape)),
    }


def predicted(outputs: NDArray[Any]) -> NDArray[np.intp]:
    """The index of the label that each row of outputs says."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > 1 - outputs[:, 0]).astype(np.intp)
    best: NDArray[np.intp] = outputs.argmax(axis=1)
    return best


def classification(labels: Sequence[str | int], truth: NDArray[Any], found: NDArray[Any]) -> dict[str, Any]:
    """Accuracy; precision, recall, F1 and support of each class; the most frequent mistakes; the confusion matrix.

    The matrix has a row for each true class; of more classes than anybody looks at it is left out. A ratio with
    nothing to divide by, such as the precision of a class that is never answered, is 0.
    """
    count = len(labels)
    wrong = truth != found
    right, supports, answered = (np.bincount(of, minlength=count) for of in (truth[~wrong], truth, found))
    classes = {}
    for i, label in enumerate(labels):
        precision, recall = _ratio(right[i], answered[i]), _ratio(right[i], supports[i])
        f1 = _ratio(2 * right[i], answered[i] + supports[i])
        classes[str(label)] = {"precision": precision, "recall": recall, "f1": f1, "support": int(supports[i])}
    pairs, rows = np.unique(truth[wrong] * count + found[wrong], return_counts=True)
    most = np.argsort(-rows, kind="stable")[:MOST_MISTAKES]
    mistakes = [
        {"true": labels[pairs[i] // count], "answered": labels[pairs[i] % count], "rows": int(rows[i])} for i in most
    ]
    figures = {"accuracy": _ratio(right.sum(), len(truth)), "classes": classes, "mistakes": mistakes}
    if count <= MOST_CLASSES:
        confusion = np.bincount(truth * count + found, minlength=count * count).reshape(count, count)
        figures["confusion"] = confusion.tolist()
    return figures


def regression(names: Sequence[str], truth: NDArray[Any], found: NDArray[Any]) -> dict[str, Any]:
    """RMSE, MAE and R² of each target.

    R² is None where the truth does not vary, for there is nothing to explain; any is None when it overflows.
    """
    targets = {}
    for i, name in enumerate(names):
        errors = found[:, i] - truth[:, i]
        spread = float(((truth[:, i] - truth[:, i].mean()) ** 2).sum())
        targets[name] = {
            "rmse": finite(np.sqrt((errors**2).mean())),
            "mae": finite(np.abs(errors).mean()),
            "r2": finite(1 - (errors**2).sum() / spread) if spread > 0 else None,
        }
    return {"targets": targets}


def finite(value: Any) -> float | None:
    """A figure as JSON can hold it."""
    return float(value) if np.isfinite(value) else None


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
