"""The output of `train`: progress lines and metrics, as text for a terminal and as data for `--json`."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from model_store.evaluation.record import OVERALL_LABEL_METRICS
from model_store.schema.signature import MultiLabelOutput, RegressionOutput
from model_store.utils.number_format import METRIC_TITLES, format_number, format_percent, format_score
from training.data.splitting import Fold
from training.engine.early_stopping import EpochResult
from training.pipeline.cross_validation import MetricValues, headline_metrics
from training.pipeline.job import Outcome, PreparedJob
from training.pipeline.lr_range_test import MAX_RATE, MIN_RATE, RateCurve
from training.pipeline.publish_alias import PublishedAliases

_MAX_MATRIX_CLASSES = 20  # larger confusion matrices are not printed
_MAX_CLASS_ROWS = 30  # of the table of metrics by class
_MAX_LISTED = 8
_BAR_WIDTH = 30  # characters of a bar for the first loss
_MAX_ROW_LENGTH = 200  # characters of a row that fits on a command line


def epoch_line(epoch: EpochResult) -> str:
    network = f"network {epoch.network}/{epoch.networks}  " if epoch.networks > 1 else ""
    line = f"{network}epoch {epoch.number}/{epoch.total_epochs}  loss {epoch.loss:.6g}"
    return line if epoch.validation_loss is None else f"{line}  validation loss {epoch.validation_loss:.6g}"


def start_line(prepared: PreparedJob, sizes: Mapping[str, int] | None = None) -> str:
    split = _describe_split(sizes or prepared.sizes)
    return f"{prepared.job.settings.model.name}: {split} of {prepared.dataset.name}"


def end_lines(outcome: Outcome, prepared: PreparedJob) -> list[str]:
    """Return how the training ended and which weights are kept."""
    if (ensemble := outcome.model.training.get("ensemble")) is not None:
        epochs, best = (_range(ensemble[key]) for key in ("epochs", "best_epochs"))
        line = (
            f"Trained {ensemble['networks']} networks for {epochs} epochs; kept the weights of epochs {best}, the best"
        )
        return [f"{line}.", *(f"note: {note}" for note in outcome.notes)]
    line = f"{'Stopped early' if _stopped_early(outcome, prepared) else 'Trained'} after {outcome.epochs} epochs"
    if outcome.best_epoch != outcome.epochs:
        line += f"; kept the weights of epoch {outcome.best_epoch}, the best"
    return [f"{line}.", *(f"note: {note}" for note in outcome.notes)]


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _stopped_early(outcome: Outcome, prepared: PreparedJob) -> bool:
    return outcome.epochs < prepared.job.settings.train.epochs


def print_metrics(console: Console, outcome: Outcome) -> None:
    """Print the metrics of each class or target, and those of the baseline."""
    console.print()
    output = outcome.model.signature.output
    found, baseline = outcome.metrics, outcome.baseline
    if isinstance(output, MultiLabelOutput):
        _print_label_metrics(console, outcome)
        return
    if isinstance(output, RegressionOutput):
        linear = {} if outcome.linear is None else outcome.linear["targets"]
        console.print(_regression_table(found["targets"], baseline["targets"], linear))
        weighted = f", weighted by {found['weight']}" if "weight" in found else ""
        constant = f"{format_number(found['quantile'])} quantile" if "quantile" in found else "mean"
        console.print(
            f"Measured on {format_number(found['rows'])} {found['of']}{weighted}. "
            f"The baseline always predicts the {constant} of the training rows."
        )
        return
    table = new_table(output.name, "precision", "recall", "F1", "rows")
    classes, count = list(found["classes"].items()), len(output.labels)
    if count > _MAX_CLASS_ROWS:
        classes = sorted(classes, key=lambda one: (not one[1]["support"], one[1]["f1"]))[:_MAX_CLASS_ROWS]
    for label, row in classes:
        ratios = (format_score(row[key], 3) if row["support"] else "-" for key in ("precision", "recall", "f1"))
        table.add_row(label, *ratios, format_number(row["support"]))
    console.print(table)
    if count > _MAX_CLASS_ROWS:
        console.print(f"Only the {_MAX_CLASS_ROWS} of {count} classes with the lowest F1 are shown; --json has all.")
    if len(output.labels) <= _MAX_MATRIX_CLASSES:
        console.print()
        console.print(_confusion_table(output.labels, found["confusion"]))
    correct, rows = format_number(round(found["accuracy"] * found["rows"])), format_number(found["rows"])
    console.print()
    share = f"{correct} of {rows} {found['of']} are correct"
    if "weight" in found:
        share = f"of {rows} {found['of']}, weighted by {found['weight']}"
    console.print(f"Accuracy {format_percent(found['accuracy'])}: {share}.")
    console.print(f"Baseline {format_percent(baseline['accuracy'])}: always predicting {baseline['answer']!r}.")
    if outcome.linear is not None:
        console.print(f"Linear model {format_percent(outcome.linear['accuracy'])}: of the same columns.")


def _print_label_metrics(console: Console, outcome: Outcome) -> None:
    """Print the metrics of each label, and those of all together beside the baseline and the linear model."""
    found, baseline, linear = outcome.metrics, outcome.baseline, outcome.linear
    table = new_table("label", "precision", "recall", "F1", "ROC area", "log loss", "rows")
    labels = list(found["labels"].items())
    if len(labels) > _MAX_CLASS_ROWS:
        labels = sorted(labels, key=lambda one: (not one[1]["support"], one[1]["f1"]))[:_MAX_CLASS_ROWS]
    for label, row in labels:
        ratios = (format_score(row[key], 3) if row["support"] else "-" for key in ("precision", "recall", "f1"))
        area = "-" if row["roc_auc"] is None else format_score(row["roc_auc"], 3)
        table.add_row(label, *ratios, area, format_number(row["log_loss"], 3), format_number(row["support"]))
    console.print(table)
    if len(found["labels"]) > _MAX_CLASS_ROWS:
        shown = f"{_MAX_CLASS_ROWS} of {len(found['labels'])}"
        console.print(f"Only the {shown} labels with the lowest F1 are shown; --json has all.")
    console.print()
    overall = new_table("", *(METRIC_TITLES[key] for key in OVERALL_LABEL_METRICS))
    for title, row in (("this model", found), ("baseline", baseline), ("linear model", linear)):
        if row is not None:
            match = format_percent(row["exact_match"])
            overall.add_row(title, match, *(format_number(row[key], 3) for key in OVERALL_LABEL_METRICS[1:]))
    console.print(overall)
    weighted = f", weighted by {found['weight']}" if "weight" in found else ""
    console.print(
        f"Measured on {format_number(found['rows'])} {found['of']}{weighted}. In an exact match all labels of a row "
        "are right. The baseline always predicts the frequency of each label.",
        soft_wrap=True,
    )


def print_published(console: Console, outcome: Outcome, store: str, aliases: PublishedAliases | None) -> None:
    """Print what was published and how to use it."""
    version = outcome.version
    console.print()
    if version is None or aliases is None:
        console.print("Not published.")
        return
    is_default = aliases.default == version.number
    console.print(f"Published {version.name}, version {version.number}: {version.location}", soft_wrap=True)
    console.print(f"digest {version.digest}", soft_wrap=True)
    if outcome.report:
        console.print(f"report {outcome.report}", soft_wrap=True)
    if aliases.alias:
        console.print(f"The alias {aliases.alias} now points to it.")
    store_option = "" if store == "./models" else f" --store {shlex.quote(store)}"
    if aliases.alias or not is_default:
        get = "get" if is_default else "still get"
        why = aliases.why_default
        console.print(f"Requests without a version {get} version {aliases.default} ({why}).", soft_wrap=True)
    if not is_default:
        console.print(
            f"To serve this one: models promote {version.name} {version.number}{store_option}", soft_wrap=True
        )
    port = os.environ.get("SERVE_PORT") or "8000"
    commands = [f"serve{store_option}" + (f" --port {shlex.quote(port)}" if port != "8000" else "")]
    model, path = version.name, version.name
    if not is_default:
        model, path = f"{model}/{version.number}", f"{path}/versions/{version.number}"
    url = f"http://127.0.0.1:{port}/models/{path}"
    example = outcome.model.example_row
    row = json.dumps(example, ensure_ascii=False)
    if example is None:  # a row is too large for one
        commands.append(f"curl {url}")
    elif len(row) <= _MAX_ROW_LENGTH:
        body = json.dumps({"instances": [example]}, ensure_ascii=False)
        commands += [
            f"curl {url}/predict -d {shlex.quote(body)}",
            f"models predict {model} --row {shlex.quote(row)}{store_option}",
        ]
    else:
        commands.append(f"curl -s {url}/example | curl {url}/predict -d @-")
    console.print()
    console.print("Serve and test it:")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)


def result_data(
    outcome: Outcome, prepared: PreparedJob, store: str, aliases: PublishedAliases | None
) -> dict[str, Any]:
    """Return the result for `--json`."""
    version = outcome.version
    published = version and {
        "version": version.number,
        "digest": version.digest,
        "path": version.location,
        "report": outcome.report,
        "store": store,
        "alias": aliases and aliases.alias,
        "default": aliases and aliases.default,
        "why_default": aliases and aliases.why_default,
    }
    return {
        "model": prepared.job.settings.model.name,
        "published": published,
        "data": prepared.dataset.name,
        "split": prepared.sizes,
        "epochs": outcome.epochs,
        "stopped_early": _stopped_early(outcome, prepared),
        "best_epoch": outcome.best_epoch,
        "metrics": outcome.metrics,
        "baseline": outcome.baseline,
        "linear": outcome.linear,
        "notes": [*prepared.notes, *outcome.notes],
    }


def fold_line(fold: Fold, outcome: Outcome) -> str:
    """Return the result of one fold as a line."""
    found = headline_metrics(outcome.metrics, outcome.baseline)
    shown = ", ".join(f"{name} {format_number(value)}" for name, value in found.items())
    repeat = "" if fold.repeat == 1 else f" of repetition {fold.repeat}"
    return f"fold {fold.number}/{fold.count}{repeat}: {outcome.epochs} epochs, {shown}"


def print_folds(console: Console, found: Mapping[str, MetricValues], folds: int, repeats: int = 1) -> None:
    """Print the mean and the standard deviation of each metric over the folds."""
    table = new_table(f"over {f'{repeats} x ' if repeats > 1 else ''}{folds} folds", "mean ± sd", "min", "max")
    for name, row in found.items():
        formatted = _format_error if name.endswith(("rmse", "mae")) else _format_score
        mean, sd, low, high = (formatted(row[key]) for key in ("mean", "sd", "min", "max"))
        table.add_row(name, f"{mean} ± {sd}", low, high)
    console.print()
    console.print(table)


def print_rates(console: Console, curve: RateCurve) -> None:
    """Print the curve, three bars for each power of ten, and the suggested learning rate."""
    table = new_table("learning rate", "loss", "")
    table.columns[-1].justify = "left"
    top = max(curve.losses[:1], default=1.0)
    last = -math.inf
    for rate, loss in zip(curve.rates, curve.losses, strict=True):
        if math.log10(rate) > last + 1 / 3 - 1e-9:
            last = math.log10(rate)
            table.add_row(f"{rate:.2g}", f"{loss:.5g}", "▇" * round(_BAR_WIDTH * min(loss / top, 2)))
    console.print(table)
    console.print()
    if curve.suggestion is None:
        console.print(
            f"No learning rate from {MIN_RATE:g} to {MAX_RATE:g} lowered the loss. "
            "Check the data, data.scale and train.loss."
        )
    else:
        console.print(
            f"Suggested: --set train.learning_rate={curve.suggestion:g} (a tenth of the rate with the lowest loss).",
            soft_wrap=True,
        )


# train check ---------------------------------------------------------------------------------------------------------


def _describe_split(sizes: Mapping[str, int]) -> str:
    parts = ", ".join(f"{format_number(count)} {part}" for part, count in sizes.items() if count)
    return f"{format_number(sum(sizes.values()))} rows ({parts})"


def _regression_table(
    found: Mapping[str, Any], baseline: Mapping[str, Any], linear: Mapping[str, Any]
) -> RenderableType:
    extra = [key for key in next(iter(found.values())) if key not in ("rmse", "mae", "r2")]
    table = new_table("", "RMSE", "MAE", "R²", *(METRIC_TITLES[key] for key in extra))
    for name, row in found.items():
        others = [("linear model", linear[name])] if name in linear else []
        for title, values in ((name, row), ("baseline", baseline[name]), *others):
            others_of_loss = (_format_loss_metric(key, values[key]) for key in extra)
            errors = (_format_error(values["rmse"]), _format_error(values["mae"]), _format_score(values["r2"]))
            table.add_row(title, *errors, *others_of_loss)
    return table


def _format_error(value: float | None) -> str:
    """Format an error in the unit of the target."""
    return format_number(value, 5)


def _format_score(value: float | None) -> str:
    if value is None:
        return "-"
    return format_score(value, 4) if abs(value) < 1e4 else format_number(value)


def _format_loss_metric(name: str, value: float | None) -> str:
    if name == "coverage":
        return format_percent(value)
    return _format_score(value) if name == "d2" else _format_error(value)


def _confusion_table(labels: Sequence[str | int], confusion: Sequence[Sequence[int]]) -> RenderableType:
    table = new_table("true \\ predicted", *map(str, labels))
    for label, row in zip(labels, confusion, strict=True):
        table.add_row(str(label), *(str(count) if count else "." for count in row))
    return table


def new_table(first: str, *others: str, numeric: int = 1) -> Table:
    """Return a table without borders; all columns but the first are numbers, unless `numeric` is 0."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first)
    for title in others:
        table.add_column(title, justify="right" if numeric else "left")
    return table
