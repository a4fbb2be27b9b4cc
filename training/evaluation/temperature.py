"""Temperature scaling: one number that divides the logits, so that probabilities agree with observed frequencies.

    fit = fit_temperature(logits, targets, rng)     # None unless it lowers the log loss of rows not used for it

`p = softmax(z / T)`, or `σ(z / T)` of each output of a sigmoid; Guo, Pleiss, Sun & Weinberger 2017, "On calibration of
modern neural networks". T changes no order of probabilities, so no answer changes that is the most probable label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 50  # validation rows; fewer say too little of a temperature
PRIOR_ROWS = 10  # chosen on rows of 13 tables that no test uses: with 0 to 20, log losses differ by 0.1 %
MAX_TEMPERATURE = 20.0  # and at least its inverse
MAX_DRAWS = 20  # of halves: on the same tables, log losses with a temperature are 0.1 to 0.3 % lower in the mean
_DRAWN_VALUES = 1 << 18  # of logits in all halvings
_MAX_VALUES = 1 << 20  # of logits that a temperature is fitted on: 8 MB in float64
_HALVINGS = 40  # of the range of ln T, whose width is then 5e-12

Weights = NDArray[np.float64] | None


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature, and the log loss of rows whose temperature was fitted on others: without it and with it."""

    temperature: float
    rows: int
    log_loss_before: float
    log_loss_after: float

    def as_json(self) -> dict[str, Any]:
        """Return the entry "temperature" of a training record."""
        losses = {"before": self.log_loss_before, "after": self.log_loss_after}
        return {"value": self.temperature, "rows": self.rows, "log_loss": losses}


def fit_temperature(
    logits: NDArray[np.float64],
    targets: NDArray[np.float64],
    rng: np.random.Generator,
    weights: Weights = None,
    *,
    is_softmax: bool,
) -> TemperatureFit | None:
    """Return the temperature of logits (n, outputs), or None if it does not lower the log loss of other rows.

    targets: 1 for the true labels of a row, else 0 (n, outputs).
    is_softmax: False for outputs that have a sigmoid each.

    Each half of the rows, drawn by `rng`, is measured with the temperature of the other half, for a small table in the
    mean of up to `MAX_DRAWS` halvings: one says little of 100 rows. The temperature returned is fitted on all rows. Of
    more than a million logits, a random sample of the rows is used. None with fewer rows than `MIN_ROWS`, or if all
    rows of a half weigh nothing.
    """
    if len(logits) < MIN_ROWS:
        return None
    chosen = np.sort(rng.permutation(len(logits))[: max(MIN_ROWS, _MAX_VALUES // logits.shape[1])])
    z, t, w = logits[chosen], targets[chosen], None if weights is None else weights[chosen]
    if w is not None and not w.any():
        return None
    draws = min(MAX_DRAWS, max(1, _DRAWN_VALUES // z.size))
    losses = [_held_out_loss(z, t, w, rng.permutation(len(z)), is_softmax=is_softmax) for _ in range(draws)]
    before, after = logit_loss(z, t, w, is_softmax=is_softmax), float(np.mean(losses))
    if not after < before:
        return None
    return TemperatureFit(best_temperature(z, t, w, is_softmax=is_softmax), len(z), before, after)


def _held_out_loss(
    logits: NDArray[np.float64],
    targets: NDArray[np.float64],
    weights: Weights,
    order: NDArray[np.int64],
    *,
    is_softmax: bool,
) -> float:
    """Return the log loss of each half of the rows in `order` with the temperature of the other; NaN without one."""
    halves = [np.sort(order[i::2]) for i in range(2)]
    parts = [(logits[rows], targets[rows], None if weights is None else weights[rows]) for rows in halves]
    amounts = [float(len(z) if w is None else w.sum()) for z, _, w in parts]
    if not all(amounts):
        return np.nan
    fitted = [best_temperature(*part, is_softmax=is_softmax) for part in parts]
    losses = [
        logit_loss(z / other, t, w, is_softmax=is_softmax) for (z, t, w), other in zip(parts, fitted[::-1], strict=True)
    ]
    return float(np.average(losses, weights=amounts))


def best_temperature(
    logits: NDArray[np.float64], targets: NDArray[np.float64], weights: Weights = None, *, is_softmax: bool
) -> float:
    """Return the T of least log loss, from `1 / MAX_TEMPERATURE` to `MAX_TEMPERATURE`.

    The loss is convex in β = 1/T: `∂L/∂β = mean Σⱼ (pⱼ - tⱼ) zⱼ` ascends, and its zero is found by halving. As if
    `c = PRIOR_ROWS` rows more had the labels that the network expects, targets are `(n t + c p) / (n + c)`, p at T = 1:
    few rows change T little, and rows that are all right do not get T = 0.
    """
    n = len(logits)
    expected = _probabilities(logits, is_softmax=is_softmax)
    targets = (n * targets + PRIOR_ROWS * expected) / (n + PRIOR_ROWS)
    low, high = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        p = _probabilities(logits * np.exp(middle), is_softmax=is_softmax)
        slope = np.average(((p - targets) * logits).sum(axis=1), weights=weights)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def logit_loss(
    logits: NDArray[np.float64], targets: NDArray[np.float64], weights: Weights = None, *, is_softmax: bool
) -> float:
    """Return the mean of `-Σⱼ tⱼ ln pⱼ`, of sigmoids the mean over the outputs too."""
    if is_softmax:
        shifted = logits - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - (targets * shifted).sum(axis=1)
    else:
        losses = (np.logaddexp(0, logits) - targets * logits).mean(axis=1)
    return float(np.average(losses, weights=weights))


def unscale_log_probabilities(log_p: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return `ln p` (n, labels, ...) as it was before the temperature: `ln softmax(T ln p)` over axis 1."""
    z = log_p * temperature
    z -= z.max(axis=1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return z


def _probabilities(logits: NDArray[np.float64], *, is_softmax: bool) -> NDArray[np.float64]:
    if not is_softmax:
        return np.asarray(np.exp(-np.logaddexp(0, -logits)))
    p: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))
