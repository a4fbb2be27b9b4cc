"""Comparison of two versions: which one is better, whether the difference is significant, and what differs.

Accuracies are compared by the 95 % confidence interval of their difference. Equal accuracies are compared by log loss,
regressions by RMSE; for these two no significance is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from math import exp, log
from typing import Any

from model_store.artifact import npz
from model_store.errors import ArtifactError
from model_store.evaluation.confidence import difference_interval
from model_store.evaluation.record import TARGET_METRICS, TrainingRecord
from model_store.schema.columns import Column
from model_store.schema.signature import ClassificationOutput, Signature
from model_store.schema.signature_json import read_signature
from model_store.utils.number_format import METRIC_TITLES, format_percent

_MAX_DEPTH = 4  # nested tables of a job
_IGNORED_SETTINGS = ("model.name", "model.description", "data.path")


@dataclass(frozen=True)
class Difference:
    """A metric, column, layer or setting of both versions; None where a version does not have it."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class ComparisonVerdict:
    """`better` is "first", "second" or None; `significant` is whether the 95 % interval excludes 0."""

    better: str | None
    significant: bool
    summary: str


@dataclass(frozen=True)
class Comparison:
    """`same_rows`: whether both were evaluated on the same rows; None if their records do not say."""

    verdict: ComparisonVerdict
    same_rows: bool | None
    metrics: list[Difference]
    signature: list[Difference]
    layers: list[Difference]
    job: list[Difference]

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def compare(first: tuple[str, Mapping[str, Any]], second: tuple[str, Mapping[str, Any]]) -> Comparison:
    """Compare two versions, each given as its name and its manifest. ArtifactError if a manifest is invalid."""
    names = (first[0], second[0])
    signatures = _Pair(*(_signature(*version) for version in (first, second)))
    records = _Pair(*(TrainingRecord.parse(manifest["training"]) for _, manifest in (first, second)))
    jobs = [dict(_flatten(manifest["training"].get("job"))) for _, manifest in (first, second)]
    layers = [_layers(*version) for version in (first, second)]
    if first[1] == second[1]:
        verdict = ComparisonVerdict(None, True, f"{names[0]} and {names[1]} are the same model.")
    elif isinstance(signatures.first.output, ClassificationOutput):
        verdict = _compare_classifiers(names, signatures, records)
    else:
        verdict = _compare_regressions(names, signatures, records)
    optimistic = [name for name, manifest in (first, second) if measured_on_training_rows(manifest["training"])]
    if verdict.better and optimistic:
        rows = "its training rows" if len(optimistic) == 1 else "their training rows"
        summary = f"Not comparable: the metrics of {' and '.join(optimistic)} were measured on {rows}."
        verdict = ComparisonVerdict(None, False, summary)
    return Comparison(
        verdict,
        same_rows(first[1]["training"], second[1]["training"]),
        _compare_metrics(records),
        _compare_signatures(signatures.first, signatures.second),
        [Difference(str(i), *pair) for i, pair in enumerate(zip_longest(*layers))] if layers[0] != layers[1] else [],
        [
            Difference(key, jobs[0].get(key), jobs[1].get(key))
            for key in sorted(jobs[0].keys() | jobs[1].keys())
            if jobs[0].get(key) != jobs[1].get(key) and key not in _IGNORED_SETTINGS
        ],
    )


@dataclass(frozen=True)
class _Pair:
    first: Any
    second: Any

    def get(self, *keys: str) -> tuple[Any, Any]:
        """Return what both have under a path of attributes and keys; None where a part of the path is missing."""
        found = []
        for part in (self.first, self.second):
            for key in keys:
                part = part.get(key) if isinstance(part, Mapping) else getattr(part, key, None)
            found.append(part)
        return found[0], found[1]


# Verdict --------------------------------------------------------------------------------------------------------------


def _compare_classifiers(names: tuple[str, str], signatures: _Pair, records: _Pair) -> ComparisonVerdict:
    labels = [set(getattr(signature.output, "labels", ())) for signature in (signatures.first, signatures.second)]
    found = records.get("classification")
    if labels[0] != labels[1]:
        return ComparisonVerdict(None, False, "Not comparable: their labels differ.")
    if None in found:
        return ComparisonVerdict(None, False, "Not comparable: one of them has no metrics.")
    correct = [(round(one["accuracy"] * one["rows"]), one["rows"]) for one in found]
    gain = found[1]["accuracy"] - found[0]["accuracy"]
    if gain == 0:
        return _compare_log_loss(names, records)
    better = int(gain > 0)
    low, high = difference_interval(correct[1 - better], correct[better])
    significant = low > 0
    interval = f"95 % interval {100 * low:.1f} to {_format_points(high)}".replace("-", "−")
    summary = f"{names[better]} is better: accuracy {_format_points(abs(gain))} higher ({interval})."
    if not significant:
        summary = (
            f"{names[better]} is ahead: accuracy {_format_points(abs(gain))} higher, not significant ({interval})."
        )
    return ComparisonVerdict(("first", "second")[better], significant, summary)


def _compare_log_loss(names: tuple[str, str], records: _Pair) -> ComparisonVerdict:
    losses = records.get("calibration", "log_loss")
    if None in losses or losses[0] == losses[1]:
        return ComparisonVerdict(None, False, "Their accuracy is equal.")
    better = int(losses[1] < losses[0])
    summary = (
        f"{names[better]} is ahead: equal accuracy, lower log loss "
        f"({losses[better]:.4g} against {losses[1 - better]:.4g})."
    )
    return ComparisonVerdict(("first", "second")[better], False, summary)


def _compare_regressions(names: tuple[str, str], signatures: _Pair, records: _Pair) -> ComparisonVerdict:
    targets = [set(getattr(signature.output, "names", ())) for signature in (signatures.first, signatures.second)]
    found = records.get("regression", "targets")
    if targets[0] != targets[1]:
        return ComparisonVerdict(None, False, "Not comparable: their targets differ.")
    if None in found:
        return ComparisonVerdict(None, False, "Not comparable: one of them has no metrics.")
    errors = [(found[0][name]["rmse"], found[1][name]["rmse"]) for name in found[0].keys() & found[1].keys()]
    log_ratios = [log(b / a) for a, b in errors if a and b and a > 0 and b > 0]
    if not log_ratios or sum(log_ratios) == 0:
        return ComparisonVerdict(None, False, "Their RMSE is equal.")
    ratio = exp(sum(log_ratios) / len(log_ratios))
    better = int(ratio < 1)
    lower = format_percent(1 - min(ratio, 1 / ratio))
    mean = ", on average over the targets" if len(log_ratios) > 1 else ""
    summary = f"{names[better]} is ahead: RMSE {lower} lower{mean} (significance is not tested)."
    return ComparisonVerdict(("first", "second")[better], False, summary)


def _format_points(share: float) -> str:
    return f"{100 * share:.1f} points"


# Metrics --------------------------------------------------------------------------------------------------------------


def _compare_metrics(records: _Pair) -> list[Difference]:
    """Return every metric that at least one of the two records has, the most important first."""
    metrics = [
        Difference("rows", *_coalesce_pairs(records.get("classification", "rows"), records.get("regression", "rows"))),
        Difference("accuracy", *records.get("classification", "accuracy")),
        Difference("log loss", *records.get("calibration", "log_loss")),
        Difference("calibration error", *records.get("calibration", "expected_error")),
        Difference("ROC AUC", *records.get("roc", "area")),
    ]
    for task, part, keys in (("classification", "classes", ("f1",)), ("regression", "targets", TARGET_METRICS)):
        groups = [group or {} for group in records.get(task, part)]
        for name in dict.fromkeys([*groups[0], *groups[1]]):
            for key in keys:
                values = (group.get(name, {}).get(key) for group in groups)
                metrics.append(Difference(f"{METRIC_TITLES.get(key, key)}, {name}", *values))
    return [metric for metric in metrics if (metric.first, metric.second) != (None, None)]


def _coalesce_pairs(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    return (one[0] if one[0] is not None else other[0], one[1] if one[1] is not None else other[1])


def same_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Return whether two trainings held out the same rows: same data, split, target and seed. None if unknown."""
    keys = [("data", "sha256"), ("split",), ("job", "split"), ("job", "train", "seed"), ("job", "data", "target")]
    pairs = [_Pair(first, second).get(*key) for key in keys]
    if None in pairs[0] or None in pairs[1]:
        return None
    streamed = _Pair(first, second).get("job", "data", "stream")  # streaming holds out different rows
    return bool(streamed[0]) == bool(streamed[1]) and all(one == other for one, other in pairs)


def measured_on_training_rows(training: Mapping[str, Any]) -> bool:
    """Return whether the metrics were measured on the rows that the model was trained on."""
    metrics = training.get("metrics")
    return isinstance(metrics, Mapping) and metrics.get("of") == "training rows"


# Signature, layers and job --------------------------------------------------------------------------------------------


def _signature(name: str, manifest: Mapping[str, Any]) -> Signature:
    try:
        return read_signature(manifest["signature"])
    except ValueError as e:
        raise ArtifactError(f"{name}: {e}") from e


def _layers(name: str, manifest: Mapping[str, Any]) -> list[str]:
    try:
        network = npz.network_without_weights(dict(manifest))
    except ValueError as e:
        raise ArtifactError(f"{name}: {e}") from e
    return [
        f"{type(module).__name__} {_format_shape(before)} → {_format_shape(after)}"
        for module, (before, after) in zip(network.modules, network.shapes(), strict=True)
    ]


def _format_shape(shape: Sequence[int] | None) -> str:
    return " × ".join(map(str, shape or ()))


def _compare_signatures(first: Signature, second: Signature) -> list[Difference]:
    """Return what a client of the first version must know before it calls the second."""
    columns = [{column.name: column for column in signature.inputs} for signature in (first, second)]
    differences = []
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        one, other = (by_name.get(name) for by_name in columns)
        descriptions = _describe_column(one, other), _describe_column(other, one)
        if descriptions[0] != descriptions[1]:
            differences.append(Difference(f"column {name}", *descriptions))
    common = [[name for name in names if name in columns[0] and name in columns[1]] for names in columns]
    if common[0] != common[1]:
        differences.append(Difference("order of columns", *common))
    outputs = [
        list(one.output.labels if isinstance(one.output, ClassificationOutput) else one.output.names)
        for one in (first, second)
    ]
    if outputs[0] != outputs[1]:
        title = "labels" if isinstance(second.output, ClassificationOutput) else "targets"
        differences.append(Difference(title, *outputs))
    return differences


def _describe_column(column: Column | None, other: Column | None) -> str | None:
    """Describe what a column accepts. The text equals that of `other` where clients see no difference."""
    if column is None:
        return None
    words = [str(column.kind)]
    words += column.describe_acceptance(other)
    if column.fill is None and not column.is_whole_row:
        words.append("required")
    return ", ".join(words)


def _flatten(value: Any, location: str = "") -> list[tuple[str, Any]]:
    """Return the settings of a job by dotted key."""
    if not isinstance(value, Mapping) or location.count(".") > _MAX_DEPTH:
        return [(location.rstrip("."), value)] if location else []
    return [leaf for key, inner in value.items() for leaf in _flatten(inner, f"{location}{key}.")]
