"""The form of a report: values for the columns, and the prediction, which the page computes by itself.

The page holds the model as the export to JavaScript writes it, without golden rows.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

from model_store.artifact.model import Model
from model_store.export.base import ExportSource
from model_store.export.javascript.target import TARGET, literal
from model_store.report.layout import section
from model_store.report.markup import Markup, tag
from model_store.schema.columns import ArrayColumn
from model_store.utils.values import integral_floats_to_ints, is_name

_FORM = (Path(__file__).parent / "try_out.js").read_text(encoding="utf-8")
_MAX_WEIGHT_BYTES = 1 << 20  # of a model that the page holds
_MAX_FIELDS = 100
_NOTE = "This page computes the prediction by itself: nothing is sent, and it works without a network."


def script(model: Model, reference: str, digest: str | None) -> Markup | None:
    """Return the program of the form, None for a model that the page does not hold: it is large, or takes images."""
    columns = model.signature.inputs
    size = sum(array.nbytes for array in model.network.arrays().values())
    if size > _MAX_WEIGHT_BYTES or len(columns) > _MAX_FIELDS or isinstance(columns[0], ArrayColumn):
        return None
    name, _, version = reference.partition("/")
    number = int(version) if version.isdecimal() else 0
    source = ExportSource(name if is_name(name) else "model", number, digest or "", replace(model, golden=None))
    (module,) = TARGET.files(source).values()
    typical = integral_floats_to_ints([column.typical_value() for column in columns])
    return Markup(f"{module.decode()}\nconst TYPICAL = JSON.parse({literal(typical)});\n{_FORM}")


def policy(program: Markup) -> str:
    """Return the source of the Content-Security-Policy that allows this program and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()}'"


def try_out(program: Markup) -> Markup:
    """Return the section with the form, and its program."""
    place = tag("div", tag("p", "The form needs JavaScript."), id="try-out", class_="wide")
    return section("Try it", place, tag("script", program, type="module"), note=_NOTE)
