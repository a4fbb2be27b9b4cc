"""The 95 % confidence interval of an error, from the results of the held-out rows that an artifact keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from model_store.evaluation.confidence import mean_interval
from model_store.evaluation.row_results import RowResults


def error_interval(training: Mapping[str, Any], target: str, metric: str) -> tuple[float, float] | None:
    """Return the interval of the mean loss of the rows, of an RMSE the root of that of its square; None if unknown.

    metric: "rmse", "mae", or the metric of the loss that the model was trained with.
    """
    results = RowResults.parse(training)
    errors = results and (results.absolute_errors if metric in ("rmse", "mae") else results.losses)
    if not errors or target not in errors:
        return None
    low, high = mean_interval(np.square(errors[target]) if metric == "rmse" else errors[target])
    return (max(0.0, low) ** 0.5, high**0.5) if metric == "rmse" else (low, high)
