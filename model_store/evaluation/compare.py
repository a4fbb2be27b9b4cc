"""Comparing: two versions beside each other, which of them is better, and whether chance may explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from math import exp, log
from typing import Any

from model_store.artifact import npz
from model_store.errors import ArtifactError
from model_store.evaluation.confidence import difference
from model_store.evaluation.record import Record
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    Input,
    NumberColumn,
    Signature,
)
from model_store.schema.signature_json import read_signature
from model_store.utils.number_format import METRIC_TITLES, format_percent

_NAMED = 5  # categories or labels that one has and the other has not
_DEPTH = 4  # of a job's tables
_NOT_THE_JOB = ("model.name", "model.description", "data.path")


@dataclass(frozen=True)
class Row:
    """Something that the two have, or do, differently; None where one has nothing of the kind."""

    what: str
    first: Any
    second: Any


@dataclass(frozen=True)
class ComparisonVerdict:
    """Which is ahead: "first", "second" or None, and whether the figures are enough to be sure of it."""

    ahead: str | None
    sure: bool
    words: str


@dataclass(frozen=True)
class Comparison:
    """`same_rows` when both were judged on the same rows; None where their records do not tell."""

    verdict: ComparisonVerdict
    same_rows: bool | None
    metrics: list[Row]
    signature: list[Row]
    layers: list[Row]
    job: list[Row]

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def compare(first: tuple[str, Mapping[str, Any]], second: tuple[str, Mapping[str, Any]]) -> Comparison:
    """Two versions, each by its name and its manifest. ArtifactError where one cannot be read."""
    names = (first[0], second[0])
    signatures = _Pair(*(_signature(*one) for one in (first, second)))
    records = _Pair(*(Record.of(manifest["training"]) for _, manifest in (first, second)))
    jobs = [dict(_leaves(manifest["training"].get("job"))) for _, manifest in (first, second)]
    layers = [_layers(*one) for one in (first, second)]
    metrics = _metrics(records)
    if first[1] == second[1]:
        verdict = ComparisonVerdict(None, True, f"{names[0]} and {names[1]} are the same model.")
    elif isinstance(signatures.first.output, ClassificationOutput):
        verdict = _of_classes(names, signatures, records)
    else:
        verdict = _of_values(names, signatures, records)
    learned = [name for name, (_, one) in zip(names, (first, second), strict=True) if judged_as_taught(one["training"])]
    if verdict.ahead and learned:
        were = "was judged on the rows it" if len(learned) == 1 else "were each judged on the rows they"
        words = f"Nobody knows which is better: {' and '.join(learned)} {were} learned from."
        verdict = ComparisonVerdict(None, False, words)
    return Comparison(
        verdict,
        same_rows(first[1]["training"], second[1]["training"]),
        metrics,
        _signatures(signatures.first, signatures.second),
        [Row(str(i), *pair) for i, pair in enumerate(zip_longest(*layers))] if layers[0] != layers[1] else [],
        [
            Row(key, jobs[0].get(key), jobs[1].get(key))
            for key in sorted(jobs[0].keys() | jobs[1].keys())
            if jobs[0].get(key) != jobs[1].get(key) and key not in _NOT_THE_JOB
        ],
    )


@dataclass(frozen=True)
class _Pair:
    first: Any
    second: Any

    def get(self, *keys: str) -> tuple[Any, Any]:
        """What both have under a path of attributes and keys; None where one has it not."""
        found = []
        for part in (self.first, self.second):
            for key in keys:
                part = part.get(key) if isinstance(part, Mapping) else getattr(part, key, None)
            found.append(part)
        return found[0], found[1]


# Which is better -----------------------------------------------------------------------------------------------------


def _of_classes(names: tuple[str, str], signatures: _Pair, records: _Pair) -> ComparisonVerdict:
    labels = [set(getattr(signature.output, "labels", ())) for signature in (signatures.first, signatures.second)]
    found = records.get("classification")
    if labels[0] != labels[1]:
        return ComparisonVerdict(None, False, "They answer different questions: their labels differ.")
    if None in found:
        return ComparisonVerdict(None, False, "Their metrics cannot be compared: one of them records none.")
    right = [(round(one["accuracy"] * one["rows"]), one["rows"]) for one in found]
    gap = found[1]["accuracy"] - found[0]["accuracy"]
    if gap == 0:
        return _by_log_loss(names, records)
    ahead = int(gap > 0)
    low, high = difference(right[1 - ahead], right[ahead])
    sure = low > 0
    words = f"{names[ahead]} is {'better' if sure else 'ahead'}: {_points(abs(gap))} more accurate"
    between = f"95 % interval {100 * low:.1f} to {_points(high)}".replace("-", "−")
    words += f" ({between})." if sure else f", which chance may explain ({between})."
    return ComparisonVerdict(("first", "second")[ahead], sure, words)


def _by_log_loss(names: tuple[str, str], records: _Pair) -> ComparisonVerdict:
    losses = records.get("calibration", "log_loss")
    words = "They are equally accurate"
    if None in losses or losses[0] == losses[1]:
        return ComparisonVerdict(None, False, f"{words}.")
    ahead = int(losses[1] < losses[0])
    words += f"; {names[ahead]} has the lower log loss, {losses[ahead]:.4g} against {losses[1 - ahead]:.4g}."
    return ComparisonVerdict(("first", "second")[ahead], False, words)


def _of_values(names: tuple[str, str], signatures: _Pair, records: _Pair) -> ComparisonVerdict:
    targets = [set(getattr(signature.output, "names", ())) for signature in (signatures.first, signatures.second)]
    found = records.get("regression", "targets")
    if targets[0] != targets[1]:
        return ComparisonVerdict(None, False, "They answer different questions: their targets differ.")
    if None in found:
        return ComparisonVerdict(None, False, "Their metrics cannot be compared: one of them records none.")
    errors = [(found[0][name]["rmse"], found[1][name]["rmse"]) for name in found[0].keys() & found[1].keys()]
    ratios = [log(b / a) for a, b in errors if a and b and a > 0 and b > 0]
    if not ratios or sum(ratios) == 0:
        return ComparisonVerdict(None, False, "Their errors are the same.")
    change = exp(sum(ratios) / len(ratios))
    ahead = int(change < 1)
    less = 1 - min(change, 1 / change)
    mean = "on average over the targets, " if len(ratios) > 1 else ""
    words = f"{names[ahead]} is ahead: {mean}its RMSE is {format_percent(less)} lower; whether by chance is not known."
    return ComparisonVerdict(("first", "second")[ahead], False, words)


def _metrics(records: _Pair) -> list[Row]:
    """Every figure that one of the two records, the most telling first."""
    rows = [
        Row("rows", *_either(records.get("classification", "rows"), records.get("regression", "rows"))),
        Row("accuracy", *records.get("classification", "accuracy")),
        Row("log loss", *records.get("calibration", "log_loss")),
        Row("calibration error", *records.get("calibration", "expected_error")),
        Row("ROC area", *records.get("roc", "area")),
    ]
    for part, figures in (("classes", ("f1",)), ("targets", ("rmse", "mae", "r2"))):
        groups = [one or {} for one in records.get({"classes": "classification"}.get(part, "regression"), part)]
        for name in dict.fromkeys([*groups[0], *groups[1]]):
            for key in figures:
                figure = (group.get(name, {}).get(key) for group in groups)
                rows.append(Row(f"{METRIC_TITLES[key]}, {name}", *figure))
    return [row for row in rows if (row.first, row.second) != (None, None)]


def _either(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    return (one[0] if one[0] is not None else other[0], one[1] if one[1] is not None else other[1])


def same_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Whether data, split and seed are one, and so the rows that were held out."""
    keys = [("data", "sha256"), ("split",), ("job", "split"), ("job", "train", "seed"), ("job", "data", "target")]
    pairs = [_Pair(first, second).get(*key) for key in keys]
    if None in pairs[0] or None in pairs[1]:
        return None
    streamed = _Pair(first, second).get("job", "data", "stream")  # which holds other rows out
    return bool(streamed[0]) == bool(streamed[1]) and all(one == other for one, other in pairs)


def judged_as_taught(training: Mapping[str, Any]) -> bool:
    """Whether the metrics are of the rows that the model learned from."""
    metrics = training.get("metrics")
    return isinstance(metrics, Mapping) and metrics.get("of") == "training rows"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


# What differs --------------------------------------------------------------------------------------------------------


def _signature(name: str, manifest: Mapping[str, Any]) -> Signature:
    try:
        return read_signature(manifest["signature"])
    except ValueError as e:
        raise ArtifactError(f"{name}: {e}") from e


def _layers(name: str, manifest: Mapping[str, Any]) -> list[str]:
    try:
        network = npz.outline(dict(manifest))
    except ValueError as e:
        raise ArtifactError(f"{name}: {e}") from e
    return [
        f"{type(module).__name__} {_shape(before)} → {_shape(after)}"
        for module, (before, after) in zip(network.modules, network.shapes(), strict=True)
    ]


def _shape(shape: Sequence[int] | None) -> str:
    return " × ".join(map(str, shape or ()))


def _signatures(first: Signature, second: Signature) -> list[Row]:
    """What a caller of the first has to know before calling the second."""
    columns = [{column.name: column for column in one.inputs} for one in (first, second)]
    rows = []
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        one, other = (by_name.get(name) for by_name in columns)
        words = _told(one, other), _told(other, one)
        if words[0] != words[1]:
            rows.append(Row(f"column {name}", *words))
    common = [[name for name in one if name in columns[0] and name in columns[1]] for one in columns]
    if common[0] != common[1]:
        rows.append(Row("order of columns", *common))
    outputs = [
        list(one.output.labels if isinstance(one.output, ClassificationOutput) else one.output.names)
        for one in (first, second)
    ]
    if outputs[0] != outputs[1]:
        rows.append(Row("labels" if isinstance(second.output, ClassificationOutput) else "targets", *outputs))
    return rows


def _told(column: Input | None, other: Input | None) -> str | None:
    """A column in a few words, which are the same as the other's where callers need not care."""
    if column is None:
        return None
    words = [str(column.kind)]
    if isinstance(column, ArrayColumn):
        words.append(_shape(column.shape))
        words += [f"{column.low} to {column.high}"] if (column.low, column.high) != (None, None) else []
    if isinstance(column, CategoryColumn):
        known = set(other.categories) if isinstance(other, CategoryColumn) else set()
        only = [category for category in column.categories if category not in known]
        more = [f"{len(only) - _NAMED} more"] if len(only) > _NAMED else []
        words += [*only[:_NAMED], *more]
        words += ["any unknown one"] if column.unknown == "bucket" else []
    if isinstance(column, (NumberColumn, CategoryColumn)) and column.fill is None:
        words.append("never missing")
    return ", ".join(words)


def _leaves(value: Any, location: str = "") -> list[tuple[str, Any]]:
    """The settings of a job by their dotted place."""
    if not isinstance(value, Mapping) or location.count(".") > _DEPTH:
        return [(location.rstrip("."), value)] if location else []
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{location}{key}.")]
