"""The sections of a report on the model's diagnostics: calibration, thresholds, importance, slices and worst rows.

A section without data is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.artifact.model import Model
from model_store.evaluation.confidence import wilson_interval
from model_store.evaluation.diagnostics_schema import LOSS_METRICS, MAX_SLICE_CANDIDATES
from model_store.evaluation.record import TrainingRecord
from model_store.evaluation.slices import describe_slice, describe_spot, format_error, format_p
from model_store.report import charts
from model_store.report.layout import MAX_LABEL_LENGTH, figure, section, table
from model_store.report.markup import Markup, truncate_middle
from model_store.schema.signature import ClassificationOutput
from model_store.utils.number_format import METRIC_TITLES, format_number, format_percent, format_score

_MEASURES = {  # of permutation importance: the title of the cost, and what it is without shuffling
    "log_loss": ("Increase of the log loss", "log loss"),
    "squared_error": ("Increase of the squared error / variance", "squared error / variance"),
    **{
        metric: (
            f"Increase of the {METRIC_TITLES[metric]} / that of the best constant",
            f"{METRIC_TITLES[metric]} / that of the best constant",
        )
        for metric in LOSS_METRICS
    },
    "accuracy": ("Loss of accuracy, in points", "accuracy"),
    "rmse": ("Increase of the RMSE", "RMSE"),
}


def calibration(record: TrainingRecord) -> Markup | None:
    """Return the reliability diagram."""
    found = record.calibration
    if found is None:
        return None
    of = "the predicted class" if found["of"] is None else f"“{truncate_middle(found['of'], MAX_LABEL_LENGTH)}”"
    of = "a label" if record.multi_label else of
    counted = "pairs of a row and a label" if record.multi_label else "rows"
    caption = (
        f"Each point is a bin of 10 %: the mean predicted probability of {of} against its observed frequency, with the "
        f"95 % interval. On the dashed line they are equal. The bars count the {counted} of each bin. "
        f"Expected calibration error: {format_percent(found['expected_error'])}. "
        f"Log loss: {format_number(found['log_loss'])}."
    )
    diagram = figure("Reliability diagram", charts.reliability_diagram(found), caption)
    fit, before = record.temperature, record.uncalibrated
    if fit is None or before is None:
        return section("Calibration", diagram)
    caption = (
        f"The same before temperature scaling, which divides the logits by {format_number(fit['value'])}. On "
        f"{format_number(fit['rows'])} validation rows, each half with the temperature of the other, it changes the "
        f"log loss from {format_number(fit['log_loss']['before'])} to {format_number(fit['log_loss']['after'])}. "
        f"Expected calibration error before: {format_percent(before['expected_error'])}. "
        f"Log loss before: {format_number(before['log_loss'])}."
    )
    other = figure("Before temperature scaling", charts.reliability_diagram(before), caption)
    return section("Calibration", diagram, other)


def coverage(record: TrainingRecord) -> Markup | None:
    """Return promised against measured coverage of conformal intervals or sets."""
    found = record.coverage
    if found is None:
        return None
    is_regression = found["method"] in ("absolute", "normalized")
    what, size = ("intervals", ">mean width") if is_regression else ("sets of labels", ">mean labels")

    def numbers(part: Mapping[str, Any], rows: int) -> list[str]:
        low, high = wilson_interval(part["covered"] * rows, rows)
        interval = f"{format_percent(low)} to {format_percent(high)}"
        return [format_percent(part["covered"]), interval, format_number(part["size"])]

    heads = [">held", ">95 % interval", size]
    rows = [[format_percent(one["level"]), *numbers(one, found["rows"])] for one in found["levels"]]
    caption = (
        f"How often {what} hold the truth of the {format_number(found['rows'])} evaluation rows, with scores of "
        f"{format_number(found['calibration_rows'])} calibration rows ({found['method']})."
    )
    figures = [figure("Promised and measured", table([">promised", *heads], rows), caption)]
    if (groups := found["groups"]) is not None:
        names = [
            truncate_middle(part["name"], MAX_LABEL_LENGTH)
            if part["name"] is not None
            else f"{format_number(part['low'])} to {format_number(part['high'])}"
            for part in groups["parts"]
        ]
        of = "prediction" if is_regression else "true class"
        rows = [
            [name, format_number(part["rows"]), *numbers(part, part["rows"])]
            for name, part in zip(names, groups["parts"], strict=True)
        ]
        caption = f"At the level {format_percent(groups['level'])}, which is promised for all rows together."
        figures.append(figure(f"By {of}", table([of, ">rows", *heads], rows), caption))
    return section("Coverage", *figures)


def thresholds(model: Model, record: TrainingRecord) -> Markup | None:
    """Return what the thresholds on the probability of the second of two classes give, or of labels."""
    figures = []
    if record.label_roc:
        left_out = record.label_roc["left_out"]
        for curve in record.label_roc["curves"]:
            name, positive = truncate_middle(curve["of"], MAX_LABEL_LENGTH), "a random row with the label scores higher"
            caption = f"The area under the curve (AUC) is the probability that {positive} than one without it."
            if left_out:
                caption += f" {format_number(left_out)} rarer labels are left out."
            figures.append(figure(f"ROC curve of “{name}”", charts.roc_curve(curve), caption))
    if curve := record.roc:
        caption = (
            f"True-positive rate against false-positive rate of “{truncate_middle(curve['of'], MAX_LABEL_LENGTH)}” at "
            "every threshold. The area under the curve (AUC) is the probability that a random positive row scores "
            "higher than a random negative one."
        )
        figures.append(figure("ROC curve", charts.roc_curve(curve), caption))
    costs = record.costs
    if costs and (curve := record.precision_recall):
        share = costs["positives"] / costs["rows"]
        caption = (
            "Precision, the share of flagged rows that are positive, against recall, the share of positive rows that "
            f"are flagged, at every threshold. Average precision: {format_score(curve['average'], 3)}; of random "
            f"flags: {format_score(share, 3)} (dashed)."
        )
        figures.append(figure("Precision-recall curve", charts.precision_recall_curve(curve, share), caption))
    if costs:
        figures.append(_cost_figure(costs))
    decision = _describe_decision(model, record)
    return section("Thresholds", *figures, note=decision) if figures or decision else None


def _describe_decision(model: Model, record: TrainingRecord) -> str | None:
    """Return a sentence on the decision threshold of two classes, None if the most probable label is predicted."""
    output = model.signature.output
    if not isinstance(output, ClassificationOutput) or output.threshold is None:
        return None
    label = truncate_middle(str(output.labels[1]), MAX_LABEL_LENGTH)
    text = f"The model predicts “{label}” from a probability of {format_score(output.threshold, 3)} on"
    chosen = record.threshold
    if chosen is None or chosen["value"] != output.threshold:
        return f"{text}."
    if chosen["score"] is None:
        return f"{text}, which the job says."
    by = {"f1": "the largest F1", "balanced_accuracy": "the largest balanced accuracy", "cost": "the least costs"}
    score = f"{format_score(chosen['score'], 3)} a row" if chosen["by"] == "cost" else format_score(chosen["score"], 3)
    reason = by.get(chosen["by"], f"the largest recall with a {chosen['by'].replace('>=', 'of at least')}")
    return f"{text}, which has {reason} on {format_number(chosen['rows'])} rows that it was not trained on: {score}."


def _cost_figure(costs: Mapping[str, Any]) -> Markup:
    rows, positives = costs["rows"], costs["positives"]
    half = next((one for one in costs["options"] if one["threshold"] == 0.5), None)
    lines = []
    for one in costs["options"]:
        ratio, missed, alarms = one["cost_ratio"], one["false_negatives"], one["false_positives"]
        flagged = positives - missed + alarms
        line = [
            f"{format_number(ratio)} : 1" if ratio >= 1 else f"1 : {format_number(1 / ratio)}",
            format_score(one["threshold"], 3),
            format_percent((positives - missed) / flagged if flagged else None),
            format_percent((positives - missed) / positives if positives else None),
            format_number(1000 * (ratio * missed + alarms) / rows, 3),
        ]
        if half:
            line.append(format_number(1000 * (ratio * half["false_negatives"] + half["false_positives"]) / rows, 3))
        lines.append(line)
    headings = ["missed : false alarm", ">threshold", ">precision", ">recall", ">cost"]
    if half:
        headings.append(">cost at 0.5")
    caption = (
        "What a missed positive row costs, compared with a false alarm, decides the best threshold on calibrated "
        f"probabilities, 1 / (1 + ratio). A row is positive if it is “{_shorten(costs['of'])}”. "
        "Costs are per 1,000 rows, in false alarms; a flag that is right costs nothing."
    )
    return figure("Thresholds by cost", table(headings, lines), caption, wide=True)


def permutation_importance(record: TrainingRecord) -> Markup | None:
    found = record.importance
    if found is None:
        return None
    in_points = found["measure"] == "accuracy"
    title, measure = _MEASURES[found["measure"]]
    if found["measure"] == "rmse" and len((record.regression or {"targets": ()})["targets"]) > 1:
        title += ", in standard deviations"
    score = format_percent(found["score"]) if in_points else format_number(found["score"])
    repeats = "one shuffle" if found["repeats"] == 1 else f"mean of {found['repeats']} shuffles"
    rows = format_number(found["rows"])
    if found["grid"]:
        high, wide = found["patch"]
        patch = f"a patch of {high} × {wide} pixels" if high * wide > 1 else "a pixel"
        chart = charts.importance_heatmap(found, title)
        caption = f"{title} when {patch} is shuffled among {rows} rows ({repeats})."
        caption += " A stronger color means more important. The axes count pixels from the top left."
    else:
        chart = charts.interval_bars(
            _importance_bars(found["parts"], 100.0 if in_points else 1.0), title, _show_3_digits
        )
        older = found["measure"] in ("accuracy", "rmse")
        lines = "one standard deviation over the shuffles" if older else "95 % intervals over the rows"
        caption = f"{title}, when a column is shuffled among {rows} rows ({repeats}). The lines are {lines}."
        caption += " Correlated columns share importance, so each may look unimportant."
        if found["left_out"]:
            caption += f" {format_number(found['left_out'])} less important columns are not shown."
    caption += f" Without shuffling the {measure} is {score}."
    return section("Permutation importance", figure(title, chart, caption))


def _importance_bars(parts: Sequence[Mapping[str, Any]], factor: float) -> list[dict[str, Any]]:
    return [
        {
            "name": part["name"],
            "value": part["cost"] * factor,
            "low": part["low"] * factor,
            "high": part["high"] * factor,
        }
        for part in parts
        if None not in (part["cost"], part["low"], part["high"])
    ]


def error_slices(model: Model, record: TrainingRecord) -> Markup | None:
    """Return the error of the rows with each value of the most important columns."""
    found = record.slices
    if found is None:
        return None
    titles = {"error_rate": "Wrong rows", "rmse": "RMSE", "relative_rmse": "RMSE, in standard deviations"}
    titles |= {metric: METRIC_TITLES[metric].capitalize() for metric in LOSS_METRICS}
    title = titles[found["measure"]]
    show = format_percent if found["measure"] == "error_rate" else _show_3_digits
    columns = {column.name: column for column in model.signature.inputs}
    figures = []
    for column in found["columns"]:
        bars = []
        for part in column["slices"]:
            name, error = describe_slice(part, columns.get(column["column"])), part["error"]
            words = f"{column['column']} {name}, {format_number(part['rows'])} rows"
            if part["bias"] is not None:
                words += f", bias {format_number(part['bias'], 3)}"
            bars.append({"name": name, "words": words, **error})
        chart = charts.interval_bars(bars, title, show, found["error"])
        figures.append(figure(truncate_middle(column["column"], MAX_LABEL_LENGTH), chart))
    note = (
        f"{title} among the rows of each slice, with the 95 % interval; the dashed line is all rows: "
        f"{show(found['error'])}. Numbers are cut into fifths of the training rows."
    )
    if len(model.signature.inputs) > MAX_SLICE_CANDIDATES:
        note += f" Of the columns, the {MAX_SLICE_CANDIDATES} most important were examined."
    return section("Errors by slice", *figures, note=note)


def weak_spots(model: Model, record: TrainingRecord) -> Markup | None:
    """Return the table of the slices whose error is higher than elsewhere beyond chance."""
    found = record.weak_spots
    if found is None:
        return None
    titles = {"error_rate": "wrong", "mae": "mean absolute error", "relative_error": "mean error / standard deviation"}
    title = {**titles, **{metric: METRIC_TITLES[metric] for metric in LOSS_METRICS}}[found["measure"]]
    test = "Fisher's exact test" if found["test"] == "fisher_exact" else "rank-sum test"
    tried, rows_tried = format_number(found["tried"]), format_number(found["rows"])
    how = f"Tried: {tried} slices of the {rows_tried} rows, by one or two columns ({test}, with Holm's adjustment)."
    if not found["spots"]:
        note = f"None: in no slice is the error higher than elsewhere beyond chance. {how}"
        return section("Weak spots", note=note)
    rows = [
        [
            truncate_middle(describe_spot(spot, model.signature.inputs), MAX_LABEL_LENGTH),
            format_number(spot["rows"]),
            format_error(spot["error"], found["measure"]),
            format_error(spot["elsewhere"], found["measure"]),
            format_p(spot["p"]),
        ]
        for spot in found["spots"]
    ]
    headings = ["slice", ">rows", f">{title}", ">elsewhere", ">adjusted p"]
    caption = f"The error of these rows is higher than elsewhere beyond chance. {how}"
    return section("Weak spots", figure("Slices with a higher error", table(headings, rows), caption, wide=True))


def worst_rows(record: TrainingRecord) -> Markup | None:
    """Return the table of the rows with the largest errors, by their location in the data."""
    rows = record.worst_rows
    if not rows:
        return None
    if record.multi_label:
        headings = ["row", "true", "predicted"]
        lines = [[one["row"], *(_shorten(one[key]) for key in ("true", "predicted"))] for one in rows]
        caption = "The rows with a wrong label whose log loss is largest."
    elif record.classification:
        headings = ["row", "true", "predicted", ">probability of the predicted"]
        lines = [
            [one["row"], *(_shorten(one[key]) for key in ("true", "predicted")), format_percent(one["probability"])]
            for one in rows
        ]
        caption = "The wrong rows whose true class has the lowest probability."
    else:
        several = len({one["target"] for one in rows}) > 1
        headings = ["row", *(["target"] if several else []), ">error (predicted − true)"]
        lines = [
            [one["row"], *([_shorten(one["target"])] if several else []), format_number(one["error"])] for one in rows
        ]
        caption = "The rows with the largest errors."
    caption += " Look at them in the data: a wrong label, a unit or a missing column often shows there first."
    return section("Worst rows", figure("Rows with the largest errors", table(headings, lines), caption))


def _show_3_digits(value: float) -> str:
    return format_number(value, 3)


def _shorten(label: Any) -> str:
    return truncate_middle(label, MAX_LABEL_LENGTH)
