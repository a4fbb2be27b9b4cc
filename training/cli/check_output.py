"""The output of `train check`: columns, target, split and network, as text for a terminal and as data for `--json`."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console

from model_store.utils.number_format import format_number
from model_store.utils.values import list_names
from training.cli.output import new_table, start_line
from training.data.checks.columns import count_missing
from training.network.builder import summarize_layers
from training.pipeline.job import PreparedJob

_MAX_LISTED = 8


def print_check(console: Console, prepared: PreparedJob) -> None:
    """Print what a job would train: columns, target, split and network."""
    console.print(start_line(prepared), soft_wrap=True)
    columns = new_table("column", "kind", "missing", "values in the training rows", numeric=0)
    for column in column_data(prepared):
        columns.add_row(column["name"], column["kind"], str(column["missing"]), column["summary"])
    console.print(columns)
    console.print()
    console.print(_describe_target(prepared), soft_wrap=True)
    console.print()
    layers = new_table("layer", "sizes", "parameters", numeric=0)
    for kind, sizes, count in layer_data(prepared):
        layers.add_row(kind, sizes, format_number(count))
    console.print(layers)
    train = prepared.job.settings.train
    total = sum(count for _, _, count in layer_data(prepared))
    networks = "" if train.ensemble is None else f" in each of {train.ensemble} networks, whose average is the model"
    console.print(f"{format_number(total)} parameters{networks}, {prepared.network_spec.dtype}", soft_wrap=True)
    console.print(
        f"loss {prepared.network_spec.loss}, optimizer {train.optimizer}, learning rate {train.learning_rate:g}, "
        f"schedule {train.schedule.name if train.schedule else 'constant'}"
    )
    if (weights := _class_weights(prepared)) is not None:
        shown = list_names([f"{label} {weight:.3g}" for label, weight in weights.items()], _MAX_LISTED)
        console.print(f"class weights: {shown}")


def check_data(prepared: PreparedJob) -> dict[str, Any]:
    """Return the same for `--json`."""
    return {
        "model": prepared.job.settings.model.name,
        "job": prepared.job.settings.as_dict(),
        "columns": column_data(prepared),
        "target": {
            "names": prepared.dataset.target_names,
            "task": prepared.dataset.task,
            "classes": class_counts(prepared),
        },
        "split": prepared.sizes,
        "data": prepared.dataset.name,
        "network": [{"layer": kind, "sizes": sizes, "parameters": n} for kind, sizes, n in layer_data(prepared)],
        "parameters": sum(n for _, _, n in layer_data(prepared)),
        "dtype": prepared.network_spec.dtype,
        "loss": prepared.network_spec.loss,
        "class_weights": _class_weights(prepared),
        "notes": prepared.notes,
    }


def _class_weights(prepared: PreparedJob) -> dict[str, float] | None:
    """Return the weight of each class in the loss, None if there are none."""
    weights = prepared.network_spec.class_weights
    if weights is None:
        return None
    own = weights if prepared.dataset.classes else weights[1]  # of rows with the label
    return {str(label): float(weight) for label, weight in zip(prepared.dataset.labels, own, strict=True)}


def column_data(prepared: PreparedJob) -> list[dict[str, Any]]:
    """Return each input's name, kind, number of missing values in all rows, and a summary of its values."""
    found = []
    missing = count_missing(prepared.signature, prepared.dataset, prepared.split, streamed=prepared.stream is not None)
    for column in prepared.signature.inputs:
        summary = column.summarize(format_number)
        found.append({"name": column.name, "kind": column.kind, "missing": missing[column.name], "summary": summary})
    return found


def class_counts(prepared: PreparedJob) -> dict[str, int] | None:
    """Return the number of rows of each class, or with each label; None for a regression."""
    labels = prepared.dataset.labels
    if not labels:
        return None
    targets, parts = prepared.dataset.targets, prepared.split
    if prepared.stream is not None:
        targets = targets[np.concatenate([parts.validation, parts.test])]
    counts = np.bincount(targets, minlength=len(labels)) if prepared.dataset.classes else targets.sum(axis=0)
    if prepared.stream is not None:
        counts = counts + prepared.stream.class_counts
    return {str(label): int(count) for label, count in zip(labels, counts, strict=True)}


def layer_data(prepared: PreparedJob) -> list[tuple[str, str, int]]:
    """Return the type, sizes and number of parameters of each layer."""
    return summarize_layers(prepared.network_spec.build(np.random.default_rng(0)))


def _describe_target(prepared: PreparedJob) -> str:
    names = ", ".join(prepared.dataset.target_names)
    counts = class_counts(prepared)
    if counts is None:
        transform = prepared.job.settings.data.target_transform
        return f"target: {names}, regression" + ("" if transform is None else f" with the transform {transform}")
    rows = list_names([f"{label}: {format_number(n)}" for label, n in counts.items()], _MAX_LISTED)
    if prepared.dataset.classes:
        return f"target: {names}, classification; rows per class: {rows}"
    return f"target: {names}, several labels; rows with each label: {rows}"
