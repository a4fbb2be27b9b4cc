"""The sections of a report: headings, captions, tables and charts. A section without data is None."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import ValidationError

from model_store.artifact.model import Model
from model_store.evaluation.confidence import wilson_interval
from model_store.evaluation.record import TrainingRecord, validate_statistics
from model_store.report import charts
from model_store.report.charts import MAX_NARROW_CLASSES
from model_store.report.markup import Markup, join, tag, truncate_middle
from model_store.schema.columns import Column
from model_store.schema.signature import ClassificationOutput
from model_store.utils.number_format import format_number, format_percent

MAX_CLASSES = 30
MAX_COLUMNS = 60
_MAX_MISTAKES = 8
_MAX_LABEL_LENGTH = 40  # characters of a label in a table
_MAX_NOTES, _MAX_NOTE_LENGTH = 50, 1000  # that are shown, characters of each
_MAX_JOB_LENGTH = 20_000  # characters
_JOB_SECTIONS = ("model", "data", "split", "network", "train", "publish")


def header(model: Model, reference: str, record: TrainingRecord) -> Markup:
    """Return name and description of the model, its main metrics and their baseline."""
    name, _, version = reference.partition("/")
    title = tag("h1", name, " ", tag("span", f"version {version}", class_="chip")) if version else tag("h1", name)
    parts = [title]
    if model.description:
        parts.append(tag("p", model.description, class_="lead"))
    summary, tiles = _regression_summary(record)
    if record.classification:
        summary, tiles = _classification_summary(record)
    parts.append(tag("p", summary or "This version has no metrics that this report can show."))
    metrics = record.classification or record.regression
    if metrics and metrics["of"] == "training rows":
        warning = "Measured on the training rows: expect worse results on new rows."
        parts.append(tag("p", warning, class_="warning"))
    if record.history:
        best = record.history["best_epoch"]
        tiles.append(("epochs", format_number(record.history["epochs"]), f"weights of epoch {format_number(best)}"))
    return tag("header", *parts, tag("div", *map(_tile, tiles), class_="tiles"))


def notes(record: TrainingRecord) -> Markup | None:
    """Return the notes of the training on the job, its data and the model."""
    if not record.notes:
        return None
    items = [tag("li", truncate_middle(note, _MAX_NOTE_LENGTH)) for note in record.notes[:_MAX_NOTES]]
    more = len(record.notes) - _MAX_NOTES
    return _section("Notes", tag("ul", *items, class_="wide"), note=f"{more} more notes." if more > 0 else None)


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
    return _section("Learning curves", _figure("Loss by epoch", charts.learning_curves(points, best), caption))


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
                truncate_middle(m["true"], _MAX_LABEL_LENGTH),
                truncate_middle(m["answered"], _MAX_LABEL_LENGTH),
                format_number(m["rows"]),
            ]
            for m in metrics["mistakes"][:_MAX_MISTAKES]
        ]
        wrong = round((1 - metrics["accuracy"]) * metrics["rows"])
        verb = "is" if wrong == 1 else "are"
        caption = f"{format_number(wrong)} of {format_number(metrics['rows'])} {metrics['of']} {verb} wrong."
        tables.append(_figure("Most frequent mistakes", _table(["true", "predicted", ">rows"], rows), caption))
    two_columns = len(figures) == 1 and len(labels) <= MAX_NARROW_CLASSES
    return _section("Errors", *figures, *([tag("div", *tables, class_="stack")] if two_columns else tables))


def residuals(record: TrainingRecord) -> Markup | None:
    """Return predicted against true values and the distribution of the errors, for each target."""
    found = record.residuals
    if found is None:
        return None
    figures: list[Markup] = []
    for name, target in found["targets"].items():
        shown = truncate_middle(name, _MAX_LABEL_LENGTH)
        median, p90 = format_number(target["median"], 3), format_number(target["p90"], 3)
        caption = f"Median absolute error: {median}. 90 % of the absolute errors are at most {p90}."
        if len(target["points"]) < target["rows"]:
            points, rows = format_number(len(target["points"])), format_number(target["rows"])
            caption += f" A random sample of {points} of {rows} rows is shown."
        if target["step"]:
            caption += f" The points are rounded to steps of {format_number(target['step'], 3)}."
        figures.append(
            _figure(f"{shown}: predicted and true values", charts.predicted_against_true(name, target), caption)
        )
        caption = f"Mean error (bias): {format_number(target['bias'], 3)}."
        if target["outside"]:
            outside, rows = format_number(target["outside"]), format_number(target["rows"])
            caption += f" The {outside} most extreme of {rows} errors are outside the chart."
        figures.append(_figure(f"{shown}: residuals", charts.residual_histogram(name, target), caption))
    note = f"{found['left_out']} more targets are not shown." if found["left_out"] else None
    return _section("Residuals", *figures, note=note)


def calibration(record: TrainingRecord) -> Markup | None:
    """Return the reliability diagram and, for two classes, the ROC curve."""
    found = record.calibration
    if found is None:
        return None
    of = "the predicted class" if found["of"] is None else f"“{truncate_middle(found['of'], _MAX_LABEL_LENGTH)}”"
    caption = (
        f"Each point is a bin of 10 %: the mean predicted probability of {of} against its observed frequency, with the "
        "95 % interval. On the dashed line they are equal. The bars count the rows of each bin. Expected calibration "
        f"error: {format_percent(found['expected_error'])}. Log loss: {format_number(found['log_loss'])}."
    )
    figures = [_figure("Reliability diagram", charts.reliability_diagram(found), caption)]
    if curve := record.roc:
        caption = (
            f"True-positive rate against false-positive rate of “{truncate_middle(curve['of'], _MAX_LABEL_LENGTH)}” at "
            "every threshold. The area under the curve (AUC) is the probability that a random positive row scores "
            "higher than a random negative one."
        )
        figures.append(_figure("ROC curve", charts.roc_curve(curve), caption))
    return _section("Calibration", *figures)


def permutation_importance(record: TrainingRecord) -> Markup | None:
    found = record.importance
    if found is None:
        return None
    measure = {"accuracy": "accuracy", "log_loss": "log loss", "rmse": "RMSE"}[found["measure"]]
    title = "Loss of accuracy, in points" if found["measure"] == "accuracy" else f"Increase of the {measure}"
    if found["measure"] == "rmse" and len((record.regression or {"targets": ()})["targets"]) > 1:
        title += ", in standard deviations"
    score = format_percent(found["score"]) if found["measure"] == "accuracy" else format_number(found["score"])
    repeats = "one shuffle" if found["repeats"] == 1 else f"mean of {found['repeats']} shuffles"
    rows = format_number(found["rows"])
    if found["grid"]:
        high, wide = found["patch"]
        patch = f"a patch of {high} × {wide} pixels" if high * wide > 1 else "a pixel"
        chart = charts.importance_heatmap(found, title)
        caption = f"{title} when {patch} is shuffled among {rows} rows ({repeats})."
        caption += " A stronger color means more important. The axes count pixels from the top left."
    else:
        chart = charts.importance_bars(found["parts"], title, in_points=found["measure"] == "accuracy")
        lines = "; the lines are one standard deviation" if found["repeats"] > 1 else ""
        caption = f"{title}, when a column is shuffled among {rows} rows ({repeats}{lines})."
        caption += " Correlated columns share importance, so each may look unimportant."
        if found["left_out"]:
            caption += f" {format_number(found['left_out'])} less important columns are not shown."
    caption += f" Without shuffling the {measure} is {score}."
    return _section("Permutation importance", _figure(title, chart, caption))


def inputs(model: Model) -> Markup:
    """Return the columns and the statistics of their training values."""
    columns = model.signature.inputs
    rows = []
    for column in columns[:MAX_COLUMNS]:
        words, chart = _describe_statistics(column)
        rows.append(
            [truncate_middle(column.name, _MAX_LABEL_LENGTH), column.kind, words, _describe_missing(column), chart]
        )
    table = _table(["column", "kind", "training values", "missing values", "distribution"], rows, stacks=True)
    notes = []
    if any(column.in_number_table for column in columns):
        notes.append(
            "Distribution: a line from minimum to maximum, a bar from the first to the ninth decile, a tick at the "
            "median."
        )
    if len(columns) > MAX_COLUMNS:
        notes.append(f"{format_number(len(columns) - MAX_COLUMNS)} more columns are not shown.")
    return _section("Inputs", tag("div", table, class_="wide scroll"), note=" ".join(notes) or None)


def provenance(model: Model, digest: str | None) -> Markup:
    """Return what is needed to reproduce the model: layers, data, split, job and digest."""
    layers = []
    for i, (module, shapes) in enumerate(zip(model.network.modules, model.network.shapes(), strict=True)):
        sizes = " → ".join(" × ".join(map(str, shape or ())) for shape in shapes)
        count = sum(array.size for array in module.parameters())
        layers.append([str(i), type(module).__name__, sizes, format_number(count) if count else ""])
    size = sum(array.size for array in model.network.parameters())
    caption = f"{format_number(size)} parameters, {model.network.dtype}."
    figures = [_figure("Layers", _table([">#", "layer", "sizes", ">parameters"], layers), caption)]
    facts = [("digest", digest), *_data_and_split(model.training)]
    pairs = [join([tag("dt", key), tag("dd", value)]) for key, value in facts if value is not None]
    figures.append(_figure("Provenance", tag("dl", *pairs)))
    if job := _format_job(model.training.get("job")):
        figures.append(tag("details", tag("summary", "Job file"), tag("pre", job), class_="wide"))
    return _section("Network and provenance", *figures)


# Parts of sections ---------------------------------------------------------------------------------------------------


def _classification_summary(record: TrainingRecord) -> tuple[str, list[tuple[str, str, str]]]:
    metrics, baseline = record.classification or {}, record.baseline
    correct, rows = round(metrics["accuracy"] * metrics["rows"]), metrics["rows"]
    low, high = wilson_interval(correct, rows)
    accuracy, interval = format_percent(metrics["accuracy"]), f"{100 * low:.1f} to {format_percent(high)}"
    summary = f"Accuracy {accuracy} on {format_number(rows)} {metrics['of']} (95 % interval {interval})."
    tiles = [("accuracy", accuracy, interval)]
    if baseline:
        label = truncate_middle(baseline["answer"], _MAX_LABEL_LENGTH)
        summary += f" Baseline: {format_percent(baseline['accuracy'])}, always predicting “{label}”."
        tiles.append(("baseline", format_percent(baseline["accuracy"]), f"always “{truncate_middle(label, 16)}”"))
    if record.calibration:
        tiles.append(("log loss", format_number(record.calibration["log_loss"], 3), "0 is perfect"))
        error = format_percent(record.calibration["expected_error"])
        tiles.append(("calibration error", error, "expected, in 10 bins"))
    if record.roc:
        tiles.append(("ROC AUC", format_number(record.roc["area"], 3), "0.5 is random"))
    return summary, tiles


def _regression_summary(record: TrainingRecord) -> tuple[str, list[tuple[str, str, str]]]:
    metrics = record.regression
    if metrics is None:
        return "", []
    sentences, tiles = [f"Measured on {format_number(metrics['rows'])} {metrics['of']}."], []
    baselines = record.baseline["targets"] if record.baseline else {}
    for name, target in list(metrics["targets"].items())[:4]:
        rmse, short_name = format_number(target["rmse"], 3), truncate_middle(name, 20)
        sentence, baseline = f"RMSE of {truncate_middle(name, _MAX_LABEL_LENGTH)}: {rmse}", ""
        if name in baselines:
            baseline = f"baseline {format_number(baselines[name]['rmse'], 3)}"
            sentence += f" ({baseline}, always predicting the mean)"
        sentences.append(f"{sentence}.")
        tiles.append((f"RMSE, {short_name}", rmse, baseline))
        tiles.append((f"R², {short_name}", format_number(target["r2"], 3), "1 is perfect"))
    return " ".join(sentences), tiles


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
    return _figure("Confusion matrix", chart, caption, wide=len(kept) > MAX_NARROW_CLASSES)


def _class_figure(name: str, classes: Mapping[str, Mapping[str, Any]]) -> Markup:
    shown, caption = list(classes.items()), None
    if len(shown) > MAX_CLASSES:
        shown = sorted(shown, key=lambda item: (not item[1]["support"], item[1]["f1"]))[:MAX_CLASSES]
        caption = f"Only the {MAX_CLASSES} of {len(classes)} classes with the lowest F1 are shown."
    rows = [
        [
            truncate_middle(label, _MAX_LABEL_LENGTH),
            *(format_percent(row[key] if row["support"] else None) for key in ("precision", "recall", "f1")),
            format_number(row["support"]),
        ]
        for label, row in shown
    ]
    headings = [truncate_middle(name, _MAX_LABEL_LENGTH), ">precision", ">recall", ">F1", ">rows"]
    return _figure("Metrics by class", _table(headings, rows), caption)


def _describe_statistics(column: Column) -> list[str]:
    """Return the statistics of the training values as text and as a chart."""
    try:
        statistics = validate_statistics(column.statistics)
    except ValidationError:
        return ["", ""]
    words = column.describe_statistics(statistics, lambda name: truncate_middle(name, 24))
    low, high, deciles = (statistics[key] for key in ("min", "max", "deciles"))
    return [words, "" if None in (low, high) or not deciles else charts.decile_bar(low, high, deciles)]


def _describe_missing(column: Column) -> str:
    if column.fill is None:
        return "rejected"
    filled = truncate_middle(column.fill, 24) if isinstance(column.fill, str) else format_number(column.fill)
    return f"filled with {filled}"


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
        lines += [f"[{name}]", *(f"{key} = {_format_toml(value)}" for key, value in sorted(job[name].items())), ""]
    return "\n".join(lines).strip()[:_MAX_JOB_LENGTH]


def _format_toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{key} = {_format_toml(inner)}" for key, inner in sorted(value.items())) + " }"
            if value
            else "{}"
        )
    return json.dumps(value, ensure_ascii=False)


def _section(title: str, *parts: Markup, note: str | None = None) -> Markup:
    below = [tag("p", note, class_="note")] if note else []
    return tag("section", tag("h2", title), tag("div", *parts, class_="figures"), *below)


def _figure(title: str, content: Markup, caption: str | None = None, *, wide: bool = False) -> Markup:
    captions = [tag("figcaption", caption)] if caption else []
    class_ = "wide" if wide else None
    return tag("figure", tag("h3", title), tag("div", content, class_="scroll"), *captions, class_=class_)


def _tile(tile: tuple[str, str, str]) -> Markup:
    name, value, words = tile
    return tag("div", tag("span", name), tag("b", value), tag("small", words))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, stacks: bool = False) -> Markup:
    """Return a table; a heading that starts with ">" aligns its column to the right, the first column names the row.

    With `stacks` a phone shows the cells of a row one below the other, each with its heading.
    """
    sides = ["n" if heading.startswith(">") else None for heading in headings]
    head = [
        tag("th", heading.lstrip(">"), scope="col", class_=side) for heading, side in zip(headings, sides, strict=True)
    ]
    body = []
    for first, *others in rows:
        cells = [
            tag("td", cell, class_=side, data_label=heading if stacks else None)
            for heading, cell, side in zip(headings[1:], others, sides[1:], strict=True)
        ]
        body.append(tag("tr", tag("th", first, scope="row", class_=sides[0]), *cells))
    return tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="stacks" if stacks else None)
