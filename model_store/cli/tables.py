"""The tables that `models` prints: inputs, layers, metrics, comparisons, alias history and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from model_store.cli.terminal import stdout
from model_store.evaluation.compare import Comparison, Difference
from model_store.evaluation.diagnostics_schema import LOSS_METRICS
from model_store.evaluation.record import TrainingRecord
from model_store.nn import Average, Module, Sequential
from model_store.registry.alias_log import AliasRevision
from model_store.registry.garbage_collection import GarbageObject
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Signature
from model_store.utils.number_format import METRIC_TITLES, format_number
from model_store.utils.printable import printable

_MAX_ROWS = 8
_MAX_MODEL_ROWS, _MAX_GROUPS = 500, 50  # of a table, and tables, of what a model file holds
_MAX_CELL_CHARACTERS, _MAX_HEADINGS = 5000, 30
_OMITTED_LAYER_SETTINGS = ("type", "input_size", "output_size", "input_shape", "filters")  # shown as sizes
_DISPLAY_NAMES = {"of": "measured on", "answer": "prediction"}  # of keys whose names are part of the artifact format


class LimitedTable(Table):
    """A table that counts the rows beyond `max_rows` in `left_out`, and does not show them."""

    max_rows: int | None = None
    left_out = 0

    def add_row(self, *cells: Any, **style: Any) -> None:
        """Add a row, or count it."""
        if self.max_rows is not None and self.row_count >= self.max_rows:
            self.left_out += 1
        else:
            super().add_row(*cells, **style)


def new_table(*headings: str, title: str | None = None, max_rows: int | None = None) -> LimitedTable:
    """Return a table without borders; a heading that starts with ">" aligns its column to the right."""
    table = LimitedTable(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    table.max_rows = max_rows
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", overflow="fold")
    return table


def print_table(table: LimitedTable) -> None:
    """Print a table, how many rows it leaves out, and an empty line; nothing if the table has no rows."""
    if table.row_count:
        stdout.print(table)
        if table.left_out:
            stdout.print(f"{table.left_out} more: see --json", style="dim")
        stdout.print()


def key_value_table(pairs: Iterable[tuple[str, Any]], title: str | None = None) -> LimitedTable:
    """Return a table of two columns, without the pairs whose value is empty."""
    table = new_table("", "", title=title, max_rows=_MAX_MODEL_ROWS)
    table.show_header = False
    for name, value in pairs:
        if value not in (None, "", [], {}):
            table.add_row(Text(printable(name), style="dim"), format_value(value))
    return table


def format_value(value: Any) -> str:
    """Return a value of a manifest for a cell: short numbers, lists cut after 12 items, objects as in a job file.

    A text longer than `_MAX_CELL_CHARACTERS` is cut.
    """
    text = _format_whole(value)
    return text if len(text) <= _MAX_CELL_CHARACTERS else f"{text[:_MAX_CELL_CHARACTERS]} ... ({len(text)} characters)"


def _format_whole(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return format_float(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value[:12])) + (f", ... ({len(value)})" if len(value) > 12 else "")
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {format_value(inner)}' for key, inner in value.items())} }}"
    return str(value)


def format_float(value: float, digits: int = 6) -> str:
    """Return a short number; a large one is written out: 1,234,567.9 instead of 1.23457e+06."""
    large = 9999.5 <= abs(value) < 1e15
    return f"{value:,.1f}".removesuffix(".0") if large else f"{value:.{digits}g}"


def format_bytes(count: int) -> str:
    """Return a size in bytes, KiB, MiB or GiB."""
    amount, units = float(count), ["KiB", "MiB", "GiB"]
    if count < 1024:
        return f"{count} bytes"
    while (amount := amount / 1024) >= 1024 and len(units) > 1:
        units.pop(0)
    return f"{amount:.1f} {units[0]}"


def describe_publication(published: Mapping[str, Any], zone: str = "") -> str:
    """Return when a version was published and by whom; without a record, the date of its file."""
    by = "by an unknown author" if published["who"] is None else f"by {published['who']}"
    return f"{_format_time(published['when'], zone)} {by if published['recorded'] else '(date of the file; no record)'}"


def publication_date(published: Mapping[str, Any]) -> str:
    """Return the date of a publication; without a record, that of its file."""
    return f"{published['when'][:10]}{'' if published['recorded'] else ' (file)'}"


def describe_copy(copy: Mapping[str, Any]) -> str:
    """Return when a version was copied, by whom and from where."""
    return f"{_format_time(copy['when'], 'UTC')} by {copy['who']}, from {copy['source']}"


def _format_time(when: str, zone: str) -> str:
    return " ".join(filter(None, [*when[:19].split("T"), zone]))


def inputs_table(signature: Signature) -> LimitedTable:
    table = new_table("column", "kind", "values", "missing", title="Inputs", max_rows=_MAX_MODEL_ROWS)
    for column in signature.inputs:
        table.add_row(column.name, column.kind, column.describe(format_value), column.describe_missing(format_value))
    return table


def describe_output(signature: Signature) -> str:
    output = signature.output
    if isinstance(output, ClassificationOutput):
        threshold = output.threshold
        decides = "" if threshold is None else f", {output.labels[1]} from a probability of {threshold:.4g}"
        return f"{output.name}: one of {format_value(output.labels)}{decides}"
    if isinstance(output, MultiLabelOutput):
        return f"{output.name}: any of {format_value(output.labels)}, from a probability of {output.threshold:g}"
    learned = "" if output.transform is None else f" (transform: {output.transform.kind})"
    return format_value(output.names) + learned


def layers_table(network: Sequential) -> LimitedTable:
    headings = (">#", "layer", ">inputs", ">outputs", ">parameters")
    table = new_table(*headings, title="Network", max_rows=_MAX_MODEL_ROWS)
    for i, layer in enumerate(layer_data(network)):
        name, count = layer["type"], layer["parameters"]
        if layer["settings"]:
            name += f" ({', '.join(f'{key} {format_value(value)}' for key, value in layer['settings'].items())})"
        shapes = (_format_shape(layer[key]) for key in ("inputs", "outputs"))
        table.add_row(str(i), name, *shapes, format_number(count) if count else "")
    return table


def layer_data(network: Sequential) -> list[dict[str, Any]]:
    """Return the type, settings, shapes and number of parameters of each layer."""
    return [
        {
            "type": type(module).__name__,
            "settings": _layer_settings(module),
            "inputs": list(before or ()),
            "outputs": list(after or ()),
            "parameters": int(sum(array.size for array in module.parameters())),
        }
        for module, (before, after) in zip(network.modules, network.shapes(), strict=True)
    ]


def _layer_settings(module: Module) -> dict[str, Any]:
    if isinstance(module, Average):
        return {"of": module.summarize()}
    return {key: value for key, value in module.config().items() if key not in _OMITTED_LAYER_SETTINGS}


def training_tables(section: Any, title: str) -> list[LimitedTable]:
    """Return tables of a section that a training job recorded: its scalars, and one for each group of like objects."""
    if not isinstance(section, Mapping):
        return []
    scalars, groups = _flatten(section, "")
    pairs = [(_DISPLAY_NAMES.get(name, name), value) for name, value in scalars]
    if len(groups) > _MAX_GROUPS:
        pairs.insert(0, (f"{len(groups) - _MAX_GROUPS} more tables", "see --json"))
    shown = groups[:_MAX_GROUPS]
    tables = [key_value_table(pairs, title), *(_group_table(name, group) for name, group in shown)]
    if not pairs and groups:
        tables[1].title = title  # that of the empty table, which is not printed
    return tables


def notes_table(notes: Sequence[str]) -> LimitedTable:
    """Return a table of the notes of a training, one below the other."""
    table = new_table("", title="Notes", max_rows=_MAX_MODEL_ROWS)
    table.show_header = False
    for note in notes:
        table.add_row(Text(printable(f"- {format_value(note)}")))
    return table


def diagnostics_tables(record: TrainingRecord) -> list[LimitedTable]:
    """Return the main calibration metrics and the permutation importance of the first columns."""
    calibration, roc, importance = record.calibration or {}, record.roc or {}, record.importance or {}
    curve = record.precision_recall or {}
    pairs = [
        ("calibration error", calibration.get("expected_error")),
        ("log loss", calibration.get("log_loss")),
        ("ROC AUC", roc.get("area")),
        ("average precision", curve.get("average")),
    ]
    found = [key_value_table(pairs, "Diagnostics")]
    if importance and not importance["grid"]:
        change = {
            "log_loss": "log loss added",
            "squared_error": "squared error / variance added",
            **{metric: f"{METRIC_TITLES[metric]} / best constant added" for metric in LOSS_METRICS},
            "accuracy": "accuracy lost",
            "rmse": "RMSE added",
        }[importance["measure"]]
        table = new_table("shuffled column", f">{change}", ">from", ">to", title="Permutation importance")
        for part in importance["parts"][:_MAX_ROWS]:
            table.add_row(part["name"], *(format_value(part[key]) for key in ("cost", "low", "high")))
        found.append(table)
    return found


def comparison_tables(comparison: Comparison, names: tuple[str, str]) -> list[LimitedTable]:
    """Return the metrics of two versions, those with the largest change first; then all else that differs."""
    metrics = new_table("", *(f">{name}" for name in names), ">change", title="Metrics")
    overall = [row for row in comparison.metrics if "," not in row.name]
    parts = sorted(comparison.metrics[len(overall) :], key=lambda row: -abs(_change(row) or 0))
    for row in [*overall, *parts[:_MAX_ROWS]]:
        change = _change(row)
        metrics.add_row(
            row.name,
            format_value(row.first),
            format_value(row.second),
            f"{'+' if change > 0 else ''}{format_float(change, 4)}" if change else "",
        )
    if len(parts) > _MAX_ROWS:
        metrics.add_row(f"{len(parts) - _MAX_ROWS} more with smaller changes")
    found = [metrics]
    sections = {"Inputs and output": comparison.signature, "Network": comparison.layers, "Job": comparison.job}
    for title, rows in sections.items():
        table = new_table("", *names, title=title, max_rows=_MAX_MODEL_ROWS)
        for row in rows:
            table.add_row(row.name, format_value(row.first), format_value(row.second))
        found.append(table)
    return found


def _change(row: Difference) -> float | None:
    both = isinstance(row.first, (int, float)) and isinstance(row.second, (int, float))
    return row.second - row.first if both else None


def history_table(revisions: Iterable[AliasRevision]) -> LimitedTable:
    table = new_table("alias", ">move", ">version", "when (UTC)", "who", "why")
    was_protected: dict[str, bool] = {}
    for revision in revisions:
        when = revision.when.strftime("%Y-%m-%d %H:%M:%S")
        ended = was_protected.get(revision.alias, False) and not revision.protected
        was_protected[revision.alias] = revision.protected
        protection = "protected" if revision.protected else "no longer protected" if ended else ""
        why = " · ".join(filter(None, ["rollback" if revision.rollback else "", protection, revision.why]))
        table.add_row(revision.alias, str(revision.number), str(revision.version), when, revision.who, why)
    return table


def garbage_table(garbage: Iterable[GarbageObject]) -> LimitedTable:
    table = new_table("object", "reason", ">size", "since (UTC)")
    for item in garbage:
        table.add_row(item.key, item.reason, format_bytes(item.size), item.since.strftime("%Y-%m-%d %H:%M:%S"))
    return table


def predictions_table(predictions: Sequence[Any], files: Sequence[str] | None = None) -> LimitedTable:
    """Return a table with one line for each row: the label or labels and the probabilities, or the values.

    A line begins with the number of its row, or with the name of its file.
    """
    first = predictions[0] if predictions else None
    begins = [str(i) for i in range(len(predictions))] if files is None else [printable(file) for file in files]
    begin = ">row" if files is None else "file"
    if isinstance(first, Mapping) and "probabilities" in first:
        heading = "labels" if "labels" in first else "label"
        table = new_table(begin, heading, *(f">{label}" for label in first["probabilities"]))
        for i, prediction in enumerate(predictions):
            probabilities = (f"{p:.4f}" for p in prediction["probabilities"].values())
            answer = ", ".join(prediction["labels"]) or "-" if "labels" in prediction else str(prediction["label"])
            table.add_row(begins[i], answer, *probabilities)
        return table
    names = list(first) if isinstance(first, Mapping) else ["prediction"]
    table = new_table(begin, *(f">{name}" for name in names))
    for i, prediction in enumerate(predictions):
        values = prediction.values() if isinstance(prediction, Mapping) else [prediction]
        table.add_row(
            begins[i], *(format_value(value).replace(",", "") for value in values)
        )  # so programs can parse it
    return table


def _format_shape(shape: Sequence[int] | None) -> str:
    return " × ".join(map(str, shape or ()))


def _flatten(
    section: Mapping[str, Any], location: str
) -> tuple[list[tuple[str, Any]], list[tuple[str, Mapping[str, Any]]]]:
    """Return leaves by dotted key, and groups by dotted key: a group is an object of objects with the same keys."""
    scalars: list[tuple[str, Any]] = []
    groups: list[tuple[str, Mapping[str, Any]]] = []
    for key, value in section.items():
        name = f"{location}{key}"
        if not isinstance(value, Mapping):
            nested = isinstance(value, list) and any(isinstance(part, (list, dict)) for part in value)
            if not nested or name == "network.layers":
                scalars.append((name, value))
        elif value and all(map(_is_row, value.values())) and _have_same_keys(value):
            groups.append((name, value))
        else:
            below = _flatten(value, f"{name}.")
            scalars += below[0]
            groups += below[1]
    return scalars, groups


def _is_row(part: Any) -> bool:
    """Return whether a part of a group is a row of its table: an object of values, of which none is an object."""
    return isinstance(part, Mapping) and bool(part) and not any(isinstance(value, Mapping) for value in part.values())


def _have_same_keys(group: Mapping[str, Mapping[str, Any]]) -> bool:
    first, *others = (set(part) for part in group.values())
    return all(keys == first for keys in others)


def _group_table(name: str, group: Mapping[str, Mapping[str, Any]]) -> LimitedTable:
    headings = list(next(iter(group.values())))[:_MAX_HEADINGS]
    table = new_table(name, *(f">{heading}" for heading in headings), max_rows=_MAX_MODEL_ROWS)
    for key, part in group.items():
        table.add_row(key, *(format_value(part[heading]) for heading in headings))
    return table
