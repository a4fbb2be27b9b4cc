"""The report of a version: one HTML file without external resources, a pure function of the model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from model_store.artifact.model import Model
from model_store.evaluation.record import TrainingRecord
from model_store.report import diagnostic_sections, search_sections, sections, summary
from model_store.report.markup import Markup, join, tag

_STYLE = Markup((Path(__file__).parent / "style.css").read_text(encoding="utf-8"))
# Nothing is loaded or executed, whatever text a label contains.
_CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"


def render(model: Model, reference: str, digest: str | None = None) -> str:
    """Return the report of `model`, published as `reference` ("penguins/3"). It depends on nothing else."""
    record = TrainingRecord.parse(model.training)
    parts = [
        summary.header(model, reference, record),
        summary.notes(record),
        sections.learning_curves(record),
        sections.classification_errors(model, record),
        sections.label_errors(record),
        sections.residuals(record),
        diagnostic_sections.thresholds(record),
        diagnostic_sections.calibration(record),
        diagnostic_sections.permutation_importance(record),
        diagnostic_sections.error_slices(model, record),
        diagnostic_sections.worst_rows(record),
        search_sections.search(record),
        sections.inputs(model),
        sections.provenance(model, digest or model.digest),
    ]
    return _document(reference, [part for part in parts if part is not None])


def _document(title: str, parts: Iterable[Markup]) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_CONTENT_SECURITY_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title}: report"),
        tag("style", _STYLE),
    )
    page = tag("html", head, tag("body", tag("main", join(parts))), lang="en")
    return f"<!doctype html>\n{page}\n"
