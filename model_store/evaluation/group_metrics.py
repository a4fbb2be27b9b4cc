"""Metrics by group of rows: of each class or label, or of the rows with each value or range of an input column.

They are those that training recorded, so no data is needed. Columns have groups if they are categories, numbers or
dates; training/evaluation/slice_metrics.py describes which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_store.errors import ArtifactError, NotFoundError, did_you_mean
from model_store.evaluation.diagnostics_schema import SliceMetrics
from model_store.evaluation.record import TrainingRecord
from model_store.evaluation.record_fields import load_or_none
from model_store.evaluation.slices import describe_slice
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Signature
from model_store.schema.signature_json import read_signature
from model_store.utils.values import list_names

_MAX_WORDS = 200  # characters of the name of a group
_FIX = "train the version again with test rows, or write a gate without 'by'"


@dataclass(frozen=True)
class Group:
    """A group of rows in words, and its metrics; None is an undefined one, as the recall of a class without rows."""

    words: str
    rows: int
    metrics: Mapping[str, float | None]


def parse_slice_metrics(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics by slice of each column of a training record; empty if it has none, or invalid ones.

    They are no part of `TrainingRecord`: those of 50 columns take 40 ms to validate, which few readers need.
    """
    found = load_or_none(SliceMetrics, training.get("diagnostics"))
    return [] if found is None else list(found["slice_metrics"])


def find_groups(manifest: Mapping[str, Any], column: str, location: str) -> list[Group]:
    """Return the groups of a version's rows by `column`, its target or an input.

    location: the version, for messages. NotFoundError if there is no such column, or no metrics by it were recorded.
    """
    try:
        signature = read_signature(manifest["signature"])
    except ValueError as e:
        raise ArtifactError(f"{location}: {e}") from e
    record = TrainingRecord.parse(manifest["training"])
    target = signature.output.name if isinstance(signature.output, (ClassificationOutput, MultiLabelOutput)) else None
    if column == target:
        return _label_groups(record, column, location)
    measured = {one["column"]: one for one in parse_slice_metrics(manifest["training"])}
    if column in measured:
        return _column_groups(measured[column], signature)
    known = [*([] if target is None else [target]), *measured]
    inputs = [one.name for one in signature.inputs]
    if column not in inputs:
        of = list(dict.fromkeys([*known, *inputs]))
        hint = did_you_mean(column, of) or f"the columns are: {list_names(of)}"
        raise NotFoundError(
            f"{location}: expected the target or an input column after 'by', found {column!r}; {hint}", of
        )
    if not measured:
        problem = "training.diagnostics.slice_metrics: expected the metrics of each column's groups, found none"
        why = "it was imported, or trained by a release that did not record them, or without diagnostics"
        raise NotFoundError(f"{location}: {problem}: {why}; {_FIX}", known)
    why = "it has less than two groups of 10 rows, or has texts or arrays, or 50 columns are more important"
    hint = f"the columns with metrics are: {list_names(known)}"
    raise NotFoundError(f"{location}: expected a column with metrics by group, found {column!r}: {why}; {hint}", known)


def find_extreme(groups: Sequence[Group], metric: str, *, highest: bool, location: str) -> tuple[float, Group]:
    """Return the lowest or highest value of a metric among the groups, and the first group that has it.

    NotFoundError if the groups have no such metric, or if it is undefined in all of them.
    """
    known = list(groups[0].metrics)
    names = [metric] if metric in known else [name for name in known if name.endswith(f".{metric}")]
    if len(names) != 1:
        hint = did_you_mean(metric, known) or f"the metrics by group are: {list_names(known)}"
        raise NotFoundError(f"{location}: no metric {metric!r} by group; {hint}", known)
    defined = [(value, one) for one in groups if (value := one.metrics[names[0]]) is not None]
    if not defined:
        raise NotFoundError(f"{location}: {metric} is undefined in all {len(groups)} groups; use another metric", known)
    return (max if highest else min)(defined, key=lambda found: found[0])


def _label_groups(record: TrainingRecord, target: str, location: str) -> list[Group]:
    """Return the classes or labels. The accuracy of a class is its recall: the share of its rows that are right.

    The precision of a class that has rows but is never predicted is 0.
    """
    if record.multi_label is not None:
        keys = ("precision", "recall", "f1", "roc_auc", "log_loss")
        parts = {name: (row, {key: row[key] for key in keys}) for name, row in record.multi_label["labels"].items()}
    elif record.classification is not None:
        parts = {
            name: (row, {**{key: row[key] for key in ("precision", "recall", "f1")}, **_of_class(row["recall"])})
            for name, row in record.classification["classes"].items()
        }
    else:
        raise NotFoundError(f"{location}: training.metrics: expected the metrics of each class, found none; {_FIX}", [])
    return [
        Group(f"{target} {name}"[:_MAX_WORDS], row["support"], metrics if row["support"] else dict.fromkeys(metrics))
        for name, (row, metrics) in parts.items()
    ]


def _of_class(recall: float) -> dict[str, float]:
    return {"accuracy": recall, "error_rate": 1 - recall}


def _column_groups(measured: Mapping[str, Any], signature: Signature) -> list[Group]:
    name = measured["column"]
    column = next((one for one in signature.inputs if one.name == name), None)
    return [
        Group(
            f"{name} {describe_slice(part, column)}"[:_MAX_WORDS],
            part["rows"],
            {metric: values[i] for metric, values in measured["metrics"].items()},
        )
        for i, part in enumerate(measured["slices"])
    ]
