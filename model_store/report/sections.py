"""Sections: what the report says, a heading, a sentence and figures each; None where the record has nothing for one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import ValidationError

from model_store.artifact.model import Model
from model_store.evaluation.confidence import wilson_interval
from model_store.evaluation.record import Record, validate_statistics
from model_store.report import charts
from model_store.report.charts import NARROW
from model_store.report.markup import Markup, cut, join, tag
from model_store.schema.signature import ArrayColumn, CategoryColumn, ClassificationOutput, InputColumn, NumberColumn
from model_store.utils.number_format import format_number, format_percent

MOST_CLASSES = 30
MOST_COLUMNS = 60
_MOST_MISTAKES = 8
_MOST_CATEGORIES = 5
_LABEL = 40  # letters of a label in a table
_JOB = 20_000  # letters of a job
_SECTIONS = ("model", "data", "split", "network", "train", "publish")


def heading(model: Model, reference: str, record: Record) -> Markup:
    """What the model is, how good it is, and the figures behind that."""
    name, _, version = reference.partition("/")
    title = tag("h1", name, " ", tag("span", f"version {version}", class_="chip")) if version else tag("h1", name)
    parts = [title]
    if model.description:
        parts.append(tag("p", model.description, class_="lead"))
    verdict, tiles = _of_values(record)
    if record.classification:
        verdict, tiles = _of_classes(record)
    parts.append(tag("p", verdict or "This version records no metrics in a form that this report knows."))
    metrics = record.classification or record.regression
    if metrics and metrics["of"] == "training rows":
        parts.append(tag("p", "Measured on the rows it learned from: expect less on new ones.", class_="warning"))
    if record.history:
        kept = record.history["best_epoch"]
        tiles.append(("epochs", format_number(record.history["epochs"]), f"weights of epoch {format_number(kept)}"))
    return tag("header", *parts, tag("div", *map(_tile, tiles), class_="tiles"))


def learned(record: Record) -> Markup | None:
    """The learning curves."""
    found = record.history
    if found is None:
        return None
    points, best = found["history"], found["best_epoch"]
    last = points[-1]
    words = f"The training loss ended at {format_number(last['loss'])}"
    validated = [p for p in points if p["validation_loss"] is not None]
    if validated:
        least = min(validated, key=lambda p: p["validation_loss"])
        lowest, epoch = format_number(least["validation_loss"]), format_number(least["epoch"])
        words += f"; the validation loss was lowest, {lowest}, in epoch {epoch}"
    words += f". The weights are those of epoch {format_number(best)}."
    if validated and (gap := _gap(points, best)):
        words += gap
    return _section("How it learned", _figure("Loss by epoch", charts.learning(points, best), words))


def errs(model: Model, record: Record) -> Markup | None:
    """The confusion matrix, the classes one by one, and the most frequent mistakes."""
    found = record.classification
    output = model.signature.output
    if found is None or not isinstance(output, ClassificationOutput):
        return None
    labels = [str(label) for label in output.labels]
    figures: list[Markup] = []
    if found["confusion"] and len(found["confusion"]) == len(labels):
        figures.append(_confusion(labels, found["confusion"]))
    tables = [_classes(output.name, found["classes"])]
    if found["mistakes"]:
        rows = [
            [cut(m["true"], _LABEL), cut(m["answered"], _LABEL), format_number(m["rows"])]
            for m in found["mistakes"][:_MOST_MISTAKES]
        ]
        wrong = round((1 - found["accuracy"]) * found["rows"])
        verb = "is" if wrong == 1 else "are"
        words = f"{format_number(wrong)} of {format_number(found['rows'])} {found['of']} {verb} wrong."
        tables.append(_figure("Most frequent mistakes", _table(["true", "answered", ">rows"], rows), words))
    beside = len(figures) == 1 and len(labels) <= NARROW
    return _section("How it errs", *figures, *([tag("div", *tables, class_="stack")] if beside else tables))


def residuals(record: Record) -> Markup | None:
    """The answers beside the truth, and the errors, target by target."""
    found = record.residuals
    if found is None:
        return None
    figures: list[Markup] = []
    for name, target in found["targets"].items():
        shown = cut(name, _LABEL)
        half, most = format_number(target["median"], 3), format_number(target["p90"], 3)
        words = f"Half of the answers are off by at most {half}, nine in ten by at most {most}."
        if len(target["points"]) < target["rows"]:
            words += f" {format_number(len(target['points']))} of {format_number(target['rows'])} rows, drawn by lot."
        figures.append(_figure(f"{shown}: answered and true", charts.scatter(name, target), words))
        direction = "much" if target["bias"] > 0 else "little"
        words = f"On average it answers {format_number(abs(target['bias']), 3)} too {direction}."
        if target["outside"]:
            outside, rows = format_number(target["outside"]), format_number(target["rows"])
            words += f" {outside} of {rows} errors, the outermost, are left out."
        figures.append(_figure(f"{shown}: errors", charts.spread(name, target), words))
    note = f"{found['left_out']} more targets are left out." if found["left_out"] else None
    return _section("How it errs", *figures, note=note)


def sure(record: Record) -> Markup | None:
    """What its probabilities are worth."""
    found = record.calibration
    if found is None:
        return None
    whose = f"“{cut(found['of'], _LABEL)}”" if found["of"] is not None else "its answer"
    words = (
        f"Each dot is a tenth of the scale: the probability of {whose}, and how often that came true, with its 95 % "
        "interval; on the dashed line the two are one. The bars count the rows. The expected calibration error is "
        f"{format_percent(found['expected_error'])}, the log loss {format_number(found['log_loss'])}."
    )
    figures = [_figure("Reliability", charts.reliability(found), words)]
    if curve := record.roc:
        words = (
            f"Rows of “{cut(curve['of'], _LABEL)}” that are found, against others taken for it, at every threshold. "
            "The area is how often one of the first has the higher probability."
        )
        figures.append(_figure("ROC curve", charts.roc(curve), words))
    return _section("What its probabilities are worth", *figures)


def relies(record: Record) -> Markup | None:
    """Permutation importance."""
    found = record.importance
    if found is None:
        return None
    of = "accuracy lost, in points"
    if found["measure"] == "log_loss":
        of = "rise of the log loss"
    elif found["measure"] == "rmse":
        targets = len((record.regression or {"targets": ()})["targets"])
        of = "rise of the RMSE" + (", in standard deviations" if targets > 1 else "")
    score = format_percent(found["score"]) if found["measure"] == "accuracy" else format_number(found["score"])
    names = {"accuracy": "an accuracy", "log_loss": "a log loss", "rmse": "an RMSE"}
    times = "once" if found["repeats"] == 1 else f"{found['repeats']} times"
    words = (
        f"What it costs to shuffle {'a patch' if found['grid'] else 'a column'} among {format_number(found['rows'])} "
        f"rows, {times}, from {names[found['measure']]} of {score}"
    )
    if found["grid"]:
        high, wide = found["patch"]
        chart = charts.patches(found, of)
        words += "; the stronger the colour, the more. Rows and columns count pixels from the top left"
        words += f", in patches of {high} × {wide}." if high * wide > 1 else "."
    else:
        chart = charts.bars(found["parts"], of, points=found["measure"] == "accuracy")
        words += "; the lines are one standard deviation." if found["repeats"] > 1 else "."
        words += " Columns that say the same share their importance: each alone can look idle."
        if found["left_out"]:
            words += f" {format_number(found['left_out'])} columns that cost less are left out."
    return _section("What it relies on", _figure(of[0].upper() + of[1:], chart, words))


def inputs(model: Model) -> Markup:
    """The columns, as the training rows had them."""
    columns = model.signature.inputs
    rows = []
    for column in columns[:MOST_COLUMNS]:
        words, drawn = _seen(column)
        rows.append([cut(column.name, _LABEL), column.kind, words, _fill(column), drawn])
    table = _table(["column", "kind", "in training", "missing", "spread"], rows, stacks=True)
    notes = []
    if any(isinstance(column, NumberColumn) for column in columns):
        notes.append(
            "Spread: from the least to the largest value, thick between the outer deciles, a stroke at the median."
        )
    if len(columns) > MOST_COLUMNS:
        notes.append(f"{format_number(len(columns) - MOST_COLUMNS)} more columns are left out.")
    return _section("What goes in", tag("div", table, class_="wide scroll"), note=" ".join(notes) or None)


def made(model: Model, digest: str | None) -> Markup:
    """Layers, data, job and digest: what it takes to make it again."""
    layers = []
    for i, (module, shapes) in enumerate(zip(model.network.modules, model.network.shapes(), strict=True)):
        sizes = " → ".join(" × ".join(map(str, shape or ())) for shape in shapes)
        count = sum(array.size for array in module.parameters())
        layers.append([str(i), type(module).__name__, sizes, format_number(count) if count else ""])
    size = sum(array.size for array in model.network.parameters())
    words = f"{format_number(size)} parameters, {model.network.dtype}."
    figures = [_figure("Layers", _table([">#", "layer", "sizes", ">parameters"], layers), words)]
    facts = [("digest", digest), *_facts(model.training)]
    pairs = [join([tag("dt", key), tag("dd", value)]) for key, value in facts if value is not None]
    figures.append(_figure("Provenance", tag("dl", *pairs)))
    if job := _job(model.training.get("job")):
        figures.append(tag("details", tag("summary", "The job"), tag("pre", job), class_="wide"))
    return _section("How it was made", *figures)


# Parts of sections ---------------------------------------------------------------------------------------------------


def _of_classes(record: Record) -> tuple[str, list[tuple[str, str, str]]]:
    found, baseline = record.classification or {}, record.baseline
    right, rows = round(found["accuracy"] * found["rows"]), found["rows"]
    low, high = wilson_interval(right, rows)
    between = f"{100 * low:.1f} to {format_percent(high)}"
    share = f"Right for {format_percent(found['accuracy'])} of {format_number(rows)} {found['of']}"
    verdict = f"{share} (95 % interval {between})"
    tiles = [("accuracy", format_percent(found["accuracy"]), between)]
    if baseline:
        answer = cut(baseline["answer"], _LABEL)
        verdict += f"; always answering “{answer}” would be right for {format_percent(baseline['accuracy'])}"
        tiles.append(("baseline", format_percent(baseline["accuracy"]), f"always “{cut(answer, 16)}”"))
    if sure := record.calibration:
        tiles.append(("log loss", format_number(sure["log_loss"], 3), "0 is certain and right"))
        tiles.append(("calibration error", format_percent(sure["expected_error"]), "expected, in 10 bins"))
    if record.roc:
        tiles.append(("ROC area", format_number(record.roc["area"], 3), "0.5 is guessing"))
    return f"{verdict}.", tiles


def _of_values(record: Record) -> tuple[str, list[tuple[str, str, str]]]:
    found = record.regression
    if found is None:
        return "", []
    words, tiles = [], []
    base = record.baseline["targets"] if record.baseline else {}
    for name, target in list(found["targets"].items())[:4]:
        sentence = f"{cut(name, _LABEL)} is off by {format_number(target['rmse'], 3)} (RMSE)"
        if name in base:
            sentence += f"; always answering the mean is off by {format_number(base[name]['rmse'], 3)}"
        words.append(f"{sentence}.")
        against = f"baseline {format_number(base[name]['rmse'], 3)}" if name in base else ""
        tiles.append((f"RMSE, {cut(name, 20)}", format_number(target["rmse"], 3), against))
        tiles.append((f"R², {cut(name, 20)}", format_number(target["r2"], 3), "1 is perfect"))
    return f"On {format_number(found['rows'])} {found['of']}: {' '.join(words)}", tiles


def _gap(points: Sequence[Mapping[str, Any]], best: int) -> str:
    """A word about overfitting, where the kept weights know the training rows much better than others."""
    kept = min(points, key=lambda p: abs(p["epoch"] - best))
    loss, other = kept["loss"], kept["validation_loss"]
    if other is None or not 0 < loss < other / 2:
        return ""
    return f" There the validation loss is {format_number(other / loss, 2)} times the training loss: it may overfit."


def _confusion(labels: list[str], counts: list[list[int]]) -> Markup:
    kept = list(range(len(labels)))
    words = "Rows are true, columns answered; colour is the share of the row."
    if len(labels) > MOST_CLASSES:
        wrong = [sum(counts[i]) + sum(row[i] for row in counts) - 2 * counts[i][i] for i in kept]
        kept = sorted(sorted(kept, key=lambda i: -wrong[i])[:MOST_CLASSES])
        words += f" The {MOST_CLASSES} of {len(labels)} classes that are confused most."
    chart = charts.confusion([labels[i] for i in kept], [[counts[i][j] for j in kept] for i in kept])
    return _figure("Confusion matrix", chart, words, wide=len(kept) > NARROW)


def _classes(name: str, classes: Mapping[str, Mapping[str, Any]]) -> Markup:
    shown, words = list(classes.items()), None
    if len(shown) > MOST_CLASSES:
        shown = sorted(shown, key=lambda item: (not item[1]["support"], item[1]["f1"]))[:MOST_CLASSES]
        words = f"The {MOST_CLASSES} of {len(classes)} classes with the lowest F1."
    rows = [
        [
            cut(label, _LABEL),
            *(format_percent(row[key] if row["support"] else None) for key in ("precision", "recall", "f1")),
            format_number(row["support"]),
        ]
        for label, row in shown
    ]
    return _figure("Class by class", _table([cut(name, _LABEL), ">precision", ">recall", ">F1", ">rows"], rows), words)


def _seen(column: InputColumn) -> list[str]:
    """What the training rows had in a column: in words, and drawn."""
    try:
        found = validate_statistics(column.statistics)
    except ValidationError:
        return ["", ""]
    if isinstance(column, CategoryColumn):
        frequencies = sorted(found["frequencies"].items(), key=lambda item: (-item[1], item[0]))
        total = sum(found["frequencies"].values()) or 1
        words = [
            f"{cut(name, 24)} {format_percent(count / total, 0)}" for name, count in frequencies[:_MOST_CATEGORIES]
        ]
        more = len(column.categories) - len(words)
        if more > 0:
            words.append(f"{format_number(more)} more" if words else f"{format_number(more)} categories")
        return [", ".join(words), ""]
    if found["min"] is None or found["max"] is None:
        return ["", ""]
    words = [f"{format_number(found['min'])} to {format_number(found['max'])}"]
    if found["mean"] is not None and found["std"] is not None:
        words.append(f"mean {format_number(found['mean'])} ± {format_number(found['std'], 3)}")
    if isinstance(column, ArrayColumn):
        words.insert(0, " × ".join(map(str, column.shape)))
    drawn = charts.deciles(found["min"], found["max"], found["deciles"]) if found["deciles"] else ""
    return [", ".join(words), drawn]


def _fill(column: InputColumn) -> str:
    fill = column.fill if isinstance(column, (NumberColumn, CategoryColumn)) else None
    if fill is None:
        return "refused"
    return f"filled with {cut(fill, 24) if isinstance(fill, str) else format_number(fill)}"


def _facts(training: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """The data's fingerprint and the split, where they are there."""
    data, split = ({} if not isinstance(part, dict) else part for part in (training.get("data"), training.get("split")))
    sha256 = data.get("sha256")
    sizes = [(key, split.get(key)) for key in ("training", "validation", "test")]
    words = ", ".join(
        f"{format_number(count)} {key}" for key, count in sizes if type(count) is int and 0 <= count <= 2**53
    )
    return [("data, SHA-256", sha256[:64] if isinstance(sha256, str) else None), ("rows", words or None)]


def _job(job: Any) -> str:
    """The job as its file would have it, keys in one order, be they from a training or from a manifest."""
    if not isinstance(job, dict):
        return ""
    lines = []
    for name in [key for key in dict.fromkeys((*_SECTIONS, *sorted(job))) if isinstance(job.get(key), dict)]:
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in sorted(job[name].items())), ""]
    return "\n".join(lines).strip()[:_JOB]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in sorted(value.items())) + " }"
            if value
            else "{}"
        )
    return json.dumps(value, ensure_ascii=False)


def _section(title: str, *parts: Markup, note: str | None = None) -> Markup:
    below = [tag("p", note, class_="note")] if note else []
    return tag("section", tag("h2", title), tag("div", *parts, class_="figures"), *below)


def _figure(title: str, content: Markup, words: str | None = None, *, wide: bool = False) -> Markup:
    caption = [tag("figcaption", words)] if words else []
    class_ = "wide" if wide else None
    return tag("figure", tag("h3", title), tag("div", content, class_="scroll"), *caption, class_=class_)


def _tile(tile: tuple[str, str, str]) -> Markup:
    name, value, words = tile
    return tag("div", tag("span", name), tag("b", value), tag("small", words))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, stacks: bool = False) -> Markup:
    """A table; headings that start with ">" are of numbers. The first column names its row. A phone shows the cells of
    a row that `stacks` one below the other, each beside its heading."""
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
