"""What a request may ask for beside predictions: intervals or sets of labels at a level, and another threshold.

asked = read_asked_answers({"interval": 0.9}, model)        # InputError names every fault and what to do
signature = asked.signature(model)                          # decodes labels by the threshold asked for
asked.as_json(model, outputs)                               # {"intervals": [[low, high], ...]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model_store.artifact.conformal import Conformal, rows_needed
from model_store.artifact.model import Model
from model_store.errors import Fault, InputError
from model_store.nn import Array
from model_store.schema.signature import ClassificationOutput, RegressionOutput, Signature
from model_store.utils.values import describe_value, is_finite_number

KEYS = ("interval", "set", "threshold")
_TRAIN_AGAIN = "train again with calibration = 0.1 in [split]"


@dataclass(frozen=True)
class AskedAnswers:
    """Levels of intervals or sets, and a decision threshold; None for what is not asked for."""

    interval: float | None = None
    set: float | None = None
    threshold: float | None = None

    def signature(self, model: Model) -> Signature:
        """Return the model's signature, with the threshold if one is asked for."""
        output = model.signature.output
        if self.threshold is None or not isinstance(output, ClassificationOutput):
            return model.signature
        return replace(model.signature, output=replace(output, threshold=self.threshold))

    @property
    def range_key(self) -> str | None:
        """The key of what is asked for beside predictions: `intervals`, `sets` or None."""
        return "intervals" if self.interval is not None else "sets" if self.set is not None else None

    @property
    def values_per_output(self) -> int:
        """How many values a response has for each output of a row, beside the prediction."""
        return 2 if self.interval is not None else 1 if self.set is not None else 0

    def intervals(self, model: Model, outputs: Array) -> Array:
        """Return the intervals (n, targets, 2) of raw outputs (n, targets), lower ends first.

        InputError for rows whose interval is not finite.
        """
        values = model.signature.decode_arrays(outputs)["values"]
        with np.errstate(over="ignore", invalid="ignore"):
            found = np.stack(_scores(model).intervals(values, float(self.interval or 0)), axis=2)
        if not (is_finite := np.isfinite(found).all(axis=(1, 2))).all():
            problem, fix = "the interval is not finite", "send values in the range of the training data"
            raise InputError([Fault(f"instances.{i}", problem, fix) for i in np.flatnonzero(~is_finite)[:10]])
        return found

    def sets(self, model: Model, outputs: Array) -> Array:
        """Return which labels (n, labels) are in the set of each row of raw outputs."""
        return _scores(model).sets(model.signature.decode_arrays(outputs)["probabilities"], float(self.set or 0))

    def as_json(self, model: Model, outputs: Array) -> dict[str, list[Any]]:
        """Return `intervals` or `sets`, an item for each row of raw outputs (n, outputs).

        An interval is [low, high], of several targets an object of these by name. A set is a list of labels, the most
        probable one first.
        """
        output = model.signature.output
        if self.interval is not None and isinstance(output, RegressionOutput):
            ends = self.intervals(model, outputs).tolist()
            if len(output.names) == 1:
                return {"intervals": [row[0] for row in ends]}
            return {"intervals": [dict(zip(output.names, row, strict=True)) for row in ends]}
        if self.set is not None and isinstance(output, ClassificationOutput):
            order = np.argsort(-model.signature.decode_arrays(outputs)["probabilities"], axis=1, kind="stable")
            held = np.take_along_axis(self.sets(model, outputs), order, axis=1)
            rows = zip(order.tolist(), held.tolist(), strict=True)
            return {"sets": [[output.labels[i] for i, is_in in zip(*row, strict=True) if is_in] for row in rows]}
        return {}


def _scores(model: Model) -> Conformal:
    if model.conformal is None:
        raise ValueError("expected what read_asked_answers returned for this model, which has no conformal scores")
    return model.conformal


def read_asked_answers(asked: Mapping[str, Any], model: Model, prefix: str = "") -> AskedAnswers:
    """Return what the untrusted keys `interval`, `set` and `threshold` ask for. InputError with all faults.

    A key that is absent or None asks for nothing. `prefix`: of the locations of faults.
    """
    output, faults = model.signature.output, []
    given = {key: asked[key] for key in KEYS if asked.get(key) is not None}
    is_regression = isinstance(output, RegressionOutput)
    has_sets = isinstance(output, ClassificationOutput)
    for name, value in given.items():
        key = f"{prefix}{name}"
        if not is_finite_number(value) or not 0 < value < 1:
            example = '"threshold": 0.3' if name == "threshold" else f'"{name}": 0.9'
            faults.append(
                Fault(key, f"expected a number between 0 and 1, found {describe_value(value)}", f"send {example}")
            )
        elif name == "interval" and not is_regression:
            fix = 'send "set" for a set of labels' if has_sets else "leave it out"
            faults.append(Fault(key, "expected a model that predicts numbers, found one that predicts labels", fix))
        elif name == "set" and not has_sets:
            fix = 'send "interval"' if is_regression else "leave it out"
            found = "numbers" if is_regression else "several labels for a row"
            faults.append(Fault(key, f"expected a model that predicts one label, found one that predicts {found}", fix))
        elif name == "threshold":
            if not isinstance(output, ClassificationOutput) or len(output.labels) != 2:
                found = f"{len(output.labels)} labels" if isinstance(output, ClassificationOutput) else "another kind"
                faults.append(Fault(key, f"expected a model of two labels, found {found}", "leave it out"))
        elif (conformal := model.conformal) is None:
            faults.append(Fault(key, "expected a model with calibration rows, found one without", _TRAIN_AGAIN))
        elif conformal.rows < (needed := rows_needed(value)):
            promised = f"a level that {conformal.rows} calibration rows can promise"
            problem = f"expected {promised}, found {value}, which needs {needed}"
            fix = f"send {conformal.max_level} or less, or train again with more calibration rows"
            faults.append(Fault(key, problem, fix))
    if faults:
        raise InputError(faults)
    return AskedAnswers(**{key: float(value) for key, value in given.items()})
