"""A model card as Markdown (CommonMark with the tables of GitHub); model_card.py says what is in it.

Names, labels and notes come from files of others: everything that Markdown or HTML would read as more than text is
escaped, and control characters are shown as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marshmallow import ValidationError

from model_store.evaluation.confidence import wilson_interval
from model_store.evaluation.record import validate_statistics
from model_store.evaluation.slices import describe_slice, describe_spot, format_error, format_p
from model_store.report.markup import truncate_middle
from model_store.report.model_card import TO_WRITE
from model_store.schema.columns import Column
from model_store.utils.number_format import METRIC_TITLES, format_number, format_percent
from model_store.utils.printable import printable

_TITLES = {
    "model_details": "Model details",
    "intended_use": "Intended use",
    "factors": "Factors",
    "metrics": "Metrics",
    "evaluation_data": "Evaluation data",
    "training_data": "Training data",
    "quantitative_analyses": "Quantitative analyses",
    "ethical_considerations": "Ethical considerations",
    "caveats_and_recommendations": "Caveats and recommendations",
}
_MAX_LENGTH = 500  # characters of a text
_MAX_ROWS = 100  # of a table
_MAX_GROUPED = 12  # columns whose groups are shown
_MAX_METRICS = 6  # of a group
_MAX_ITEMS = 20  # of a list
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word means nothing
_SHARES = {"accuracy", "exact_match", "precision", "recall", "f1", "error_rate", "coverage", "calibration_error"}
_SPOT_TITLES = {"error_rate": "wrong rows", "mae": "mean absolute error", "relative_error": "mean error / deviation"}


def render_card(card: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """Return the Markdown of a card (see `make_card`). `columns` are the inputs of the model."""
    known = {column.name: column for column in columns}
    sections = {
        "model_details": _details(card["model_details"]),
        "intended_use": _use(card["intended_use"]),
        "factors": _factors(card["factors"]),
        "metrics": _metrics(card["metrics"]),
        "evaluation_data": _evaluation_data(card["evaluation_data"]),
        "training_data": _training_data(card["training_data"], known),
        "quantitative_analyses": _analyses(card["quantitative_analyses"], known),
        "ethical_considerations": [],
        "caveats_and_recommendations": _caveats(card["caveats_and_recommendations"]),
    }
    lines = [
        f"# Model card: {escape(card['model'])}",
        "",
        "Filled from the record of the version by `models card`; the sections are those of Mitchell et al., 2019. "
        "Each line that begins with **To be written** needs a person.",
    ]
    for name, parts in sections.items():
        lines += ["", f"## {_TITLES[name]}"]
        for part in [*parts, _questions(name)]:
            if part:
                lines += ["", *part]
    return "\n".join(lines) + "\n"


def escape(value: object, max_length: int = _MAX_LENGTH) -> str:
    """Return a text on one line that Markdown shows as it is, also in a table."""
    text = printable(" ".join(truncate_middle(value, max_length).split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    text = text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")  # no links
    return _SPECIAL.sub(r"\\\g<0>", text)


def _facts(pairs: Iterable[tuple[str, str | None]]) -> list[str]:
    return [f"- **{name}:** {value}" for name, value in pairs if value]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table; a heading that starts with ">" aligns its column to the right."""
    if not rows:
        return []
    marks = ["---:" if heading.startswith(">") else "---" for heading in headings]
    lines = [[heading.lstrip(">") for heading in headings], marks, *rows[:_MAX_ROWS]]
    more = [] if len(rows) <= _MAX_ROWS else ["", f"{format_number(len(rows) - _MAX_ROWS)} more are left out."]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), *more]


def _questions(section: str) -> list[str]:
    return [
        f"- **To be written:** {question}"
        for location, question in TO_WRITE.items()
        if location.startswith(f"{section}.")
    ]


def _flat(section: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """Yield the leaves of recorded data with their keys, for facts."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key} ")
        elif value is not None:
            values = value if isinstance(value, list) else [value]
            more = f", ... ({len(values)} in total)" if len(values) > _MAX_ITEMS else ""
            yield escape(f"{before}{key}", 100), ", ".join(map(_value, values[:_MAX_ITEMS])) + more


def _value(value: object) -> str:
    return format_number(value) if isinstance(value, float) else escape(value)


def _details(part: Mapping[str, Any]) -> list[list[str]]:
    published = part["published"]
    by = "an unknown author" if published["who"] is None else escape(published["who"])
    copies = [
        f"{escape(one['when'])} from {escape(one['source'])} by {escape(one['who'])}" for one in published["copies"]
    ]
    facts = [
        ("Name", escape(part["name"])),
        ("Version", escape(part["version"])),
        ("Description", escape(part["description"], 2000)),
        ("Published", f"{escape(published['when'])} by {by}"),
        ("Copied", "; ".join(copies)),
        ("Aliases", escape(", ".join(part["aliases"]))),
        ("Signed by", escape(", ".join(map(str, part["signed_by"])))),
        ("Digest (SHA-256)", f"`{part['digest']}`"),
        ("Task", escape(part["task"])),
        ("Network", escape(" → ".join(part["layers"]))),
        ("Parameters", f"{format_number(part['parameters'])}, {escape(part['dtype'])}"),
        ("Size", f"{format_number(part['bytes'])} bytes"),
        *((f"Imported, {key}", value) for key, value in _flat(part.get("import", {}))),
    ]
    return [_facts(facts)]


def _use(part: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for column in part["inputs"]:
        rest = {key: value for key, value in column.items() if key not in ("name", "kind", "required", "fill")}
        missing = "rejected" if column["required"] else f"filled with {_value(column['fill'])}"
        rows.append(
            [escape(column["name"]), escape(column["kind"]), "; ".join(f"{k} {v}" for k, v in _flat(rest)), missing]
        )
    output = _facts((f"Output, {key}", value) for key, value in _flat(part["output"]))
    left_out = part.get("inputs_left_out")
    note = [f"{format_number(left_out)} more inputs are left out."] if left_out else []
    return [_table(["input", "kind", "values", "missing"], rows), note, output]


def _factors(part: Mapping[str, Any]) -> list[list[str]]:
    names = ", ".join(escape(name, 100) for name in part["columns_with_metrics"])
    known = names or "none"
    return [_facts([("Factors with metrics", f"{known} (see the quantitative analyses)" if names else known)])]


def _metrics(part: Mapping[str, Any]) -> list[list[str]]:
    if not part.get("values"):
        return [["This version has no metrics."]]
    rows = []
    for one in part["values"]:
        name, show = _title(one["metric"]), _formatter(one["metric"])
        if "target" in one:
            name += f" of {escape(one['target'])}"
        interval = f"{show(one['low'])} to {show(one['high'])}" if "low" in one else ""
        rows.append([name, show(one["value"]), interval])
    weight = None if part.get("weight") is None else escape(part["weight"])
    facts = [
        ("Measured on", f"{format_number(part['rows'])} {escape(part['measured_on'])}" if "rows" in part else None),
        ("Weighted by", weight),
        ("Decision threshold", None if "threshold" not in part else format_number(part["threshold"])),
        *((f"Choice of the threshold, {key}", value) for key, value in _flat(part.get("threshold_choice", {}))),
        ("Temperature", _temperature(part.get("temperature"))),
        ("Baseline without inputs", _others(part.get("baseline"))),
        ("Linear model of the same columns", _others(part.get("linear_model"))),
    ]
    return [_table(["metric", ">value", ">95 % interval"], rows), _facts(facts), *_coverage(part.get("coverage"))]


def _temperature(fit: Mapping[str, Any] | None) -> str | None:
    if fit is None:
        return None
    before, after = (format_number(fit["log_loss"][key]) for key in ("before", "after"))
    return (
        f"{format_number(fit['value'])}, which changes the log loss of {format_number(fit['rows'])} validation rows "
        f"from {before} to {after}"
    )


def _coverage(found: Mapping[str, Any] | None) -> list[list[str]]:
    """Return how often intervals or sets of labels hold the truth, by the level that is promised."""
    if found is None:
        return []
    what, size = ("sets of labels", "labels") if found["method"] in ("aps", "raps") else ("intervals", "width")
    rows = []
    for one in found["levels"]:
        low, high = wilson_interval(one["covered"] * found["rows"], found["rows"])
        interval = f"{format_percent(low)} to {format_percent(high)}"
        rows.append(
            [format_percent(one["level"]), format_percent(one["covered"]), interval, format_number(one["size"])]
        )
    note = (
        f"The {what} ({found['method']}, {format_number(found['calibration_rows'])} calibration rows) hold the truth "
        f"of so many of {format_number(found['rows'])} evaluation rows:"
    )
    return [[note], _table([">promised", ">held", ">95 % interval", f">mean {size}"], rows)]


def _others(found: Mapping[str, Any] | None) -> str | None:
    """Return the metrics of a baseline or of the linear model on one line."""
    if found is None:
        return None
    parts = [
        f"{_title(key)} {_formatter(key)(value)}" for key, value in found.items() if isinstance(value, (int, float))
    ]
    for target, metrics in (found.get("targets") or {}).items():
        parts += [f"{_title(key)} of {escape(target)} {_formatter(key)(metrics[key])}" for key in ("rmse", "mae")]
    return ", ".join(parts)


def _evaluation_data(part: Mapping[str, Any]) -> list[list[str]]:
    rows = None if "rows" not in part else f"{format_number(part['rows'])} {escape(part['of'])}"
    return [_facts([("Rows", rows), *((f"Split, {key}", value) for key, value in _flat(part.get("split", {})))])]


def _training_data(part: Mapping[str, Any], columns: Mapping[str, Column]) -> list[list[str]]:
    facts = [
        (f"{title}, {key}", value) for title in ("file", "rows", "job") for key, value in _flat(part.get(title, {}))
    ]
    facts = [(f"{name[0].upper()}{name[1:]}", value) for name, value in facts]
    rows = [[escape(name), _statistics(columns[name])] for name in part["drift_baseline"] if name in columns]
    return [_facts(facts), _table(["input", "training values, the baseline of drift"], rows)]


def _statistics(column: Column) -> str:
    """Return the statistics of the training values in words; those of an artifact may be invalid."""
    try:
        statistics = validate_statistics(column.statistics)
    except ValidationError:
        return ""
    return escape(column.describe_statistics(statistics, lambda name: truncate_middle(name, 24)))


def _analyses(part: Mapping[str, Any], columns: Mapping[str, Column]) -> list[list[str]]:
    found = [*_by_label(part.get("by_label")), *_weak_spots(part.get("weak_spots"), list(columns.values()))]
    groups = part.get("by_group", ())
    for one in groups[:_MAX_GROUPED]:
        names = [name for name in one["metrics"] if name != "error_rate"][:_MAX_METRICS]
        rows = [
            [
                escape(describe_slice(words, columns.get(one["column"]))),
                format_number(words["rows"]),
                *(_formatter(name)(one["metrics"][name][i]) for name in names),
            ]
            for i, words in enumerate(one["slices"])
        ]
        headings = [escape(one["column"]), ">rows", *(f">{_title(name)}" for name in names)]
        found += [[f"### By {escape(one['column'])}"], _table(headings, rows)]
    if len(groups) > _MAX_GROUPED:
        found.append(
            [f"{len(groups) - _MAX_GROUPED} more columns are in the JSON form of this card (`--format json`)."]
        )
    return found or [["No metrics by class or by group are recorded."]]


def _by_label(labels: Mapping[str, Any] | None) -> list[list[str]]:
    if not labels:
        return []
    rows = []
    for label, one in labels.items():
        interval = one["recall_interval"]
        limits = f"{format_percent(interval['low'])} to {format_percent(interval['high'])}" if interval else ""
        shares = [format_percent(one[key]) for key in ("precision", "recall")]
        rows.append([escape(label), *shares, limits, format_percent(one["f1"]), format_number(one["support"])])
    headings = ["label", ">precision", ">recall", ">95 % interval", ">F1", ">rows"]
    return [["### By label"], _table(headings, rows)]


def _weak_spots(found: Mapping[str, Any] | None, columns: Sequence[Column]) -> list[list[str]]:
    if found is None:
        return []
    measure, tried = found["measure"], format_number(found["tried"])
    test = "Fisher's exact test" if found["test"] == "fisher_exact" else "the rank-sum test"
    how = f"{tried} slices of {format_number(found['rows'])} rows were tried by {test}, with Holm's adjustment."
    rows = [
        [
            escape(describe_spot(spot, columns)),
            format_number(spot["rows"]),
            *(format_error(spot[key], measure) for key in ("error", "elsewhere")),
            format_p(spot["p"]),
        ]
        for spot in found["spots"]
    ]
    title = _SPOT_TITLES.get(measure) or METRIC_TITLES[measure]
    note = how if rows else f"None: in no slice is the error higher than elsewhere beyond chance. {how}"
    return [["### Weak spots"], [note], _table(["slice", ">rows", f">{title}", ">elsewhere", ">adjusted p"], rows)]


def _caveats(part: Mapping[str, Any]) -> list[list[str]]:
    return [[f"- {escape(note, 1000)}" for note in [*part["known"], *part["notes"]]]]


def _title(metric: str) -> str:
    target, _, name = metric.rpartition(".")
    title = METRIC_TITLES.get(name, escape(name.replace("_", " ")))
    return f"{title} of {escape(target)}" if target else title


def _formatter(metric: str) -> Any:
    """Return the function that writes a value of a metric: a share as a percentage, else a number."""
    return format_percent if metric.rpartition(".")[2] in _SHARES else format_number
