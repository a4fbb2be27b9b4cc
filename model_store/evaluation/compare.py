"""Comparison of two versions: all that differs between them.

Which one is better, and whether the difference is significant, is decided in verdict.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from model_store.artifact import npz
from model_store.errors import ArtifactError
from model_store.evaluation.record import OVERALL_LABEL_METRICS, TARGET_METRICS, TrainingRecord
from model_store.evaluation.verdict import (
    ComparisonVerdict,
    Pair,
    compare_classifiers,
    compare_regressions,
    measured_on_training_rows,
    same_rows,
)
from model_store.nn import Average
from model_store.schema.columns import Column
from model_store.schema.signature import RegressionOutput, Signature
from model_store.schema.signature_json import read_signature
from model_store.utils.number_format import METRIC_TITLES

_TASKS = ("classification", "multi_label", "regression")
_MAX_DEPTH = 4  # nested tables of a job
_IGNORED_SETTINGS = ("model.name", "model.description", "data.path")


@dataclass(frozen=True)
class Difference:
    """A metric, column, layer or setting of both versions; None where a version does not have it."""

    name: str
    first: Any
    second: Any


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


def compare(
    first: tuple[str, Mapping[str, Any]],
    second: tuple[str, Mapping[str, Any]],
    signatures: tuple[Signature, Signature] | None = None,
) -> Comparison:
    """Compare two versions, each given as its name and its manifest. ArtifactError if a manifest is invalid.

    `signatures`: those of both, if they are in memory. Reading one of 10,000 columns takes half a second; of equal
    manifests none is read.
    """
    names = (first[0], second[0])
    trainings = (first[1]["training"], second[1]["training"])
    records = Pair(*map(TrainingRecord.parse, trainings))
    jobs = [dict(_flatten(manifest["training"].get("job"))) for _, manifest in (first, second)]
    if first[1] == second[1]:
        verdict = ComparisonVerdict(None, True, f"{names[0]} and {names[1]} are the same model.")
        return Comparison(verdict, same_rows(*trainings), _compare_metrics(records), [], [], [])
    layers = [_layers(*version) for version in (first, second)]
    pair = Pair(*(signatures or (_signature(*first), _signature(*second))))
    if not isinstance(pair.first.output, RegressionOutput):
        verdict = compare_classifiers(names, pair, records, trainings)
    else:
        verdict = compare_regressions(names, pair, records, trainings)
    optimistic = [name for name, manifest in (first, second) if measured_on_training_rows(manifest["training"])]
    if verdict.better and optimistic:
        rows = "its training rows" if len(optimistic) == 1 else "their training rows"
        summary = f"Not comparable: the metrics of {' and '.join(optimistic)} were measured on {rows}."
        verdict = ComparisonVerdict(None, False, summary)
    return Comparison(
        verdict,
        same_rows(*trainings),
        _compare_metrics(records),
        _compare_signatures(pair.first, pair.second),
        [Difference(str(i), *both) for i, both in enumerate(zip_longest(*layers))] if layers[0] != layers[1] else [],
        [
            Difference(key, jobs[0].get(key), jobs[1].get(key))
            for key in sorted(jobs[0].keys() | jobs[1].keys())
            if jobs[0].get(key) != jobs[1].get(key) and key not in _IGNORED_SETTINGS
        ],
    )


# Metrics --------------------------------------------------------------------------------------------------------------


def _compare_metrics(records: Pair) -> list[Difference]:
    """Return every metric that at least one of the two records has, the most important first."""
    metrics = [
        Difference("rows", *_coalesce_pairs(*(records.get(task, "rows") for task in _TASKS))),
        Difference("accuracy", *records.get("classification", "accuracy")),
        *(Difference(METRIC_TITLES[key], *records.get("multi_label", key)) for key in OVERALL_LABEL_METRICS[:-1]),
        Difference("ROC area", *records.get("multi_label", "roc_auc")),
        Difference("log loss", *records.get("calibration", "log_loss")),
        Difference("calibration error", *records.get("calibration", "expected_error")),
        Difference("ROC AUC", *records.get("roc", "area")),
    ]
    parts = {"classification": ("classes", ("f1",)), "multi_label": ("labels", ("f1",))}
    for task, (part, keys) in {**parts, "regression": ("targets", TARGET_METRICS)}.items():
        groups = [group or {} for group in records.get(task, part)]
        for name in dict.fromkeys([*groups[0], *groups[1]]):
            for key in keys:
                values = (group.get(name, {}).get(key) for group in groups)
                metrics.append(Difference(f"{METRIC_TITLES.get(key, key)}, {name}", *values))
    return [metric for metric in metrics if (metric.first, metric.second) != (None, None)]


def _coalesce_pairs(*pairs: tuple[Any, Any]) -> tuple[Any, Any]:
    first, second = (next((one for one in side if one is not None), None) for side in zip(*pairs, strict=True))
    return first, second


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
        f"{type(module).__name__}{f' of {module.summarize()}' if isinstance(module, Average) else ''} "
        f"{_format_shape(before)} → {_format_shape(after)}"
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
        list(one.output.names if isinstance(one.output, RegressionOutput) else one.output.labels)
        for one in (first, second)
    ]
    if outputs[0] != outputs[1]:
        title = "targets" if isinstance(second.output, RegressionOutput) else "labels"
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
