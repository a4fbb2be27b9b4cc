"""Fitting of the transform of a regression's targets, on the training rows alone."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.signature import Output, RegressionOutput, Signature
from model_store.schema.target_transform import TargetTransform
from training.config.settings import DataSection
from training.data.fitting.signature import constant_target_fault
from training.data.fitting.statistics import skewness, summarize
from training.errors import DataError

_MIN_SKEWNESS = 1.0
_MIN_KNOTS, _MAX_KNOTS, _ROWS_PER_KNOT = 11, 101, 10  # of a quantile transform
_MAX_VALUES = 200_000  # of all targets together: 4 MB of a model file's manifest


def fit_target_transform(source: str, signature: Signature, targets: NDArray[Any], section: DataSection) -> Signature:
    """Return the signature with the transform that the job names, and offset and scale of the transformed targets.

    targets: (n, targets) of the training rows, or of a sample of them. DataError if one cannot be transformed.
    """
    output, kind = signature.output, section.target_transform
    if kind is None or not isinstance(output, RegressionOutput):
        return signature
    if fault := find_invalid_target(replace(output, transform=TargetTransform(kind)), targets):
        _, target, problem, fix = fault
        raise DataError(source, [Fault(f"column {output.names[target]}", problem, fix)])
    transform = fit_quantiles(targets) if kind == "quantile" else TargetTransform(kind)
    summaries = [summarize(values) for values in transform.apply(targets).T]
    names = zip(output.names, summaries, strict=True)
    if faults := [constant_target_fault(name, one.minimum) for name, one in names if one.is_constant]:
        raise DataError(source, faults)
    offset, scale = zip(*(one.scaling(section.scale != "none") for one in summaries), strict=True)
    return replace(signature, output=replace(output, transform=transform, offset=offset, scale=scale))


def find_skewed(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the skewness of targets (n,) and of their logarithms, if it is 1 or more and at most half of that.

    The skewness is `m₃ / m₂^(3/2)` of the central moments. None for other targets, and if one is not above 0.
    """
    if values.min() <= 0 or values.min() == values.max():
        return None
    before, after = skewness(values), skewness(np.log(values))
    return (before, after) if before >= _MIN_SKEWNESS and abs(after) <= before / 2 else None


def fit_quantiles(targets: NDArray[Any]) -> TargetTransform:
    """Return the transform of targets (n, targets) to normal scores.

    The knots are evenly spaced scores from that of the lowest of n rows, `Φ⁻¹(1 / 2n)`, to that of the highest; their
    values are the quantiles of the rows. There is one for each 10 rows, at least 11 and at most 101; fewer if there are
    more than 2,000 targets.
    """
    most = min(_MAX_KNOTS, len(targets) // _ROWS_PER_KNOT, _MAX_VALUES // targets.shape[1])
    count = max(_MIN_KNOTS, most)
    normal = NormalDist()
    highest = normal.inv_cdf(1 - 0.5 / max(2, len(targets)))
    scores = np.linspace(-highest, highest, count).tolist()
    levels = [normal.cdf(score) for score in scores]
    levels[0], levels[-1] = 0.0, 1.0
    values = np.maximum.accumulate(np.quantile(targets.astype(np.float64), levels, axis=0))  # rounding may not descend
    return TargetTransform("quantile", tuple(scores), tuple(map(tuple, values.T.tolist())))


def find_invalid_target(output: Output, targets: NDArray[Any]) -> tuple[int, int, str, str] | None:
    """Return row and target of the first value that the output cannot transform, the problem and a fix; else None."""
    transform = output.transform if isinstance(output, RegressionOutput) else None
    if transform is None or not len(invalid := np.argwhere(transform.find_invalid(targets))):
        return None
    row, target = invalid[0].tolist()
    problem = f"expected a target {transform.domain} for target_transform = '{transform.kind}'"
    fix = "write 'quantile'" if transform.kind != "quantile" else "correct the value"
    if transform.kind == "log" and (targets >= 0).all():
        fix = "write 'log1p' or 'quantile'"
    return row, target, f"{problem}, found {targets[row, target]:g}", f"{fix}, or remove it"
