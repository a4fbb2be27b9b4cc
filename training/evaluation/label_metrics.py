"""Metrics of a multi-label classifier, in which a row has any subset of the labels."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.nn import Sequential, Sigmoid
from model_store.schema.multi_label import MultiLabelOutput
from training.encoded_rows import CompactRows, EncodedRows, apply_in_pieces
from training.evaluation.threshold_curves import roc_area

_MAX_LOGIT = 1e300  # of a network that overflows


def multi_label_metrics(
    output: MultiLabelOutput,
    y_true: NDArray[Any],
    p: NDArray[Any],
    weights: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Return the metrics of probabilities p (rows, labels) for targets y_true, 0 or 1, of the same shape.

    exact_match   the share of rows whose labels are all predicted, and no others
    hamming_loss  the share of all pairs of a row and a label that are wrong
    micro_f1      F1 of all these pairs together
    macro_f1      the mean F1 of the labels that a row has
    log_loss      the mean binary cross entropy of the pairs; 0 and 1 are moved by a rounding error of float32
    roc_auc       the mean ROC area of the labels that some rows have and others do not; None without any

    `labels` holds the metrics of each. A ratio whose denominator is 0 is 0. All but the ROC area and the support, the
    number of rows with a label, are weighted.
    """
    true, predicted = y_true > 0, output.decode(p)["labels"]
    both = _sums(true & predicted, weights)
    positives, flagged = _sums(true, weights), _sums(predicted, weights)
    losses = np.array([np.average(_losses(*pair), weights=weights) for pair in zip(true.T, p.T, strict=True)])
    support = true.sum(axis=0)
    labels: dict[str, dict[str, Any]] = {}
    for i, label in enumerate(output.labels):
        labels[label] = {
            "precision": _divide(both[i], flagged[i]),
            "recall": _divide(both[i], positives[i]),
            "f1": _divide(2 * both[i], positives[i] + flagged[i]),
            "roc_auc": roc_area(true[:, i], p[:, i]),
            "log_loss": float(losses[i]),
            "support": int(support[i]),
        }
    found, areas = [row for row in labels.values() if row["support"]], [row["roc_auc"] for row in labels.values()]
    known = [area for area in areas if area is not None]
    return {
        "exact_match": float(np.average((true == predicted).all(axis=1), weights=weights)),
        "hamming_loss": float(np.average((true != predicted).mean(axis=1), weights=weights)),
        "micro_f1": _divide(2 * both.sum(), positives.sum() + flagged.sum()),
        "macro_f1": statistics.fmean(row["f1"] for row in found) if found else 0.0,
        "log_loss": float(losses.mean()),
        "roc_auc": statistics.fmean(known) if known else None,
        "labels": labels,
    }


def label_frequencies(y_train: NDArray[Any], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the share of the rows with each label, (labels,): its probability without any input."""
    return np.asarray(np.average(y_train, axis=0, weights=weights))


def label_log_probabilities(network: Sequential, x: EncodedRows) -> NDArray[np.float64]:
    """Return `ln p` and `ln(1 - p)` of each label for encoded rows x: (rows, 2, labels).

    Exact for any logits z: `-ln(1 + e^∓z)` before a `Sigmoid`. Without logits, the logarithms of the outputs, moved
    from 0 and 1 by a rounding error of float32.
    """
    if isinstance(x, CompactRows):
        return apply_in_pieces(lambda piece: label_log_probabilities(network, piece), x)
    if type(network.modules[-1]) is not Sigmoid:
        p = _clip(network(x))
        return np.stack([np.log(p), np.log1p(-p)], axis=1)
    z = np.clip(network.without_last()(x).astype(np.float64), -_MAX_LOGIT, _MAX_LOGIT)
    return -np.logaddexp(0, np.stack([-z, z], axis=1))


def _losses(true: NDArray[np.bool_], p: NDArray[Any]) -> NDArray[np.float64]:
    p = _clip(p)
    return -np.log(np.where(true, p, 1 - p))


def _clip(p: NDArray[Any]) -> NDArray[np.float64]:
    eps = float(np.finfo(np.float32).eps)
    return np.clip(p.astype(np.float64), eps, 1 - eps)


def _sums(mask: NDArray[np.bool_], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    return mask.sum(axis=0, dtype=np.float64) if weights is None else weights @ mask


def _divide(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
