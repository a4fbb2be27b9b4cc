"""What `models` shows on a terminal: tables of models, of one model's parts, of moves and of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from model_store.cli.terminal import stdout
from model_store.evaluation.compare import Comparison, Row
from model_store.evaluation.record import Record
from model_store.nn import Sequential
from model_store.registry.alias_log import AliasRevision
from model_store.registry.garbage_collection import Leftover
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    Input,
    NumberColumn,
    Signature,
)
from model_store.utils.number_format import format_number


def table(*headings: str, title: str | None = None) -> Table:
    """A plain table; headings that start with ">" are of numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        made.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", overflow="fold")
    return made


def show(made: Table) -> None:
    if made.row_count:
        stdout.print(made)
        stdout.print()


def facts(pairs: Iterable[tuple[str, Any]], title: str | None = None) -> Table:
    """Two columns, what and how much; what has no value is left out."""
    made = table("", "", title=title)
    made.show_header = False
    for name, value in pairs:
        if value not in (None, "", [], {}):
            made.add_row(Text(name, style="dim"), text(value))
    return made


def text(value: Any) -> str:
    """A value of a manifest in a cell: short numbers, lists cut."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value[:12])) + (f", ... ({len(value)})" if len(value) > 12 else "")
    return str(value)


def figure(value: float, digits: int = 6) -> str:
    """A short number, written out where it is large: 1,234,567.9 and not 1.23457e+06."""
    large = 9999.5 <= abs(value) < 1e15
    return f"{value:,.1f}".removesuffix(".0") if large else f"{value:.{digits}g}"


def size(count: int) -> str:
    amount, units = float(count), ["KiB", "MiB", "GiB"]
    if count < 1024:
        return f"{count} bytes"
    while (amount := amount / 1024) >= 1024 and len(units) > 1:
        units.pop(0)
    return f"{amount:.1f} {units[0]}"


def inputs(signature: Signature) -> Table:
    made = table("column", "kind", "values", "missing", title="Inputs")
    for column in signature.inputs:
        made.add_row(column.name, column.kind, _values(column), _missing(column))
    return made


def output(signature: Signature) -> str:
    answer = signature.output
    if isinstance(answer, ClassificationOutput):
        return f"{answer.name}: one of {text(answer.labels)}"
    return text(answer.names)


def layers(network: Sequential) -> Table:
    made = table(">#", "layer", ">inputs", ">outputs", ">parameters", title="Network")
    for i, (module, (before, after)) in enumerate(zip(network.modules, network.shapes(), strict=True)):
        settings = {key: value for key, value in module.config().items() if key not in _LAYER_COLUMNS}
        name = type(module).__name__
        if settings:
            name += f" ({', '.join(f'{key} {text(value)}' for key, value in settings.items())})"
        count = sum(array.size for array in module.parameters())
        made.add_row(str(i), name, _shape(before), _shape(after), format_number(count) if count else "")
    return made


def record(found: Any, title: str) -> list[Table]:
    """Whatever a training job recorded: its scalars as facts, and a table for each group of like objects in it."""
    if not isinstance(found, Mapping):
        return []
    scalars, groups = _split(found, "")
    return [facts(scalars, title), *(_group(name, group) for name, group in groups)]


def diagnostics(found: Record) -> list[Table]:
    """How sure a model may be of itself, and what it relies on, in short."""
    calibration, roc, importance = found.calibration or {}, found.roc or {}, found.importance or {}
    pairs = [("calibration error", calibration.get("expected_error")), ("log loss", calibration.get("log_loss"))]
    made = [facts([*pairs, ("ROC area", roc.get("area"))], "Diagnostics")]
    if importance and not importance["grid"]:
        costs = table("shuffled column", f">cost in {importance['measure']}", ">deviation", title="Importance")
        for part in importance["parts"][:_MOST_PARTS]:
            costs.add_row(part["name"], text(part["cost"]), text(part["deviation"]))
        made.append(costs)
    return made


def comparison(found: Comparison, names: tuple[str, str]) -> list[Table]:
    """Metrics side by side, those that moved most first; then whatever else differs."""
    metrics = table("", *(f">{name}" for name in names), ">change", title="Metrics")
    overall = [row for row in found.metrics if "," not in row.what]
    parts = sorted(found.metrics[len(overall) :], key=lambda row: -abs(_change(row) or 0))
    for row in [*overall, *parts[:_MOST_PARTS]]:
        change = _change(row)
        metrics.add_row(
            row.what,
            text(row.first),
            text(row.second),
            f"{'+' if change > 0 else ''}{figure(change, 4)}" if change else "",
        )
    if len(parts) > _MOST_PARTS:
        metrics.add_row(f"{len(parts) - _MOST_PARTS} more that moved less")
    made = [metrics]
    for title, rows in {"Rows and answers": found.signature, "Network": found.layers, "Job": found.job}.items():
        differing = table("", *names, title=title)
        for row in rows:
            differing.add_row(row.what, text(row.first), text(row.second))
        made.append(differing)
    return made


def _change(row: Row) -> float | None:
    both = isinstance(row.first, (int, float)) and isinstance(row.second, (int, float))
    return row.second - row.first if both else None


def history(moves: Iterable[AliasRevision]) -> Table:
    made = table("alias", ">move", ">version", "when (UTC)", "who", "why")
    guarded: dict[str, bool] = {}
    for move in moves:
        when = move.when.strftime("%Y-%m-%d %H:%M:%S")
        ended = guarded.get(move.alias, False) and not move.protected
        guarded[move.alias] = move.protected
        protection = "protected" if move.protected else "no longer protected" if ended else ""
        marks = ["rollback" if move.rollback else "", protection]
        why = " · ".join(filter(None, [*marks, move.why]))
        made.add_row(move.alias, str(move.number), str(move.version), when, move.who, why)
    return made


def leftovers(found: Iterable[Leftover]) -> Table:
    made = table("object", "what", ">size", "since (UTC)")
    for leftover in found:
        made.add_row(leftover.key, leftover.what, size(leftover.size), leftover.since.strftime("%Y-%m-%d %H:%M:%S"))
    return made


def predictions(answers: Sequence[Any]) -> Table:
    """A line for each row: the label and its probabilities, or the values."""
    first = answers[0] if answers else None
    if isinstance(first, Mapping) and "probabilities" in first:
        made = table(">row", "label", *(f">{label}" for label in first["probabilities"]))
        for i, answer in enumerate(answers):
            made.add_row(str(i), str(answer["label"]), *(f"{p:.4f}" for p in answer["probabilities"].values()))
        return made
    names = list(first) if isinstance(first, Mapping) else ["prediction"]
    made = table(">row", *(f">{name}" for name in names))
    for i, answer in enumerate(answers):
        values = answer.values() if isinstance(answer, Mapping) else [answer]
        made.add_row(str(i), *(text(value).replace(",", "") for value in values))  # as other programs read numbers
    return made


_MOST_PARTS = 8
_LAYER_COLUMNS = ("type", "input_size", "output_size", "input_shape", "filters")


def _shape(shape: Sequence[int] | None) -> str:
    return " × ".join(map(str, shape or ()))


def _values(column: Input) -> str:
    if isinstance(column, CategoryColumn):
        return text(column.categories) + (", others" if column.unknown == "bucket" else "")
    low, high = column.statistics.get("min"), column.statistics.get("max")
    seen = "" if low is None or high is None else f"{text(low)} to {text(high)}"
    if isinstance(column, ArrayColumn):
        return _shape(column.shape) + (f", {seen}" if seen else "")
    return seen


def _missing(column: Input) -> str:
    if isinstance(column, (NumberColumn, CategoryColumn)) and column.fill is not None:
        return f"filled with {text(column.fill)}"
    return "refused"


def _split(
    found: Mapping[str, Any], location: str
) -> tuple[list[tuple[str, Any]], list[tuple[str, Mapping[str, Any]]]]:
    """Leaves by their dotted place, and the groups among the branches: objects of objects with the same keys."""
    scalars: list[tuple[str, Any]] = []
    groups: list[tuple[str, Mapping[str, Any]]] = []
    for key, value in found.items():
        name = f"{location}{key}"
        if not isinstance(value, Mapping):
            if not (isinstance(value, list) and any(isinstance(part, (list, dict)) for part in value)):
                scalars.append((name, value))
        elif value and all(isinstance(part, Mapping) and part for part in value.values()) and _alike(value):
            groups.append((name, value))
        else:
            below = _split(value, f"{name}.")
            scalars += below[0]
            groups += below[1]
    return scalars, groups


def _alike(group: Mapping[str, Mapping[str, Any]]) -> bool:
    first, *others = (set(part) for part in group.values())
    return all(keys == first for keys in others)


def _group(name: str, group: Mapping[str, Mapping[str, Any]]) -> Table:
    headings = next(iter(group.values()))
    made = table(name, *(f">{heading}" for heading in headings))
    for key, part in group.items():
        made.add_row(key, *(text(part[heading]) for heading in headings))
    return made
