"""The report: what a training came to, as tables for a person and as plain data for a program."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Table

from model_store.schema.row_parser import as_written
from model_store.schema.signature import CategoryColumn, ClassificationOutput, NumberColumn
from model_store.utils.number_format import format_number
from training.data.splitting import Fold
from training.engine.early_stopping import EpochResult
from training.pipeline.cross_validation import Figures, figures
from training.pipeline.job import Outcome, Prepared
from training.pipeline.lr_range_test import HIGHEST, LOWEST, RateCurve
from training.pipeline.network_builder import parameters_of

_MOST_CLASSES = 20  # a confusion matrix of more is no table to look at
_MOST_ROWS = 30  # classes of which a table tells how well they are known
_MOST_SHOWN = 8
_WORSE = 1.1  # times the lowest validation loss, which chance alone reaches
_BAR = 30  # characters of a loss that is the first one
_LONGEST_ROW = 200  # characters of a row that is still fit for a command line


def epoch_line(epoch: EpochResult) -> str:
    line = f"epoch {epoch.number}/{epoch.of}  loss {epoch.loss:.6g}"
    return line if epoch.validation_loss is None else f"{line}  validation loss {epoch.validation_loss:.6g}"


def beginning(prepared: Prepared) -> str:
    return f"{prepared.job.settings.model.name}: {_rows(prepared)} of {prepared.dataset.name}"


def ending(outcome: Outcome, prepared: Prepared) -> str:
    """How the training ended, and which weights are kept."""
    early = outcome.epochs < prepared.job.settings.train.epochs
    line = f"{'Stopped early' if early else 'Trained'} after {outcome.epochs} epochs"
    if outcome.best_epoch != outcome.epochs:
        line += f"; the weights are those of epoch {outcome.best_epoch}, the best"
    return line + "." + _missed(outcome, prepared)


def _missed(outcome: Outcome, prepared: Prepared) -> str:
    """What early stopping would have kept, where a training without it went well past its best."""
    history = [point for point in outcome.model.training["history"] if "validation_loss" in point]
    if not history or prepared.job.settings.train.early_stopping is not None:
        return ""
    last, least = history[-1], min(history, key=lambda point: point["validation_loss"])
    if last["validation_loss"] <= _WORSE * least["validation_loss"]:
        return ""
    return (
        f"\nIn epoch {least['epoch']} the validation loss was {least['validation_loss']:.4g}, at the end it is "
        f"{last['validation_loss']:.4g}: early_stopping = {{ patience = 20 }} in [train] keeps the best weights."
    )


def print_metrics(console: Console, outcome: Outcome) -> None:
    """Metrics, class by class or target by target, beside the baseline."""
    console.print()
    output = outcome.model.signature.output
    found, baseline = outcome.metrics, outcome.baseline
    if not isinstance(output, ClassificationOutput):
        console.print(_targets(found["targets"], baseline["targets"]))
        console.print(
            f"Measured on {format_number(found['rows'])} {found['of']}. "
            "The baseline always answers the training rows' mean."
        )
        return
    table = _table(output.name, "precision", "recall", "F1", "rows")
    classes, count = list(found["classes"].items()), len(output.labels)
    if count > _MOST_ROWS:
        classes = sorted(classes, key=lambda one: (not one[1]["support"], one[1]["f1"]))[:_MOST_ROWS]
    for label, row in classes:
        ratios = (f"{row[key]:.3f}" if row["support"] else "-" for key in ("precision", "recall", "f1"))
        table.add_row(label, *ratios, format_number(row["support"]))
    console.print(table)
    if count > _MOST_ROWS:
        console.print(f"The {_MOST_ROWS} of {count} classes with the lowest F1; --json has all.")
    if len(output.labels) <= _MOST_CLASSES:
        console.print()
        console.print(_confusion(output.labels, found["confusion"]))
    right, rows = format_number(round(found["accuracy"] * found["rows"])), format_number(found["rows"])
    console.print()
    console.print(f"Accuracy {found['accuracy']:.2%}: {right} of {rows} {found['of']} are right.")
    console.print(f"The baseline, always answering {baseline['answer']!r}, has {baseline['accuracy']:.2%}.")


def print_published(console: Console, outcome: Outcome, prepared: Prepared, store: str, alias: str | None) -> None:
    """What was published and how to use it."""
    version = outcome.version
    console.print()
    if version is None:
        console.print("Not published.")
        return
    console.print(f"Published {version.name}, version {version.number}: {version.location}", soft_wrap=True)
    console.print(f"digest {version.digest}", soft_wrap=True)
    if outcome.report:
        console.print(f"report {outcome.report}", soft_wrap=True)
    if alias:
        console.print(f"The alias {alias} points to it.")
    where = "" if store == "./models" else f" --store {shlex.quote(store)}"
    commands = [f"serve{where}"]
    row = json.dumps(example(prepared), ensure_ascii=False)
    if len(row) <= _LONGEST_ROW:
        body = json.dumps({"model": version.name, "instances": [example(prepared)]}, ensure_ascii=False)
        commands += [
            f"curl http://127.0.0.1:8000/predict -d {shlex.quote(body)}",
            f"models predict {version.name} --row {shlex.quote(row)}{where}",
        ]
    else:
        address = f"http://127.0.0.1:8000/models/{version.name}"
        commands.append(f"curl -s {address}/example | curl {address}/predict -d @-")
    console.print("\nServe it, and try it:")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)


def as_data(outcome: Outcome, prepared: Prepared, store: str, alias: str | None) -> dict[str, Any]:
    """All of it for `--json`."""
    version = outcome.version
    published = version and {
        "version": version.number,
        "digest": version.digest,
        "path": version.location,
        "report": outcome.report,
        "store": store,
        "alias": alias,
    }
    return {
        "model": prepared.job.settings.model.name,
        "published": published,
        "epochs": outcome.epochs,
        "best_epoch": outcome.best_epoch,
        "metrics": outcome.metrics,
        "baseline": outcome.baseline,
        "notes": prepared.notes,
    }


def example(prepared: Prepared) -> Any:
    """One real row, by column name where there are names."""
    row = prepared.instances(prepared.split.judged[:1])[0]
    signature = prepared.signature
    return row if signature.inputs[0].kind == "array" else dict(zip(signature.names, as_written(row), strict=True))


def fold_line(fold: Fold, outcome: Outcome) -> str:
    """How one fold went."""
    found = figures(outcome.metrics, outcome.baseline)
    shown = ", ".join(f"{name} {format_number(value)}" for name, value in found.items())
    return f"fold {fold.number}/{fold.of}: {outcome.epochs} epochs, {shown}"


def print_folds(console: Console, found: Mapping[str, Figures], folds: int) -> None:
    """Each figure's mean and spread over the folds."""
    table = _table(f"over {folds} folds", "mean ± sd", "least", "greatest")
    for name, row in found.items():
        shown = _size if name.endswith(("rmse", "mae")) else _figure
        table.add_row(name, f"{shown(row['mean'])} ± {shown(row['sd'])}", *(shown(row[key]) for key in ("min", "max")))
    console.print()
    console.print(table)


def print_rates(console: Console, curve: RateCurve) -> None:
    """The curve, a bar for each third of a power of ten, and what follows from it."""
    table = _table("rate", "loss", "")
    table.columns[-1].justify = "left"
    top = max(curve.losses[:1], default=1.0)
    last = -math.inf
    for rate, loss in zip(curve.rates, curve.losses, strict=True):
        if math.log10(rate) > last + 1 / 3 - 1e-9:
            last = math.log10(rate)
            table.add_row(f"{rate:.2g}", f"{loss:.5g}", "▇" * round(_BAR * min(loss / top, 2)))
    console.print(table)
    console.print()
    if curve.suggestion is None:
        console.print(
            f"No rate from {LOWEST:g} to {HIGHEST:g} lowered the loss: look at the data, their scale and the loss."
        )
    else:
        console.print(
            f"Suggested: --set train.learning_rate={curve.suggestion:g}, a tenth of the rate where the loss is lowest."
        )


# train check ---------------------------------------------------------------------------------------------------------


def print_check(console: Console, prepared: Prepared) -> None:
    """What a job would train: columns, target, split and network."""
    console.print(beginning(prepared))
    columns = _table("column", "kind", "missing", "in the training rows", numeric=0)
    for column in inputs(prepared):
        columns.add_row(column["name"], column["kind"], str(column["missing"]), column["summary"])
    console.print(columns)
    console.print()
    console.print(_target(prepared))
    console.print()
    layers = _table("layer", "sizes", "parameters", numeric=0)
    for kind, sizes, count in network(prepared):
        layers.add_row(kind, sizes, format_number(count))
    console.print(layers)
    train = prepared.job.settings.train
    total = sum(count for _, _, count in network(prepared))
    console.print(f"{format_number(total)} parameters, {prepared.design.dtype}")
    console.print(
        f"loss {prepared.design.loss}, optimizer {train.optimizer}, learning rate {train.learning_rate:g}, "
        f"schedule {train.schedule.name if train.schedule else 'constant'}"
    )
    if prepared.design.class_weights is not None:
        pairs = zip(prepared.dataset.labels, prepared.design.class_weights, strict=True)
        console.print(f"class weights: {_listed([f'{label} {weight:.3g}' for label, weight in pairs])}")


def check_data(prepared: Prepared) -> dict[str, Any]:
    """The same for `--json`."""
    return {
        "model": prepared.job.settings.model.name,
        "job": prepared.job.settings.as_dict(),
        "columns": inputs(prepared),
        "target": {"names": prepared.dataset.targets, "task": prepared.dataset.task, "classes": classes(prepared)},
        "split": prepared.sizes,
        "network": [{"layer": kind, "sizes": sizes, "parameters": n} for kind, sizes, n in network(prepared)],
        "notes": prepared.notes,
    }


def inputs(prepared: Prepared) -> list[dict[str, Any]]:
    """Each input's name, kind, missing values in all rows, and a word about its values."""
    found = []
    for column in prepared.signature.inputs:
        values, missing, statistics = prepared.dataset.inputs[column.name], 0, column.statistics
        if prepared.stream is not None:  # then the values are those of the rows held out
            missing = statistics.get("missing", 0)
        if isinstance(column, NumberColumn):
            missing += int(np.isnan(values).sum())
            low, high, mean = (format_number(statistics[key]) for key in ("min", "max", "mean"))
            summary = f"{low} to {high}, mean {mean}"
        elif isinstance(column, CategoryColumn):
            missing += sum(value is None for value in values)
            summary = _listed(column.categories)
        else:
            shape = " x ".join(map(str, column.shape))
            summary = f"{shape}, {format_number(statistics['min'])} to {format_number(statistics['max'])}"
        found.append({"name": column.name, "kind": column.kind, "missing": missing, "summary": summary})
    return found


def classes(prepared: Prepared) -> dict[str, int] | None:
    """How many rows each class has, of a classification."""
    labels = prepared.dataset.labels
    if not labels:
        return None
    counts = np.bincount(prepared.dataset.answers, minlength=len(labels))
    if prepared.stream is not None:
        counts = counts + prepared.stream.class_counts
    return {str(label): int(count) for label, count in zip(labels, counts, strict=True)}


def network(prepared: Prepared) -> list[tuple[str, str, int]]:
    """Each layer's type, sizes and number of parameters."""
    return parameters_of(prepared.design.network(np.random.default_rng(0)))


def _target(prepared: Prepared) -> str:
    names = ", ".join(prepared.dataset.targets)
    counts = classes(prepared)
    if counts is None:
        return f"target: {names}, regression"
    rows = _listed([f"{k} {format_number(n)}" for k, n in counts.items()])
    return f"target: {names}, classification; rows a class: {rows}"


def _rows(prepared: Prepared) -> str:
    sizes = prepared.sizes
    parts = [f"{format_number(sizes['training'])} to learn from"]
    if sizes["validation"]:
        parts.append(f"{format_number(sizes['validation'])} to validate with")
    if sizes["test"]:
        parts.append(f"{format_number(sizes['test'])} held out")
    return f"{format_number(sum(sizes.values()))} rows ({', '.join(parts)})"


def _targets(found: Mapping[str, Any], baseline: Mapping[str, Any]) -> RenderableType:
    table = _table("", "RMSE", "MAE", "R²")
    for name, row in found.items():
        for title, values in ((name, row), ("baseline", baseline[name])):
            table.add_row(title, _size(values["rmse"]), _size(values["mae"]), _figure(values["r2"]))
    return table


def _size(value: float | None) -> str:
    """The size of errors, in the target's own unit."""
    return format_number(value, 5)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1e4 else format_number(value)


def _confusion(labels: Sequence[str | int], confusion: Sequence[Sequence[int]]) -> RenderableType:
    table = _table("true \\ answered", *map(str, labels))
    for label, row in zip(labels, confusion, strict=True):
        table.add_row(str(label), *(str(count) if count else "." for count in row))
    return table


def _table(first: str, *others: str, numeric: int = 1) -> Table:
    """A plain table; all columns but the first hold figures, unless `numeric` is 0."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first)
    for title in others:
        table.add_column(title, justify="right" if numeric else "left")
    return table


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_SHOWN])
    return shown if len(names) <= _MOST_SHOWN else f"{shown}, ... ({len(names)} in all)"
