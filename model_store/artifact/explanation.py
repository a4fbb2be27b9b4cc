"""Explanations: what each column contributed to the difference between an answer and the baseline's.

    explain(model, inputs, outputs, read_asked(True, model))

What is explained is a number that the answer tells: the probability of a label, or a target in its own units. So the
contributions of a row, with a residual of rounding, add up to numbers that a caller sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.artifact.model import Model
from model_store.errors import Fault, InputError, did_you_mean
from model_store.nn import Array
from model_store.nn.integrated_gradients import ExplanationTooLargeError, integrated_gradients
from model_store.schema.columns import ArrayColumn
from model_store.schema.signature import ClassificationOutput, RegressionOutput, Signature
from model_store.utils.values import describe_value, list_names

_KEYS = ("baseline", "label", "target")


@dataclass(frozen=True)
class Asked:
    """What a request wants explained: the encoded `baseline` (width,), and the index of a label or target.

    Without an index: the label of the answer, of several the most probable one, or the first target.
    """

    baseline: Array
    index: int | None = None


@dataclass(frozen=True)
class Explanations:
    """Explanations of n rows: contributions by column, (n,) or (n, *shape) of an array, and what they add up to.

    answers - baselines = the sum of all contributions + residuals. `names` are those of the labels or targets.
    """

    names: list[Any] | None
    baselines: Array
    answers: Array
    contributions: dict[str, Array]
    residuals: Array
    is_label: bool

    def as_json(self) -> list[dict[str, Any]]:
        """Return an object for each row."""
        key = "label" if self.is_label else "target"
        names = [{}] * len(self.answers) if self.names is None else [{key: name} for name in self.names]
        columns = {name: values.tolist() for name, values in self.contributions.items()}
        numbers = (self.baselines.tolist(), self.answers.tolist(), self.residuals.tolist())
        return [
            {
                **name,
                "baseline": baseline,
                "answer": answer,
                "contributions": {column: values[i] for column, values in columns.items()},
                "residual": residual,
            }
            for i, (name, baseline, answer, residual) in enumerate(zip(names, *numbers, strict=True))
        ]


def read_asked(value: Any, model: Model, location: str = "explain") -> Asked:
    """Return what a request's untrusted key `explain`, true or an object, asks for. InputError with all faults."""
    faults: list[Fault] = []
    wanted = {} if value is True else value
    if not isinstance(wanted, dict):
        fix = f'send "{location}": true, or an object with {list_names(_KEYS)}'
        raise InputError([Fault(location, f"expected true or an object, found {describe_value(value)}", fix)])
    output = model.signature.output
    key = "target" if isinstance(output, RegressionOutput) else "label"
    for name in list(wanted)[: InputError.MAX_FAULTS]:
        if name not in ("baseline", key):
            fix = did_you_mean(name, ("baseline", key)) or f"the keys are baseline and {key}"
            faults.append(Fault(f"{location}.{name[:100]}", "unknown key", fix))
    index = None
    if wanted.get(key) is not None:
        names = output.names if isinstance(output, RegressionOutput) else output.labels
        index = _find(wanted[key], names, f"{location}.{key}", faults)
    baseline = None
    try:
        baseline = _read_baseline(wanted.get("baseline"), model, location)
    except InputError as error:
        faults += error.faults
    if faults or baseline is None:
        raise InputError(faults)
    return Asked(baseline, index)


def explain(
    model: Model,
    inputs: Array,
    outputs: Array,
    asked: Asked,
    location: str = "instances",
    *,
    signature: Signature | None = None,
) -> Explanations:
    """Return the explanations of encoded rows (n, width) with the raw outputs (n, outputs). Thread-safe.

    signature: decides which label is the answer; default: the model's. InputError if the network is too large, or if a
    contribution is not finite: at a row of `location`.
    """
    signature = model.signature if signature is None else signature
    output = signature.output
    is_label = not isinstance(output, RegressionOutput)
    chosen, value = np.zeros(len(inputs), np.intp), None
    found, at_baseline = (
        signature.decode_arrays(raw) for raw in (outputs, model.network(asked.baseline.reshape(1, *inputs.shape[1:])))
    )
    numbers = "probabilities" if is_label else "values"
    if asked.index is not None:
        chosen[:] = asked.index
    elif isinstance(output, ClassificationOutput):
        chosen = output.predicted(outputs)
    elif is_label:
        chosen = found[numbers].argmax(axis=1)
    places, signs = chosen, np.ones(len(chosen))
    if is_label and outputs.shape[1] == 1:  # of two labels, the probability of the second
        places, signs = np.zeros_like(chosen), np.where(chosen == 1, 1.0, -1.0)
    if isinstance(output, RegressionOutput):
        value = _decoded(output, int(chosen[0]))
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            features = integrated_gradients(model.network, inputs, asked.baseline, places, value or _unchanged)
            features *= signs[:, None]
    except ExplanationTooLargeError as error:
        raise InputError([Fault("explain", str(error), "leave explain out")]) from error
    answers = found[numbers][np.arange(len(chosen)), chosen].astype(np.float64)
    baselines = at_baseline[numbers][0, chosen].astype(np.float64)
    if not (is_finite := np.isfinite(features).all(axis=1)).all():
        problem, fix = "the explanation is not finite", "send values in the range of the training data"
        raise InputError([Fault(f"{location}.{i}", problem, fix) for i in np.flatnonzero(~is_finite)[:10]])
    known = output.names if isinstance(output, RegressionOutput) else output.labels
    names = [known[i] for i in chosen] if is_label or len(known) > 1 else None
    residuals = answers - baselines - features.sum(axis=1)
    return Explanations(names, baselines, answers, _by_column(model, features), residuals, is_label)


def _unchanged(outputs: Array) -> Array:
    return outputs


def _decoded(output: RegressionOutput, target: int) -> Callable[[Array], Array]:
    """Return the function from an output of the network to the target in its units, for a number each."""

    def value(numbers: Array) -> Array:
        outputs = np.zeros((numbers.size, len(output.names)))
        outputs[:, target] = numbers.ravel()
        values: Array = output.decode(outputs)[:, target].reshape(numbers.shape)
        return values

    return value


def _by_column(model: Model, features: Array) -> dict[str, Array]:
    """Return the contributions of features (n, width) by column, summed unless the column is an array."""
    found: dict[str, Array] = {}
    start = 0
    for column in model.signature.inputs:
        own = features[:, start : start + column.width]
        is_array = isinstance(column, ArrayColumn)
        found[column.name] = own.reshape(-1, *column.shape) if is_array else own.sum(axis=1)
        start += column.width
    return found


def _read_baseline(row: Any, model: Model, location: str) -> Array:
    if row is not None:
        try:
            baseline: Array = model.encode([row], f"{location}.baseline")[0]
            return baseline
        except InputError as error:
            first = f"{location}.baseline.0"
            faults = [
                Fault(f"{location}.baseline{fault.location.removeprefix(first)}", fault.problem, fault.fix)
                for fault in error.faults
            ]
            raise InputError(faults, error.total) from error
    if model.baseline is None:
        problem = "expected a model with a baseline, found one without: imported, or trained by an earlier version"
        send = f'or send a row to compare with: "{location}": {{"baseline": row}}'
        fix = f"train it again, import it with --baseline, {send}"
        raise InputError([Fault(location, problem, fix)])
    return model.baseline


def _find(wanted: Any, names: tuple[Any, ...], location: str, faults: list[Fault]) -> int | None:
    for i, name in enumerate(names):
        if type(wanted) in (str, int) and wanted in (name, str(name)):
            return i
    problem = f"expected one of {list_names(list(names))}; found {describe_value(wanted)}"
    fix = did_you_mean(wanted, map(str, names)) or "send one of those, or leave it out"
    faults.append(Fault(location, problem, fix))
    return None
