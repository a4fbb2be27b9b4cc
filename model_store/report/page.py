"""The report of a version: one HTML file without external resources, a pure function of the model."""

from __future__ import annotations

from pathlib import Path

from model_store.artifact.model import Model
from model_store.evaluation.record import TrainingRecord
from model_store.report import diagnostic_sections, search_sections, sections, summary, try_out
from model_store.report.markup import Markup, join, tag

# The second file has the charts, which the service's pages show too.
_STYLE = Markup(
    "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("style.css", "charts.css"))
)
# Nothing is loaded, and nothing but the form's program is executed, whatever text a label contains.
_CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"


def render(model: Model, reference: str, digest: str | None = None) -> str:
    """Return the report of `model`, published as `reference` ("penguins/3"). It depends on nothing else."""
    program = try_out.script(model, reference, digest or model.digest)
    form = None if program is None else try_out.try_out(program)
    policy = _CONTENT_SECURITY_POLICY + ("" if program is None else f"; script-src {try_out.policy(program)}")
    return _document(reference, policy, render_sections(model, reference, digest, form))


def render_sections(model: Model, reference: str, digest: str | None = None, form: Markup | None = None) -> Markup:
    """Return what a report shows, and a page of the service too, with the `form` that tries the model."""
    record = TrainingRecord.parse(model.training)
    parts = [
        summary.header(model, reference, record),
        summary.notes(record),
        form,
        sections.learning_curves(record),
        sections.classification_errors(model, record),
        sections.label_errors(record),
        sections.residuals(record),
        diagnostic_sections.thresholds(model, record),
        diagnostic_sections.calibration(record),
        diagnostic_sections.coverage(record),
        diagnostic_sections.permutation_importance(record),
        diagnostic_sections.weak_spots(model, record),
        diagnostic_sections.error_slices(model, record),
        diagnostic_sections.worst_rows(record),
        search_sections.search(record),
        sections.inputs(model),
        sections.provenance(model, digest or model.digest),
    ]
    return join(part for part in parts if part is not None)


def _document(title: str, policy: str, parts: Markup) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title}: report"),
        tag("style", _STYLE),
    )
    page = tag("html", head, tag("body", tag("main", parts)), lang="en")
    return f"<!doctype html>\n{page}\n"
