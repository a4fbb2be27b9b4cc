"""Notes on a trained model: what its learning curve and its importance say about the job and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.evaluation.record import TrainingRecord, main_metric
from model_store.evaluation.slices import describe_spot, format_error, format_p
from model_store.schema.signature import Signature
from model_store.utils.number_format import METRIC_TITLES, format_number, format_percent, format_score
from model_store.utils.values import list_names
from training.config.defaults import default_patience
from training.config.settings import TrainSection

OUT_OF_FOLD_ROWS = "out-of-fold rows"  # of which the metrics of an ensemble without test rows are
_OVERFIT_RATIO = 1.1  # of the last to the lowest validation loss; smaller ratios are noise
_MIN_SUSPICIOUS_R2 = 0.995
_MIN_RELIANCE = 0.01  # of the largest cost of a shuffled column
_LAST_EPOCHS = 0.05  # of all: a lowest validation loss among them is still falling
_MIN_ROC_AREA = 0.55  # lower ones are close to random
_MIN_BIAS = 0.01  # of the mean of the target; less is noise
_MAX_SPOT = 200  # characters of a slice
_MIN_LINEAR_GAIN = 0.02  # by which the error of a linear model is lower; less is noise


def find_outcome_notes(section: TrainSection, record: Mapping[str, Any]) -> list[str]:
    """Return the notes of a training with this record (see `train_and_evaluate`)."""
    history, metrics = record["history"], record["metrics"]
    baseline, diagnostics = record["baseline"], record.get("diagnostics") or {}
    return [
        *_describe_ensemble(record.get("ensemble"), metrics),
        *_find_overfitting(section, history),
        *_find_unfinished_training(section, history),
        *_find_no_better_than_baseline(section, metrics, baseline, diagnostics),
        *_find_retransformation_bias(record, diagnostics),
        *_find_labels_never_predicted(section, metrics),
        *_find_better_linear_model(metrics, record.get("linear"), diagnostics),
        *_find_reliance(metrics, diagnostics.get("importance")),
    ]


def describe_weak_spots(record: Mapping[str, Any], signature: Signature) -> list[str]:
    """Name the slice of rows that is worse than elsewhere beyond chance, and how many more the report lists."""
    found = TrainingRecord.parse(record).weak_spots
    if found is None or not found["spots"]:
        return []
    spot, more = found["spots"][0], len(found["spots"]) - 1
    here, elsewhere = (format_error(spot[key], found["measure"]) for key in ("error", "elsewhere"))
    title = {"error_rate": "wrong rows", "mae": "mean absolute error", "relative_error": "mean error / deviation"}
    return [
        f"weak spot: {describe_spot(spot, signature.inputs)[:_MAX_SPOT]}, {format_number(spot['rows'])} rows: "
        f"{title.get(found['measure']) or METRIC_TITLES[found['measure']]} {here}, elsewhere {elsewhere} "
        f"(adjusted p {format_p(spot['p'])}){f'; the report lists {more} more' if more else ''}"
    ]


def _describe_ensemble(ensemble: Mapping[str, Any] | None, metrics: Mapping[str, Any]) -> list[str]:
    """Return how good the networks of an average are for the rows that they were not trained on."""
    if ensemble is None:
        return []
    note = f"the model is the average of {ensemble['networks']} networks, each stopped on another part of the rows"
    curve = "epochs and learning curve are those of the first one"
    if metrics["of"] == OUT_OF_FOLD_ROWS:
        return [
            f"{note}; {curve}. The metrics are out of fold: each row is predicted by the network that was not trained "
            "on it, but was stopped on it. The average is usually better"
        ]
    found = ensemble["out_of_fold"]
    scores = [f"accuracy {format_score(found['accuracy'], 4)}"] if "accuracy" in found else []
    scores += [f"micro F1 {format_score(found['micro_f1'], 4)}"] if "micro_f1" in found else []
    scores += [f"RMSE {format_number(row['rmse'], 4)} of {name}" for name, row in found.get("targets", {}).items()]
    return [f"{note} ({list_names(scores, 4)} there); {curve}"]


def _find_overfitting(section: TrainSection, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Suggest early stopping if training ran without it and went well past the lowest validation loss."""
    history = [point for point in history if "validation_loss" in point]
    if not history or section.early_stopping is not None:
        return []
    last, best = history[-1], min(history, key=lambda point: point["validation_loss"])
    if last["validation_loss"] <= _OVERFIT_RATIO * best["validation_loss"]:
        return []
    return [
        f"Overfitting: the validation loss was lowest in epoch {best['epoch']} ({best['validation_loss']:.4g}) and "
        f"ended at {last['validation_loss']:.4g}. To keep the best weights, write "
        f"early_stopping = {{ patience = {default_patience(section.epochs)} }} in [train]."
    ]


def _find_unfinished_training(section: TrainSection, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Suggest more epochs if the validation loss was lowest in the last of them."""
    validated = [point for point in history if "validation_loss" in point]
    if not validated or validated[-1]["epoch"] < section.epochs:
        return []
    best = min(validated, key=lambda point: point["validation_loss"])["epoch"]
    if best < section.epochs - max(1, round(_LAST_EPOCHS * section.epochs)):
        return []
    return [
        f"the validation loss was lowest in epoch {best} of {section.epochs}, one of the last: more epochs may help "
        f"(--set train.epochs={2 * section.epochs})"
    ]


def _find_no_better_than_baseline(
    section: TrainSection, metrics: Mapping[str, Any], baseline: Mapping[str, Any], diagnostics: Mapping[str, Any]
) -> list[str]:
    """Say what to do about a model that is no better than a baseline that ignores the inputs."""
    if "accuracy" in metrics:
        if metrics["accuracy"] > baseline["accuracy"]:
            return []
        area = (diagnostics.get("roc") or {}).get("area")
        note = f"the accuracy is no better than that of always predicting {baseline['answer']!r}"
        if section.class_weights is not None and (area is None or area >= _MIN_ROC_AREA):
            return [f"{note}, as is usual with class_weights: see recall and precision of each class"]
        if area is not None and area >= _MIN_ROC_AREA:
            return [
                f"{note}, but the ROC area is {format_score(area, 3)}: the model tells rows apart, but 0.5 is a poor "
                "threshold for a rare class. Choose one from the report, or write class_weights = 'balanced' in [train]"
            ]
        rare = "class_weights = 'balanced' in [train] gives rare classes more weight; "
        advice = f"{'' if section.class_weights else rare}--find-rate helps"
        return [f"{note}: the columns tell little about the target, or the training failed. {advice}"]
    if "exact_match" in metrics:
        if metrics["log_loss"] < baseline["log_loss"]:
            return []
        return [
            "the log loss is no better than that of always predicting the frequency of each label: the columns tell "
            "little about the labels, or the training failed: try --find-rate, more epochs or fewer columns"
        ]
    scores = {name: row.get("d2", row["r2"]) for name, row in metrics["targets"].items()}
    names = [name for name, score in scores.items() if score is not None and score <= 0]
    if not names:
        return []
    error = METRIC_TITLES[main_metric(metrics["targets"][names[0]])]
    constant = "quantile" if "quantile" in metrics else "mean"
    return [
        f"the {error} of {list_names(names, 8)} is no better than that of always predicting the {constant}: the "
        "columns tell little about the target, or the training failed: try --find-rate, more epochs or fewer columns"
    ]


def _find_retransformation_bias(record: Mapping[str, Any], diagnostics: Mapping[str, Any]) -> list[str]:
    """Report how far the mean of the predictions of a transformed target is below that of the true values."""
    transform = record["job"]["data"].get("target_transform") if "job" in record else None
    residuals = (diagnostics.get("residuals") or {}).get("targets", {})
    if transform is None:
        return []
    means = dict(zip(record["metrics"]["targets"], record["baseline"]["answer"], strict=True))
    low = [
        f"{name} by {format_percent(-found['bias'] / abs(means[name]))}"
        for name, found in residuals.items()
        if means[name] and found["bias"] < -_MIN_BIAS * abs(means[name])
    ]
    if not low:
        return []
    return [
        f"target_transform = '{transform}': the predictions are closer to the median of the target than to its mean, "
        f"and on average too low: {list_names(low, 4)} of the mean. If sums of predictions matter, remove it, or use "
        "loss = 'gamma' or 'poisson'"
    ]


def _find_labels_never_predicted(section: TrainSection, metrics: Mapping[str, Any]) -> list[str]:
    """Name the labels that rows have and the model never finds, as their probability stays below the threshold."""
    found = metrics.get("labels", {})
    missed = [label for label, row in found.items() if row["support"] and not row["recall"]]
    if not missed:
        return []
    rare = "" if section.class_weights else "write class_weights = 'balanced' in [train] or "
    return [
        f"never found the label {list_names(missed, 8)}, whose probability stays below the threshold: {rare}"
        "lower label_threshold in [data]; the probabilities may still tell rows apart, as the ROC area says"
    ]


def _find_better_linear_model(
    metrics: Mapping[str, Any], linear: Mapping[str, Any] | None, diagnostics: Mapping[str, Any]
) -> list[str]:
    """Report a linear model of the same columns with a clearly lower error."""
    if linear is None:
        return []
    if "accuracy" in metrics:
        pairs = [((diagnostics.get("calibration") or {}).get("log_loss"), linear["log_loss"], "log loss")]
    elif "exact_match" in metrics:
        pairs = [(metrics["log_loss"], linear["log_loss"], "log loss")]
    else:
        found = linear["targets"]
        keys = {name: main_metric(row) for name, row in metrics["targets"].items()}
        pairs = [
            (row.get(keys[name]), found[name].get(keys[name]), f"{METRIC_TITLES[keys[name]]} of {name}")
            for name, row in metrics["targets"].items()
        ]
    better = [
        f"{name} {format_number(theirs)} instead of {format_number(ours)}"
        for ours, theirs, name in pairs
        if ours is not None and theirs is not None and theirs < (1 - _MIN_LINEAR_GAIN) * ours
    ]
    if not better:
        return []
    return [
        f"a linear model of the same columns is better ({list_names(better, 4)}): try layers = [] in [network], a "
        "smaller network, weight_decay or dropout"
    ]


def _find_reliance(metrics: Mapping[str, Any], importance: Mapping[str, Any] | None) -> list[str]:
    """Name the columns that a regression relies on if it leaves almost no error: they may contain the target."""
    scores = [target["r2"] for target in metrics.get("targets", {}).values()]
    if not importance or "grid" in importance or None in scores or min(scores, default=0.0) < _MIN_SUSPICIOUS_R2:
        return []
    costs = {part["name"]: part["cost"] or 0.0 for part in importance["parts"]}
    relied = [name for name, cost in costs.items() if cost > _MIN_RELIANCE * max(costs.values())]
    if not relied or (len(relied) == len(costs) and len(costs) > 1):
        return []
    their, them = ("its", "it") if len(relied) == 1 else ("their", "them")
    return [
        f"R² {format_score(min(scores), 3)} is unusually high: the model relies on {list_names(relied, 8)}. If {their} "
        f"values are not known at prediction time, exclude {them}: list the other columns in data.columns"
    ]
