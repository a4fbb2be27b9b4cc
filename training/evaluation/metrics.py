"""Metrics of a model's predictions, and of a baseline that ignores the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.evaluation.record import OVERALL_LABEL_METRICS
from model_store.evaluation.row_results import RowResults
from model_store.nn import Sequential, Sigmoid, Softmax
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Output
from model_store.utils.values import exact_unit
from training.encoded_rows import CompactRows, EncodedRows, apply_in_pieces
from training.evaluation.label_metrics import label_frequencies, multi_label_metrics
from training.evaluation.loss_metrics import SQUARED_ERROR, TargetLoss

Weights = NDArray[np.float64] | None  # (n,): of rows; all 1 by default

MAX_MATRIX_CLASSES = 100  # with more classes the confusion matrix is not kept
MAX_MISTAKES = 20
_MAX_LOGIT = 1e300  # of a network that overflows; sums of logits stay finite


def evaluate(
    output: Output,
    y_true: NDArray[Any],
    outputs: NDArray[Any],
    weights: Weights = None,
    loss: TargetLoss = SQUARED_ERROR,
) -> dict[str, Any]:
    """Return the metrics, ready for JSON, of a network's raw `outputs` for rows with these targets and weights.

    loss: that of a regression.
    y_true: class indices (n,), 0 or 1 for each label (n, labels), or values (n, targets); see `Dataset`.
    """
    if isinstance(output, MultiLabelOutput):
        return multi_label_metrics(output, y_true, outputs, weights)
    if isinstance(output, ClassificationOutput):
        return classification_metrics(output.labels, y_true, output.predicted(outputs), weights)
    return regression_metrics(output.names, y_true, output.decode(outputs), weights, loss)


def row_results(
    output: Output, y_true: NDArray[Any], outputs: NDArray[Any], digest: str, loss: TargetLoss = SQUARED_ERROR
) -> RowResults:
    """Return the results of each row, for comparisons in pairs. The arguments are those of `evaluate`.

    digest: of the rows; see `Dataset.rows_digest`. Of several labels, all must be correct.
    """
    if isinstance(output, MultiLabelOutput):
        return RowResults.of_classes(digest, (output.decode(outputs)["labels"] == (y_true > 0)).all(axis=1))
    if isinstance(output, ClassificationOutput):
        return RowResults.of_classes(digest, output.predicted(outputs) == y_true)
    predicted = output.decode(outputs)
    with np.errstate(all="ignore"):  # an undefined deviance is not kept
        losses = None if loss.metric is None else loss.errors(y_true.astype(np.float64), predicted.astype(np.float64))
    return RowResults.of_targets(digest, output.names, predicted - y_true, losses)


def evaluate_baseline(
    output: Output,
    y_true: NDArray[Any],
    y_train: NDArray[Any],
    weights: Weights = None,
    train_weights: Weights = None,
    loss: TargetLoss = SQUARED_ERROR,
) -> dict[str, Any]:
    """Return the metrics of always predicting the most frequent class of the training rows, the frequency of each of
    several labels, or for a regression the best constant of its loss: their mean, or their quantile.
    """
    if isinstance(output, MultiLabelOutput):
        p = label_frequencies(y_train, train_weights)
        metrics = multi_label_metrics(output, y_true, np.broadcast_to(p, y_true.shape), weights)
        answer = [label for label, has in zip(output.labels, output.decode(p)["labels"], strict=True) if has]
        return {"answer": answer, **{key: metrics[key] for key in OVERALL_LABEL_METRICS}}
    if isinstance(output, ClassificationOutput):
        majority = int(np.bincount(y_train, train_weights, minlength=len(output.labels)).argmax())
        metrics = classification_metrics(output.labels, y_true, np.full(len(y_true), majority), weights)
        return {"answer": output.labels[majority], "accuracy": metrics["accuracy"]}
    best = np.array([loss.best_constant(values, train_weights) for values in y_train.T])
    return {
        "answer": [finite_or_none(value) for value in best],
        **regression_metrics(output.names, y_true, np.broadcast_to(best, y_true.shape), weights, loss),
    }


def log_probabilities(network: Sequential, x: EncodedRows) -> NDArray[np.float64]:
    """Return `ln p` of each label for encoded rows `x`: (n, labels), also if the network has a single output.

    It is exact for any logits z: `zᵢ - ln Σⱼ e^zⱼ` before a `Softmax`, `-ln(1 + e^∓z)` before a `Sigmoid`. In float32 a
    probability is 0 below a logit of -104, and 1 above 17. Only without logits it is the logarithm of the outputs,
    where one below the smallest normal number counts as that number.
    """
    if isinstance(x, CompactRows):
        return apply_in_pieces(lambda piece: log_probabilities(network, piece), x)
    log_p: NDArray[np.float64]
    if (last := type(network.modules[-1])) not in (Softmax, Sigmoid):
        p = network(x)
        p = np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p
        log_p = np.log(np.maximum(p, np.finfo(p.dtype).tiny), dtype=np.float64)
        return log_p
    z = np.clip(network.without_last()(x).astype(np.float64), -_MAX_LOGIT, _MAX_LOGIT)
    if last is Sigmoid:
        log_p = -np.logaddexp(0, np.concatenate([z, -z], axis=1))
        return log_p
    z -= z.max(axis=1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return z


def log_loss(log_p: NDArray[np.float64], y_true: NDArray[Any], weights: Weights = None) -> float:
    """Return `-mean ln p(true label)` for class indices `y_true` (n,); a weighted mean, if there are `weights`."""
    return -float(np.average(log_p[np.arange(len(log_p)), y_true], weights=weights))


def classification_metrics(
    labels: Sequence[str | int], y_true: NDArray[Any], y_pred: NDArray[Any], weights: Weights = None
) -> dict[str, Any]:
    """Return accuracy, the metrics of each class, the most frequent mistakes and the confusion matrix.

    Accuracy, precision, recall and F1 are weighted; support, mistakes and matrix count rows.

    The matrix has a row for each true class and a column for each predicted one; with more than `MAX_MATRIX_CLASSES`
    classes it is left out. A ratio whose denominator is 0, such as the precision of a class that is never predicted,
    is 0.
    """
    count = len(labels)
    wrong = y_true != y_pred
    right = None if weights is None else weights[~wrong]
    correct, supports, predicted = (
        np.bincount(of, own, count) for of, own in ((y_true[~wrong], right), (y_true, weights), (y_pred, weights))
    )
    rows_of_class = np.bincount(y_true, minlength=count)
    classes = {}
    for i, label in enumerate(labels):
        precision, recall = _divide(correct[i], predicted[i]), _divide(correct[i], supports[i])
        f1 = _divide(2 * correct[i], predicted[i] + supports[i])
        classes[str(label)] = {"precision": precision, "recall": recall, "f1": f1, "support": int(rows_of_class[i])}
    pairs, rows = np.unique(y_true[wrong] * count + y_pred[wrong], return_counts=True)
    order = np.argsort(-rows, kind="stable")[:MAX_MISTAKES]
    mistakes = [
        {"true": labels[pairs[i] // count], "answered": labels[pairs[i] % count], "rows": int(rows[i])} for i in order
    ]
    metrics = {"accuracy": _divide(correct.sum(), supports.sum()), "classes": classes, "mistakes": mistakes}
    if count <= MAX_MATRIX_CLASSES:
        confusion = np.bincount(y_true * count + y_pred, minlength=count * count).reshape(count, count)
        metrics["confusion"] = confusion.tolist()
    return metrics


def regression_metrics(
    names: Sequence[str],
    y_true: NDArray[Any],
    y_pred: NDArray[Any],
    weights: Weights = None,
    loss: TargetLoss = SQUARED_ERROR,
) -> dict[str, Any]:
    """Return RMSE, MAE and R² of each target, and the metrics of its loss; weighted means, if there are `weights`.

    R² is None if the true values are constant; any metric is None if it overflows.
    """
    targets = {}
    for i, name in enumerate(names):
        unit = exact_unit(y_true[:, i])
        true = y_true[:, i] / unit
        errors = y_pred[:, i] / unit - true
        share: Any = 1 if weights is None else weights
        total = float((share * (true - np.average(true, weights=weights)) ** 2).sum())
        targets[name] = {
            "rmse": finite_or_none(np.sqrt(np.average(errors**2, weights=weights)) * unit),
            "mae": finite_or_none(np.average(np.abs(errors), weights=weights) * unit),
            "r2": finite_or_none(1 - (share * errors**2).sum() / total) if total > 0 else None,
            **{key: finite_or_none(value) for key, value in loss.metrics(y_true[:, i], y_pred[:, i], weights).items()},
        }
    return {"targets": targets}


def finite_or_none(value: Any) -> float | None:
    """Return the value as a float, or None if JSON cannot hold it."""
    return float(value) if np.isfinite(value) else None


def _divide(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
