"""The model card of a version: what is known about a model for people who decide on its use.

Its sections are those of Mitchell et al. 2019, "Model cards for model reporting". They hold what the artifact, its
training record and its publication say; `TO_WRITE` are the questions that only a person can answer, each at the
location of a None. card_markdown.py writes it for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.artifact.model import Model
from model_store.evaluation.confidence import wilson_interval
from model_store.evaluation.error_interval import error_interval
from model_store.evaluation.group_metrics import parse_slice_metrics
from model_store.evaluation.record import OVERALL_LABEL_METRICS, TrainingRecord
from model_store.nn import Average
from model_store.schema.signature import Signature
from model_store.utils.values import is_finite_number, limit_nesting

FORM = "forward-pass model card 1"
_MAX_COLUMNS = 1000
_MAX_METRICS = 100  # of a record of another form
_MAX_LEVELS = 5  # of lists and objects in recorded data

TO_WRITE = {  # what the record cannot know, by location
    "model_details.license": "Under which licence may the model be used?",
    "model_details.contact": "Who answers questions about the model, and where?",
    "model_details.citation": "Papers or other sources with more information, and how to cite the model.",
    "intended_use.primary_uses": "For which decisions was the model made?",
    "intended_use.primary_users": "Who should use it?",
    "intended_use.out_of_scope": "Which uses are out of scope, though they may look alike?",
    "factors.relevant_factors": "Which groups of people or things, instruments and surroundings may change how well "
    "it works? Which of them are not among the columns?",
    "metrics.choice": "Why these metrics? What does each kind of error cost?",
    "evaluation_data.source": "Where do the evaluation rows come from, and are they like the rows of its use?",
    "training_data.source": "Where do the training rows come from? When and how were they collected, and who agreed?",
    "ethical_considerations.sensitive_data": "Do the rows say anything sensitive about people?",
    "ethical_considerations.harms": "Whom may its use harm, and what was done against it?",
    "caveats_and_recommendations.recommendations": "What should a user check or avoid? How often is it trained again?",
}


def make_card(model: Model, name: str, number: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of a version as JSON data; what is unknown is left out, or None if a person must write it.

    facts: of the store: "digest", "published" (see `Publication.as_dict`), "aliases", "signed_by" and "bytes".
    """
    record, groups = TrainingRecord.parse(model.training), parse_slice_metrics(model.training)
    sections = {
        "model_details": _details(model, name, number, facts),
        "intended_use": _use(model.signature),
        "factors": {"columns_with_metrics": [one["column"] for one in groups]},
        "metrics": _metrics(model, record),
        "evaluation_data": _evaluation_data(model.training, record),
        "training_data": _training_data(model),
        "quantitative_analyses": _analyses(record, groups),
        "ethical_considerations": {},
        "caveats_and_recommendations": {"notes": record.notes, "known": _caveats(model, record, groups)},
    }
    for location in TO_WRITE:
        section, _, key = location.partition(".")
        sections[section][key] = None
    return {"form": FORM, "model": f"{name}/{number}", **sections, "to_write": dict(TO_WRITE)}


def _details(model: Model, name: str, number: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    network = model.network
    layers = [
        f"{type(module).__name__} of {module.summarize()}" if isinstance(module, Average) else type(module).__name__
        for module in network.modules
    ]
    found = {
        "name": name,
        "version": number,
        "description": model.description,
        **facts,
        "task": model.signature.output.kind,
        "layers": layers,
        "parameters": int(sum(array.size for array in network.parameters())),
        "dtype": str(network.dtype),
    }
    imported = _section(model.training, "import")
    return found | ({"import": imported} if imported else {})


def _use(signature: Signature) -> dict[str, Any]:
    columns = [column.public_details() for column in signature.inputs[:_MAX_COLUMNS]]
    left_out = len(signature.inputs) - len(columns)
    return {
        "inputs": columns,
        **({"inputs_left_out": left_out} if left_out else {}),
        "output": signature.output.public_details(),
    }


def _metrics(model: Model, record: TrainingRecord) -> dict[str, Any]:
    """Return the main metrics with their 95 % intervals, and what they compare to."""
    found = record.classification or record.multi_label or record.regression
    if found is None:  # such as that of a model of another framework, published with a few numbers
        numbers = _numbers(_section(model.training, "metrics"))
        return {"values": numbers[:_MAX_METRICS]} if numbers else {}
    values: list[dict[str, Any]] = []
    if record.classification or record.multi_label:
        key = "accuracy" if record.classification else "exact_match"
        values.append({"metric": key, "value": found[key], **_share_interval(found[key], found["rows"])})
    if record.multi_label:
        values += [{"metric": key, "value": found[key]} for key in OVERALL_LABEL_METRICS if key != "exact_match"]
    for target, metrics in found["targets"].items() if record.regression else ():
        for key, value in metrics.items():
            if value is not None:
                limits = error_interval(model.training, target, key) if key not in ("r2", "d2", "coverage") else None
                interval = {} if limits is None else {"low": limits[0], "high": limits[1]}
                values.append({"metric": key, "target": target, "value": value, **interval})
    if record.calibration and not record.multi_label:
        values.append({"metric": "log_loss", "value": record.calibration["log_loss"]})
    if record.calibration:
        values.append({"metric": "calibration_error", "value": record.calibration["expected_error"]})
    if record.roc:
        values.append({"metric": "roc_auc", "value": record.roc["area"]})
    parts = {
        "baseline": record.baseline,
        "linear_model": record.linear,
        "threshold": model.signature.output.public_details().get("threshold"),
        "threshold_choice": record.threshold,
        "temperature": record.temperature,
        "coverage": record.coverage,
    }
    measured = {"measured_on": found["of"], "rows": found["rows"], "weight": found["weight"], "values": values}
    return measured | {key: part for key, part in parts.items() if part is not None}


def _numbers(metrics: Mapping[str, Any], before: str = "") -> list[dict[str, Any]]:
    """Return the finite numbers of recorded metrics, by their path with dots."""
    found = []
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{before}{key}.")
        elif is_finite_number(value):
            found.append({"metric": f"{before}{key}", "value": value})
    return found


def _share_interval(share: float, rows: int) -> dict[str, float]:
    if not rows:
        return {}
    low, high = wilson_interval(share * rows, rows)
    return {"low": low, "high": high}


def _evaluation_data(training: Mapping[str, Any], record: TrainingRecord) -> dict[str, Any]:
    found = record.classification or record.multi_label or record.regression
    rows = {} if found is None else {"rows": found["rows"], "of": found["of"]}
    settings = _section(training, "job", "split")
    return rows | ({"split": settings} if settings else {})


def _training_data(model: Model) -> dict[str, Any]:
    """Return the data, the split and the statistics of each column, which drift is measured against."""
    training = model.training
    job = _section(training, "job", "data")
    parts = {
        "file": _section(training, "data"),
        "rows": _section(training, "split"),
        "job": {key: job[key] for key in ("path", "target", "columns", "weight") if key in job},
    }
    statistics = {
        column.name: dict(column.statistics) for column in model.signature.inputs[:_MAX_COLUMNS] if column.statistics
    }
    return {**{key: part for key, part in parts.items() if part}, "drift_baseline": statistics}


def _analyses(record: TrainingRecord, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics by class and by group, and the weak spots."""
    found: dict[str, Any] = {}
    by_label = record.classification or record.multi_label
    if by_label is not None:
        rows = by_label["classes" if record.classification else "labels"]
        found["by_label"] = {
            label: {**metrics, "recall_interval": _share_interval(metrics["recall"], metrics["support"])}
            for label, metrics in rows.items()
        }
    if groups:
        found["by_group"] = groups
    if record.weak_spots is not None:
        found["weak_spots"] = record.weak_spots
    return found


def _caveats(model: Model, record: TrainingRecord, groups: list[dict[str, Any]]) -> list[str]:
    """Return what the record says against trusting the metrics."""
    found = record.classification or record.multi_label or record.regression
    caveats = []
    if found is None:
        caveats.append("The record says neither on which rows the model was measured, nor how sure its metrics are.")
    elif found["of"] == "training rows":
        caveats.append("The metrics are of the training rows: expect worse ones on new rows.")
    if found is not None and record.weak_spots is None:
        caveats.append(
            "Weak spots were not looked for: there are no held-out rows, too few, or no columns with groups."
        )
    if found is not None and not groups:
        caveats.append("The record has no metrics by group.")
    if not any(column.statistics for column in model.signature.inputs):
        caveats.append("No statistics of the training rows are known: drift and values out of range are not noticed.")
    if model.golden is None:
        caveats.append("The artifact has no golden rows: a store cannot check that the answers are those of training.")
    return caveats


def _section(training: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """Return an object of the record, untrusted data, without deep nesting; empty if there is none."""
    found: Any = training
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return limit_nesting(found, _MAX_LEVELS) if isinstance(found, dict) else {}
