"""Promotion gates: conditions that a version must meet before an alias moves to it.

    accuracy>=default               its accuracy is at least that of the version that callers get now
    mae<penguins/2                  its mean absolute error is below that of version 2 of penguins
    accuracy>=0.95                  its accuracy is at least 0.95
    min(recall by species)>=0.9     the lowest recall of its classes is at least 0.9; the column may be an input too

Metrics are those that training recorded in the versions. A nested metric is named by its path with dots, or by its last
name if only one metric has it: the mae of a regression with one target. `log_loss`, `calibration_error` and, for two
classes, `roc_auc` are those of the report. The alias itself moves in alias_moves.py.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from model_store.errors import Fault, InputError, NotFoundError, did_you_mean
from model_store.evaluation.group_metrics import Group, find_extreme, find_groups
from model_store.evaluation.record import HIGHER_IS_BETTER, LOWER_IS_BETTER
from model_store.evaluation.verdict import measured_on_training_rows, same_rows
from model_store.registry.alias_log import DEFAULT_ALIAS, AliasRevision
from model_store.registry.store import Store
from model_store.utils.number_format import format_number
from model_store.utils.values import parse_finite_number

_METRIC_PATTERN = re.compile(r"\s*([\w.-]+)\s*", re.ASCII)
_GROUPS_PATTERN = re.compile(r"\s*(min|max)\s*\(\s*([\w.-]+)\s+by\s(.+)", re.ASCII | re.DOTALL)
_CONDITION_PATTERN = re.compile(r"\s*(>=|<=|>|<)\s*([\w./+-]+)\s*", re.ASCII)
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
# Metrics of the diagnostics, by their path in these.
_DIAGNOSTICS = {
    "log_loss": ("calibration", "log_loss"),
    "calibration_error": ("calibration", "expected_error"),
    "roc_auc": ("roc", "area"),
}


_Read = Callable[[str, int], tuple[Any, Mapping[str, Any]]]  # `Store.manifest`


@dataclass(frozen=True)
class Gate:
    """A metric, a comparison, and a reference: a number, an alias, or a version of any model.

    With a `column`, the metric is the lowest or highest of the groups of rows by that column: `extreme` is min or max.
    """

    metric: str
    comparison: str
    reference: str
    extreme: str = ""
    column: str = ""

    def __str__(self) -> str:
        metric = f"{self.extreme}({self.metric} by {self.column})" if self.extreme else self.metric
        return f"{metric}{self.comparison}{self.reference}"

    @property
    def better(self) -> str | None:
        """Return whether "higher" or "lower" values of the metric are better; None if unknown."""
        name = self.metric.rpartition(".")[2]
        return "higher" if name in HIGHER_IS_BETTER else "lower" if name in LOWER_IS_BETTER else None

    def describe_group(self, group: Group) -> str:
        """Return the group with the extreme value in words: "island Dream (23 rows, the worst group)"."""
        rank = "" if self.better is None else ", the best group"
        if self.better == ("higher" if self.extreme == "min" else "lower"):
            rank = ", the worst group"
        return f"{group.words} ({format_number(group.rows)} rows{rank})"


@dataclass(frozen=True)
class GateResult:
    """The result of a gate. `expected` is None if the reference is an alias that is not set: the gate then passes.

    While the alias "default" is not set, the reference is the newest version, which callers get then. Only if that is
    the promoted version itself is there nothing to compare with.
    """

    gate: str
    passed: bool
    found: float
    expected: float | None
    reference: str
    same_rows: bool | None = None  # whether both sides were measured on the same rows; None if unknown
    on_training_rows: bool = False  # whether the version's own metric was measured on its training rows
    better: str | None = None
    group: str | None = None  # that has the value found, of a metric by groups

    def __str__(self) -> str:
        against = (
            f"{self.reference}, which is not set"
            if self.expected is None
            else f"{_format_metric(self.expected)} of {self.reference}"
        )
        of_group = "" if self.group is None else f" of {self.group}"
        words = f"{_format_metric(self.found)}{of_group} against {against}"
        if self.better is not None:
            reversed_gate = ("<" in self.gate) == (self.better == "higher")
            words += f" ({self.better} is better{': this gate demands the opposite' if reversed_gate else ''})"
        if self.on_training_rows:
            words += ", measured on its training rows"
        elif self.same_rows is False:
            words += ", measured on other rows"
        return f"{self.gate}: {words}"


def _format_metric(value: float) -> str:
    """Return a metric as `models show` prints it, but with an ASCII minus, as in a gate."""
    return format_number(value, 6).replace("−", "-")


def parse_gate(text: str) -> Gate:
    """Parse a gate such as `accuracy>=default`. InputError if it is not one."""
    head, bracket, condition = text.rpartition(")")
    if bracket:
        metric = _GROUPS_PATTERN.fullmatch(head)
    else:
        operator_at = min((at for at in map(text.find, "<>") if at >= 0), default=len(text))
        condition, metric = text[operator_at:], _METRIC_PATTERN.fullmatch(text[:operator_at])
    match = _CONDITION_PATTERN.fullmatch(condition)
    if metric is None or match is None or match[2].casefold() in {"nan", "inf", "+inf", "-inf"}:
        problem = f"expected a metric, one of >= <= > <, and a number, alias or version; found {text!r}"
        raise InputError([Fault("gate", problem, "write it as in 'accuracy>=default' or 'min(recall by kind)>=0.9'")])
    if not bracket:
        return Gate(metric[1], match[1], match[2])
    return Gate(metric[2], match[1], match[2], metric[1], metric[3].strip())


def promote(
    store: Store,
    name: str,
    version: int | str,
    alias: str,
    gates: Sequence[Gate],
    *,
    who: str,
    why: str,
    when: datetime,
) -> tuple[AliasRevision | None, list[GateResult]]:
    """Move `alias` to a version if it passes every gate. Return the revision, None if a gate failed, and all results.

    A protected alias requires at least one gate. ConflictError if the alias moves in the meantime, since the gates then
    compared against an outdated version.
    """
    number = store.resolve(name, version)
    present = store.aliases(name).get(alias)
    read = cache(store.manifest)  # 20 gates read each version once
    results = [_evaluate_gate(gate, store, read, name, number, alias, present) for gate in gates]
    if not all(result.passed for result in results):
        return None, results
    reason = "; ".join(filter(None, [why, *map(str, results)]))
    revision = store.set_alias(
        name, alias, number, who=who, why=reason, when=when, expected=present, force=bool(results)
    )
    return revision, results


def _evaluate_gate(
    gate: Gate, store: Store, read: _Read, name: str, number: int, alias: str, present: int | None
) -> GateResult:
    training, found, group = _measure(read, gate, name, number)
    on_training_rows = measured_on_training_rows(training)
    expected, reference, same = parse_finite_number(gate.reference), "the gate", None
    if expected is None:
        unset = present is None and (alias != DEFAULT_ALIAS or store.resolve(name) == number)
        if gate.reference == alias and unset:
            return GateResult(str(gate), True, found, None, alias, None, on_training_rows, gate.better, group)
        other, slash, ref = gate.reference.partition("/")
        other, ref = (other, ref) if slash else (name, other)
        against = present if (other, ref) == (name, alias) and present is not None else store.resolve(other, ref)
        reference = f"{other}/{against}"
        other_training, expected, _ = _measure(read, gate, other, against)
        same = same_rows(training, other_training)
    passed = _COMPARISONS[gate.comparison](found, expected)
    return GateResult(str(gate), passed, found, expected, reference, same, on_training_rows, gate.better, group)


def _measure(read: _Read, gate: Gate, name: str, number: int) -> tuple[Mapping[str, Any], float, str | None]:
    """Return the training record of a version, the value of the gate's metric, and of which group it is."""
    _, manifest = read(name, number)
    training: Mapping[str, Any] = manifest["training"]
    location = f"{name}/{number}"
    if not gate.extreme:
        return training, _metric(training, gate.metric, location), None
    groups = find_groups(manifest, gate.column, location)
    value, group = find_extreme(groups, gate.metric, highest=gate.extreme == "max", location=location)
    return training, value, gate.describe_group(group)


def _metric(training: Mapping[str, Any], metric: str, location: str) -> float:
    known = dict(_flatten_metrics(training.get("metrics", {})))
    for name, value in _diagnostic_metrics(training).items():
        known.setdefault(name, value)
    matching = [name for name in known if name.endswith(f".{metric}")] if metric not in known else [metric]
    if len(matching) == 1:
        return known[matching[0]]
    hint = did_you_mean(metric, known) or f"the metrics are: {', '.join(known) or 'none'}"
    raise NotFoundError(f"{location}: no metric {metric!r}; {hint}", list(known))


def _diagnostic_metrics(training: Mapping[str, Any]) -> dict[str, float]:
    sections = training.get("diagnostics")
    found: dict[str, float] = {}
    for name, (section, key) in _DIAGNOSTICS.items():
        part = sections.get(section) if isinstance(sections, Mapping) else None
        found.update(_flatten_metrics(part.get(key) if isinstance(part, Mapping) else None, name))
    return found


def _flatten_metrics(metrics: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number in the metrics with its path; dots separate the levels."""
    if isinstance(metrics, Mapping):
        for key, value in metrics.items():
            yield from _flatten_metrics(value, f"{prefix}.{key}" if prefix else str(key))
    elif type(metrics) in (int, float) and abs(metrics) <= sys.float_info.max:
        yield prefix, float(metrics)
