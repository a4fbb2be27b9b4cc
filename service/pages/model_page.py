"""The page of a model: what its form knows of each column, and the comparison of two of its versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError

from model_store.artifact.model import Model
from model_store.errors import ArtifactError
from model_store.evaluation.compare import Comparison, Difference, compare
from model_store.evaluation.record import TrainingRecord, validate_statistics
from model_store.report import charts
from model_store.report.markup import Markup
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column
from model_store.schema.columns.image_decoding import is_image_shape
from model_store.schema.signature import RegressionOutput, Signature
from model_store.utils.number_format import METRIC_TITLES, format_number
from service.pages.headline import headline
from service.protocols import model_metadata
from service.registry.loaded_version import LoadedVersion
from service.registry.snapshot import ModelEntry

MAX_FIELDS = 60  # of a form; the other columns are in the row as JSON
MAX_EXPORT_BYTES = 4 << 20  # of the weights and texts of a model that a browser computes
_MAX_OPTIONS = 200  # of a list of categories
_MAX_CLASSES = 30  # of a confusion matrix
_MAX_DIFFERENCES = 60  # of each kind
_SHOWN_SETTINGS = ("network.", "train.", "split.")  # the others may name files and databases


def describe(entry: ModelEntry, served: LoadedVersion) -> dict[str, Any]:
    """Return what the template shows, with `form`: the data of the page's script."""
    details = model_metadata.model_details(entry, served)
    columns = served.model.signature.inputs
    return {
        "model": details,
        "metrics": _metrics(served.model.training),
        "form": {
            "name": served.name,
            "version": served.number,
            "versions": list(entry.versions),
            "columns": [_field(column) for column in columns[:MAX_FIELDS]],
            "columnCount": len(columns),
            "output": details["output"],
            "maxRows": served.max_rows,
            "example": served.example.instance if served.example else None,
            "exportable": is_exportable(served.model),
            "levels": _levels(served.model),
            "explains": served.row_limit.explained_rows > 0 and served.model.baseline is not None,
        },
    }


def _levels(model: Model) -> dict[str, Any] | None:
    """Return the key by which a request asks for intervals or sets, and its largest level; None for none."""
    if model.conformal is None:
        return None
    key = "interval" if isinstance(model.signature.output, RegressionOutput) else "set"
    return {"key": key, "max": model.conformal.max_level}


def is_exportable(model: Model) -> bool:
    """Return True if a browser may compute the model: its weights, categories and labels are few enough to be sent."""
    weights = sum(array.nbytes for array in model.network.arrays().values())
    output = model.signature.output
    texts = [output.names if isinstance(output, RegressionOutput) else output.labels]
    texts += [column.categories for column in model.signature.inputs if isinstance(column, CategoryColumn)]
    return weights + sum(len(str(text)) for group in texts for text in group) <= MAX_EXPORT_BYTES


def _metrics(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the metrics that a reader looks for first, as names and texts: first those that `/` shows."""
    record, shown = TrainingRecord.parse(training), headline(training)
    found: list[tuple[str, str]] = []
    if shown:
        interval = f" (95 % interval {shown.interval})" if shown.interval else ""
        found.append((f"{shown.title}{interval}", shown.text))
    if record.calibration is not None:
        found.append(("log loss", format_number(record.calibration["log_loss"], 3)))
    if record.regression is not None:
        targets = list(record.regression["targets"].items())[:3]
        found += [
            (f"{METRIC_TITLES['r2']} of {name}", format_number(target["r2"], 3))
            for name, target in targets
            if "r2" in target
        ]
    if shown:
        rows, _, of = shown.measured_on.partition(" ")
        found.append((of, rows))
    return found


def _field(column: Column) -> dict[str, Any]:
    """Return what a form needs to ask for a value, and to see that it is outside the training data."""
    field = column.form_field()
    found: dict[str, Any] = {
        "name": column.name,
        "kind": column.kind,
        "widget": field.widget,
        "required": column.fill is None,
        "fill": field.fill,
        "hint": " ".join(filter(None, [field.text, field.note])),
    }
    if column.kind == "array":
        found["shape"] = list(column.shape)
    if isinstance(column, ArrayColumn) and is_image_shape(column.shape):
        found["crop"] = column.image_crop
        if len(column.shape) == 3:
            found["widget"] = "picture"
    if field.widget == "select":
        found["options"] = list(field.options)
    elif field.chips:
        found["options"] = list(field.chips[:_MAX_OPTIONS])
    return found | _training_values(column)


def _training_values(column: Column) -> dict[str, Any]:
    """Return the range of the training rows, their deciles, and bins `[from, to, rows]` between the deciles."""
    try:
        statistics = validate_statistics(column.statistics)
    except ValidationError:
        return {}
    known = column.training_range()
    found: dict[str, Any] = {key: known[key] for key in ("min", "max", "mean") if key in known}
    deciles = statistics["deciles"]
    if column.kind != "number" or not deciles:
        return found
    ends = sorted(set(deciles))
    counts = column.statistics.get("counts")
    if not isinstance(counts, list) or len(counts) != len(ends) or not all(type(n) is int and n >= 0 for n in counts):
        counts = [0, *(deciles.count(end) for end in ends[1:])]
    found["deciles"] = deciles
    found["bins"] = [[low, high, rows] for low, high, rows in zip(ends, ends[1:], counts[1:], strict=False)]
    if found["bins"]:
        found["bins"][0][2] += counts[0]
    found["integral"] = all(float(value).is_integer() for value in deciles)
    return found


# The comparison of two versions ---------------------------------------------------------------------------------------


def describe_comparison(
    first: tuple[str, Mapping[str, Any]],
    second: tuple[str, Mapping[str, Any]],
    signatures: tuple[Signature, Signature] | None = None,
) -> dict[str, Any]:
    """Return what the comparison shows of two versions, each a name and a manifest. ArtifactError if one is invalid.

    `signatures`: those of both, if they are in memory.
    """
    found = compare(first, second, signatures)
    return {
        "summary": found.verdict.summary,
        "same_rows": found.same_rows,
        "sides": [_side(*first), _side(*second)],
        "metrics": _rows(found.metrics),
        "others": [(title, _rows(differences)) for title, differences in _differences(found) if differences],
    }


def _differences(found: Comparison) -> list[tuple[str, list[Difference]]]:
    settings = [one for one in found.job if one.name.startswith(_SHOWN_SETTINGS)]
    return [("Inputs and output", found.signature), ("Layers", found.layers), ("Settings of the training", settings)]


def _rows(differences: list[Difference]) -> list[tuple[str, str, str]]:
    return [(one.name, _shown(one.first), _shown(one.second)) for one in differences[:_MAX_DIFFERENCES]]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if type(value) in (int, float):
        return format_number(value)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 300 else f"{text[:300]} …"


def _side(name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the charts of one version: the loss by epoch, and the confusion matrix."""
    training = manifest["training"]
    if not isinstance(training, dict):
        raise ArtifactError(f"{name}: training: expected an object")
    record = TrainingRecord.parse(training)
    curves = charts.learning_curves(record.history["history"], record.history["best_epoch"]) if record.history else None
    return {"name": name, "curves": curves, "confusion": _confusion(record)}


def _confusion(record: TrainingRecord) -> Markup | None:
    metrics = record.classification
    if metrics is None or not metrics["confusion"]:
        return None
    labels = list(metrics["classes"])
    if len(labels) != len(metrics["confusion"]) or len(labels) > _MAX_CLASSES:
        return None
    return charts.confusion_matrix(labels, metrics["confusion"])
