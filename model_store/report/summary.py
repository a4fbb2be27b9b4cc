"""The head of a report: the model's name, its main metrics and what they compare to."""

from __future__ import annotations

from model_store.artifact.model import Model
from model_store.evaluation.confidence import wilson_interval
from model_store.evaluation.record import TrainingRecord, main_metric
from model_store.report.layout import MAX_LABEL_LENGTH, section, tile
from model_store.report.markup import Markup, tag, truncate_middle
from model_store.utils.number_format import METRIC_TITLES, format_number, format_percent, format_score

_MAX_NOTES, _MAX_NOTE_LENGTH = 50, 1000  # that are shown, characters of each


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
    if record.multi_label:
        summary, tiles = _multi_label_summary(record)
    parts.append(tag("p", summary or "This version has no metrics that this report can show."))
    metrics = record.classification or record.multi_label or record.regression
    if metrics and metrics["of"] == "training rows":
        warning = "Measured on the training rows: expect worse results on new rows."
        parts.append(tag("p", warning, class_="warning"))
    if record.history:
        best = record.history["best_epoch"]
        tiles.append(("epochs", format_number(record.history["epochs"]), f"weights of epoch {format_number(best)}"))
    return tag("header", *parts, tag("div", *map(tile, tiles), class_="tiles"))


def _classification_summary(record: TrainingRecord) -> tuple[str, list[tuple[str, str, str]]]:
    metrics, baseline = record.classification or {}, record.baseline
    correct, rows = round(metrics["accuracy"] * metrics["rows"]), metrics["rows"]
    low, high = wilson_interval(correct, rows)
    accuracy, interval = format_percent(metrics["accuracy"]), f"{100 * low:.1f} to {format_percent(high)}"
    weighted = f", weighted by {truncate_middle(metrics['weight'], MAX_LABEL_LENGTH)}" if metrics["weight"] else ""
    summary = f"Accuracy {accuracy} on {format_number(rows)} {metrics['of']}{weighted} (95 % interval {interval})."
    tiles = [("accuracy", accuracy, interval)]
    if baseline:
        label = truncate_middle(baseline["answer"], MAX_LABEL_LENGTH)
        summary += f" Baseline: {format_percent(baseline['accuracy'])}, always predicting “{label}”."
        tiles.append(("baseline", format_percent(baseline["accuracy"]), f"always “{truncate_middle(label, 16)}”"))
    if linear := record.linear:
        summary += f" A linear model of the same columns: {format_percent(linear['accuracy'])}."
        tiles.append(
            ("linear model", format_percent(linear["accuracy"]), f"log loss {format_number(linear['log_loss'], 3)}")
        )
    if record.calibration:
        tiles.append(("log loss", format_number(record.calibration["log_loss"], 3), "0 is perfect"))
        error = format_percent(record.calibration["expected_error"])
        tiles.append(("calibration error", error, "expected, in 10 bins"))
    if record.roc:
        tiles.append(("ROC AUC", format_score(record.roc["area"], 3), "0.5 is random"))
    return summary, tiles


def _multi_label_summary(record: TrainingRecord) -> tuple[str, list[tuple[str, str, str]]]:
    metrics, baseline, linear = record.multi_label or {}, record.baseline, record.linear
    rows = metrics["rows"]
    low, high = wilson_interval(round(metrics["exact_match"] * rows), rows)
    exact, interval = format_percent(metrics["exact_match"]), f"{100 * low:.1f} to {format_percent(high)}"
    weighted = f", weighted by {truncate_middle(metrics['weight'], MAX_LABEL_LENGTH)}" if metrics["weight"] else ""
    summary = (
        f"All labels right in {exact} of {format_number(rows)} {metrics['of']}{weighted} (95 % interval {interval}). "
        f"Log loss {format_number(metrics['log_loss'])}."
    )
    tiles = [("exact match", exact, interval)]
    for key in ("micro_f1", "macro_f1"):
        beside = f"baseline {format_score(baseline[key], 3)}" if baseline else "1 is perfect"
        tiles.append((METRIC_TITLES[key], format_score(metrics[key], 3), beside))
    for key in ("hamming_loss", "log_loss"):
        beside = f"baseline {format_number(baseline[key], 3)}" if baseline else "0 is perfect"
        tiles.append((METRIC_TITLES[key], format_number(metrics[key], 3), beside))
    if metrics["roc_auc"] is not None:
        tiles.append(("ROC area", format_score(metrics["roc_auc"], 3), "mean of the labels"))
    if baseline:
        loss, match = format_number(baseline["log_loss"]), format_percent(baseline["exact_match"])
        summary += f" Baseline: log loss {loss}, exact match {match}, always predicting the frequency of each label."
    if linear:
        loss, match = format_number(linear["log_loss"]), format_percent(linear["exact_match"])
        summary += f" A linear model of the same columns: log loss {loss}, exact match {match}."
        tiles.append(("linear model", match, f"log loss {format_number(linear['log_loss'], 3)}"))
    if record.calibration:
        error = format_percent(record.calibration["expected_error"])
        tiles.append(("calibration error", error, "expected, in 10 bins"))
    return summary, tiles


def _regression_summary(record: TrainingRecord) -> tuple[str, list[tuple[str, str, str]]]:
    metrics = record.regression
    if metrics is None:
        return "", []
    weighted = f", weighted by {truncate_middle(metrics['weight'], MAX_LABEL_LENGTH)}" if metrics["weight"] else ""
    sentences, tiles = [f"Measured on {format_number(metrics['rows'])} {metrics['of']}{weighted}."], []
    constant = "the mean" if metrics["quantile"] is None else f"the {format_number(metrics['quantile'])} quantile"
    baselines = record.baseline["targets"] if record.baseline else {}
    linear = record.linear["targets"] if record.linear else {}
    for name, target in list(metrics["targets"].items())[:4]:
        metric, short_name = main_metric(target), truncate_middle(name, 20)
        title, error = METRIC_TITLES[metric], format_number(target[metric], 3)
        sentence, baseline = f"{title[0].upper()}{title[1:]} of {truncate_middle(name, MAX_LABEL_LENGTH)}: {error}", ""
        if name in baselines:
            baseline = f"baseline {format_number(baselines[name].get(metric), 3)}"
            sentence += f" ({baseline}, always predicting {constant})"
        sentences.append(f"{sentence}.")
        if name in linear:
            sentences.append(f"A linear model of the same columns: {format_number(linear[name].get(metric), 3)}.")
        tiles.append((f"{title}, {short_name}", error, baseline))
        if metric == "rmse":
            tiles.append((f"R², {short_name}", format_score(target["r2"], 3), "1 is perfect"))
            continue
        tiles.append((f"D², {short_name}", format_score(target.get("d2"), 3), f"of the {title}; 1 is perfect"))
        if (coverage := target.get("coverage")) is not None:
            aim = format_percent(metrics["quantile"])
            share = format_percent(coverage)
            sentences.append(f"{share} of the true values are at most the prediction; {aim} should be.")
            tiles.append((f"coverage, {short_name}", share, f"{aim} is perfect"))
    return " ".join(sentences), tiles


def notes(record: TrainingRecord) -> Markup | None:
    """Return the notes of the training on the job, its data and the model."""
    if not record.notes:
        return None
    items = [tag("li", truncate_middle(note, _MAX_NOTE_LENGTH)) for note in record.notes[:_MAX_NOTES]]
    more = len(record.notes) - _MAX_NOTES
    return section("Notes", tag("ul", *items, class_="wide"), note=f"{more} more notes." if more > 0 else None)
