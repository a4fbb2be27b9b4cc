"""A gate: what a version must show before an alias moves to it.

    accuracy>=champion        its accuracy is at least that of the version the alias points to
    mae<penguins/2            ... lower than that of version 2
    accuracy>=0.95            ... at least that number

Metrics are those that training recorded in the versions themselves. A metric inside a metric is named with a dot, or by
its own name where there is one of it: the mae of a regression with one target.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from model_store.artifact import npz
from model_store.errors import Fault, InputError, NotFoundError, did_you_mean
from model_store.evaluation.compare import measured_on_training_rows, same_rows
from model_store.registry.alias_log import AliasRevision
from model_store.registry.store import Store
from model_store.utils.number_format import format_number
from model_store.utils.values import parse_finite_number

_GATE = re.compile(r"\s*([\w.-]+)\s*(>=|<=|>|<)\s*([\w./+-]+)\s*", re.ASCII)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Gate:
    """Two sides and a test. The right one is a number, an alias, or a version of any model."""

    metric: str
    test: str
    reference: str

    def __str__(self) -> str:
        return f"{self.metric}{self.test}{self.reference}"


@dataclass(frozen=True)
class GateResult:
    """What came of a gate. `expected` is None where there is nothing to be better than: the alias was never set."""

    gate: str
    passed: bool
    found: float
    expected: float | None
    of: str
    same_rows: bool | None = None  # whether both sides were measured on the same; None where nobody knows
    on_training_rows: bool = False  # whether what was found is of the rows that the version learned from

    def __str__(self) -> str:
        against = (
            f"{self.of}, which was never set"
            if self.expected is None
            else f"{_format_figure(self.expected)} of {self.of}"
        )
        words = f"{_format_figure(self.found)} against {against}"
        if self.on_training_rows:
            words += ", measured on the rows it learned from"
        elif self.same_rows is False:
            words += ", measured on other rows"
        return f"{self.gate}: {words}"


def _format_figure(value: float) -> str:
    """As in `models show`, but for the minus, which a gate is written with too."""
    return format_number(value, 6).replace("−", "-")


def parse_gate(text: str) -> Gate:
    match = _GATE.fullmatch(text)
    if match is None or match[3].casefold() in {"nan", "inf", "+inf", "-inf"}:
        problem = f"expected a metric, one of >= <= > <, and a number, alias or version; found {text!r}"
        raise InputError([Fault("gate", problem, "write it as in 'accuracy>=champion'")])
    return Gate(match[1], match[2], match[3])


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
    """Point `alias` to a version that passes every gate, else None; and what came of each.

    A protected alias needs a gate at least. ConflictError when the alias moves while this looks at it: then the gates
    would have judged something else.
    """
    number = store.resolve(name, version)
    present = store.aliases(name).get(alias)
    verdicts = [_evaluate_gate(gate, store, name, number, alias, present) for gate in gates]
    if not all(verdict.passed for verdict in verdicts):
        return None, verdicts
    reason = "; ".join(filter(None, [why, *map(str, verdicts)]))
    move = store.set_alias(name, alias, number, who=who, why=reason, when=when, expected=present, force=bool(verdicts))
    return move, verdicts


def _evaluate_gate(gate: Gate, store: Store, name: str, number: int, alias: str, present: int | None) -> GateResult:
    training = _training_record(store, name, number)
    found = _metric(training, gate.metric, f"{name}/{number}")
    on_training_rows = measured_on_training_rows(training)
    expected = parse_finite_number(gate.reference)
    if expected is None:
        if gate.reference == alias and present is None:
            return GateResult(str(gate), True, found, None, alias, on_training_rows=on_training_rows)
        other, slash, ref = gate.reference.partition("/")
        other, ref = (other, ref) if slash else (name, other)
        against = present if (other, ref) == (name, alias) and present is not None else store.resolve(other, ref)
        of = f"{other}/{against}"
        theirs = _training_record(store, other, against)
        expected = _metric(theirs, gate.metric, of)
        same = same_rows(training, theirs)
        return GateResult(
            str(gate), _OPERATORS[gate.test](found, expected), found, expected, of, same, on_training_rows
        )
    return GateResult(
        str(gate), _OPERATORS[gate.test](found, expected), found, expected, "the gate", None, on_training_rows
    )


def _training_record(store: Store, name: str, number: int) -> Mapping[str, Any]:
    training: Mapping[str, Any] = npz.read_manifest(store.path(name, number))["training"]
    return training


def _metric(training: Mapping[str, Any], metric: str, location: str) -> float:
    known = dict(_flatten_metrics(training.get("metrics", {})))
    meant = [name for name in known if name.endswith(f".{metric}")] if metric not in known else [metric]
    if len(meant) == 1:
        return known[meant[0]]
    if metric not in known:
        hint = did_you_mean(metric, known) or f"there are: {', '.join(known) or 'none'}"
        raise NotFoundError(f"{location}: no metric {metric!r}; {hint}", list(known))
    return known[metric]


def _flatten_metrics(metrics: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number in the metrics, those deeper down with dots in their names."""
    if isinstance(metrics, Mapping):
        for key, value in metrics.items():
            yield from _flatten_metrics(value, f"{prefix}.{key}" if prefix else str(key))
    elif type(metrics) in (int, float) and abs(metrics) <= sys.float_info.max:
        yield prefix, float(metrics)
