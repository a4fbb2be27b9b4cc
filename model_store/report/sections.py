"""The sections of a report: headings, captions, tables and charts. A section without data is None."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import ValidationError

from model_store.artifact.model import Model
from model_store.evaluation.record import TrainingRecord, validate_statistics
from model_store.nn import Average
from model_store.report import charts
from model_store.report.charts import MAX_NARROW_CLASSES
from model_store.report.layout import MAX_LABEL_LENGTH, figure, section, table
from model_store.report.markup import Markup, join, tag, truncate_middle
from model_store.schema.columns import Column
from model_store.schema.signature import ClassificationOutput
from model_store.utils.number_format import format_number, format_percent, format_score
from model_store.utils.values import limit_nesting

MAX_CLASSES = 30
MAX_COLUMNS = 60
_MAX_MISTAKES = 8
_MAX_JOB_LENGTH = 20_000  # characters
_MAX_JOB_LEVELS = 20  # of lists and tables in a value
_JOB_SECTIONS = ("model", "data", "split", "network", "train", "answers", "publish")


def learning_curves(record: TrainingRecord) -> Markup | None:
    history = record.history
    if history is None:
        return None
    points, best = history["history"], history["best_epoch"]
    caption = f"Final training loss: {format_number(points[-1]['loss'])}."
    validated = [p for p in points if p["validation_loss"] is not None]
    if validated:
        lowest = min(validated, key=lambda p: p["validation_loss"])
        loss, epoch = format_number(lowest["validation_loss"]), format_number(lowest["epoch"])
        caption += f" Lowest validation loss: {loss}, in epoch {epoch}."
    caption += f" The model has the weights of epoch {format_number(best)}."
    if validated:
        caption += _overfitting_note(points, best)
    return section("Learning curves", figure("Loss by epoch", charts.learning_curves(points, best), caption))


def classification_errors(model: Model, record: TrainingRecord) -> Markup | None:
    """Return the confusion matrix, the metrics of each class and the most frequent mistakes."""
    metrics = record.classification
    output = model.signature.output
    if metrics is None or not isinstance(output, ClassificationOutput):
        return None
    labels = [str(label) for label in output.labels]
    figures: list[Markup] = []
    if metrics["confusion"] and len(metrics["confusion"]) == len(labels):
        figures.append(_confusion_figure(labels, metrics["confusion"]))
    tables = [_class_figure(output.name, metrics["classes"])]
    if metrics["mistakes"]:
        rows = [
            [
                truncate_middle(m["true"], MAX_LABEL_LENGTH),
                truncate_middle(m["answered"], MAX_LABEL_LENGTH),
                format_number(m["rows"]),
            ]
            for m in metrics["mistakes"][:_MAX_MISTAKES]
        ]
        wrong = round((1 - metrics["accuracy"]) * metrics["rows"])
        verb = "is" if wrong == 1 else "are"
        caption = f"{format_number(wrong)} of {format_number(metrics['rows'])} {metrics['of']} {verb} wrong."
        if metrics["weight"]:  # the accuracy does not count rows
            caption = "Rows, whatever their weights."
        tables.append(figure("Most frequent mistakes", table(["true", "predicted", ">rows"], rows), caption))
    two_columns = len(figures) == 1 and len(labels) <= MAX_NARROW_CLASSES
    return section("Errors", *figures, *([tag("div", *tables, class_="stack")] if two_columns else tables))


def label_errors(record: TrainingRecord) -> Markup | None:
    """Return the metrics of each label, for rows that may have several."""
    metrics = record.multi_label
    if metrics is None:
        return None
    shown = list(metrics["labels"].items())
    caption = "A label is predicted for the rows in which its probability reaches the threshold."
    if len(shown) > MAX_CLASSES:
        shown = sorted(shown, key=lambda item: (not item[1]["support"], item[1]["f1"]))[:MAX_CLASSES]
        caption += f" Only the {MAX_CLASSES} of {len(metrics['labels'])} labels with the lowest F1 are shown."
    rows = [
        [
            truncate_middle(label, MAX_LABEL_LENGTH),
            *(format_percent(row[key] if row["support"] else None) for key in ("precision", "recall", "f1")),
            format_score(row["roc_auc"], 3),
            format_number(row["log_loss"], 3),
            format_number(row["support"]),
        ]
        for label, row in shown
    ]
    headings = ["label", ">precision", ">recall", ">F1", ">ROC area", ">log loss", ">rows"]
    return section("Errors", figure("Metrics by label", table(headings, rows), caption, wide=True))


def residuals(record: TrainingRecord) -> Markup | None:
    """Return predicted against true values and the distribution of the errors, for each target."""
    found = record.residuals
    if found is None:
        return None
    figures: list[Markup] = []
    for name, target in found["targets"].items():
        shown = truncate_middle(name, MAX_LABEL_LENGTH)
        median, p90 = format_number(target["median"], 3), format_number(target["p90"], 3)
        caption = f"Median absolute error: {median}. 90 % of the absolute errors are at most {p90}."
        if len(target["points"]) < target["rows"]:
            points, rows = format_number(len(target["points"])), format_number(target["rows"])
            caption += f" A random sample of {points} of {rows} rows is shown."
        if target["step"]:
            caption += f" The points are rounded to steps of {format_number(target['step'], 3)}."
        figures.append(
            figure(f"{shown}: predicted and true values", charts.predicted_against_true(name, target), caption)
        )
        caption = f"Mean error (bias): {format_number(target['bias'], 3)}."
        if target["outside"]:
            outside, rows = format_number(target["outside"]), format_number(target["rows"])
            caption += f" The {outside} most extreme of {rows} errors are outside the chart."
        figures.append(figure(f"{shown}: residuals", charts.residual_histogram(name, target), caption))
    note = f"{found['left_out']} more targets are not shown." if found["left_out"] else None
    return section("Residuals", *figures, note=note)


def inputs(model: Model) -> Markup:
    """Return the columns and the statistics of their training values."""
    columns = model.signature.inputs
    rows = []
    for column in columns[:MAX_COLUMNS]:
        words, chart = _describe_statistics(column)
        name, missing = truncate_middle(column.name, MAX_LABEL_LENGTH), column.describe_missing(_shorten)
        rows.append([name, column.kind, words, missing, chart])
    columns_table = table(["column", "kind", "training values", "missing values", "distribution"], rows, stacks=True)
    notes = []
    if any(column.in_number_table for column in columns):
        notes.append(
            "Distribution: a line from minimum to maximum, a bar from the first to the ninth decile, a tick at the "
            "median."
        )
    if len(columns) > MAX_COLUMNS:
        notes.append(f"{format_number(len(columns) - MAX_COLUMNS)} more columns are not shown.")
    return section("Inputs", tag("div", columns_table, class_="wide scroll"), note=" ".join(notes) or None)


def provenance(model: Model, digest: str | None) -> Markup:
    """Return what is needed to reproduce the model: layers, data, split, job and digest."""
    layers = []
    for i, (module, shapes) in enumerate(zip(model.network.modules, model.network.shapes(), strict=True)):
        sizes = " → ".join(" × ".join(map(str, shape or ())) for shape in shapes)
        count = sum(array.size for array in module.parameters())
        name = type(module).__name__
        if isinstance(module, Average):
            name += f" of {module.summarize()}"
        layers.append([str(i), name, sizes.replace(" ", "\u00a0"), format_number(count) if count else ""])
    size = sum(array.size for array in model.network.parameters())
    caption = f"{format_number(size)} parameters, {model.network.dtype}."
    figures = [figure("Layers", table([">#", "layer", "sizes", ">parameters"], layers), caption)]
    facts = [("digest", digest), *_data_and_split(model.training)]
    pairs = [join([tag("dt", key), tag("dd", value)]) for key, value in facts if value is not None]
    figures.append(figure("Provenance", tag("dl", *pairs)))
    if job := _format_job(model.training.get("job")):
        figures.append(tag("details", tag("summary", "Job file"), tag("pre", job), class_="wide"))
    return section("Network and provenance", *figures)


# Parts of sections ---------------------------------------------------------------------------------------------------


def _overfitting_note(points: Sequence[Mapping[str, Any]], best: int) -> str:
    """Return a warning if the validation loss of the kept weights is more than twice the training loss."""
    kept = min(points, key=lambda p: abs(p["epoch"] - best))
    loss, validation_loss = kept["loss"], kept["validation_loss"]
    if validation_loss is None or not 0 < loss < validation_loss / 2:
        return ""
    ratio = format_number(validation_loss / loss, 2)
    return f" At that epoch the validation loss is {ratio} times the training loss, a sign of overfitting."


def _confusion_figure(labels: list[str], counts: list[list[int]]) -> Markup:
    kept = list(range(len(labels)))
    caption = "Rows: true class. Columns: predicted class. Color: share of the row."
    if len(labels) > MAX_CLASSES:
        wrong = [sum(counts[i]) + sum(row[i] for row in counts) - 2 * counts[i][i] for i in kept]
        kept = sorted(sorted(kept, key=lambda i: -wrong[i])[:MAX_CLASSES])
        caption += f" Only the {MAX_CLASSES} of {len(labels)} classes with the most errors are shown."
    chart = charts.confusion_matrix([labels[i] for i in kept], [[counts[i][j] for j in kept] for i in kept])
    return figure("Confusion matrix", chart, caption, wide=len(kept) > MAX_NARROW_CLASSES)


def _class_figure(name: str, classes: Mapping[str, Mapping[str, Any]]) -> Markup:
    shown, caption = list(classes.items()), None
    if len(shown) > MAX_CLASSES:
        shown = sorted(shown, key=lambda item: (not item[1]["support"], item[1]["f1"]))[:MAX_CLASSES]
        caption = f"Only the {MAX_CLASSES} of {len(classes)} classes with the lowest F1 are shown."
    rows = [
        [
            truncate_middle(label, MAX_LABEL_LENGTH),
            *(format_percent(row[key] if row["support"] else None) for key in ("precision", "recall", "f1")),
            format_number(row["support"]),
        ]
        for label, row in shown
    ]
    headings = [truncate_middle(name, MAX_LABEL_LENGTH), ">precision", ">recall", ">F1", ">rows"]
    return figure("Metrics by class", table(headings, rows), caption)


def _describe_statistics(column: Column) -> list[str]:
    """Return the statistics of the training values as text and as a chart."""
    try:
        statistics = validate_statistics(column.statistics)
    except ValidationError:
        return ["", ""]
    words = column.describe_statistics(statistics, lambda name: truncate_middle(name, 24))
    low, high, deciles = (statistics[key] for key in ("min", "max", "deciles"))
    return [words, "" if None in (low, high) or not deciles else charts.decile_bar(low, high, deciles)]


def _shorten(value: Any) -> str:
    return truncate_middle(value, 24) if isinstance(value, str) else format_number(value)


def _data_and_split(training: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return the digest of the data and the sizes of the split, if the record has them."""
    data, split = ({} if not isinstance(part, dict) else part for part in (training.get("data"), training.get("split")))
    sha256 = data.get("sha256")
    sizes = [(key, split.get(key)) for key in ("training", "validation", "test")]
    rows = ", ".join(
        f"{format_number(count)} {key}" for key, count in sizes if type(count) is int and 0 <= count <= 2**53
    )
    return [("data, SHA-256", sha256[:64] if isinstance(sha256, str) else None), ("rows", rows or None)]


def _format_job(job: Any) -> str:
    """Return the job as TOML with ordered keys, the same for a job from a training and from a manifest."""
    if not isinstance(job, dict):
        return ""
    lines = []
    for name in [key for key in dict.fromkeys((*_JOB_SECTIONS, *sorted(job))) if isinstance(job.get(key), dict)]:
        lines += [
            f"[{name}]",
            *(
                f"{key} = {_format_toml(limit_nesting(value, _MAX_JOB_LEVELS))}"
                for key, value in sorted(job[name].items())
            ),
            "",
        ]
    return "\n".join(lines).strip()[:_MAX_JOB_LENGTH]


def _format_toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{key} = {_format_toml(inner)}" for key, inner in sorted(value.items())) + " }"
            if value
            else "{}"
        )
    return json.dumps(value, ensure_ascii=False)
