"""What a request wants explained, in every protocol: an object in a JSON body, or parameters of a text each.

{"instances": [...], "explain": {"label": "Gentoo", "baseline": row}}
?explain=true&explain_label=Gentoo
{"parameters": {"explain": true, "explain_label": "Gentoo"}, "inputs": [...]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.artifact.explanation import Asked, read_asked
from model_store.errors import Fault, InputError
from model_store.utils.values import describe_value
from service.registry.loaded_version import LoadedVersion

_NAMES = ("label", "target")
EXPLAIN_PARAMETERS = ("explain", *(f"explain_{name}" for name in _NAMES))


def read_explain(value: Any, served: LoadedVersion, location: str = "explain") -> Asked | None:
    """Return what a body's key `explain` asks for, None for false. InputError with all faults, or RowLimitError."""
    if value is None or value is False:
        return None
    limit = served.row_limit
    if not limit.explained_rows:
        problem = f"expected a model whose answers are explained here, found {served.name}: {limit.not_explained}"
        raise InputError([Fault(location, problem, "leave it out")])
    if isinstance(value, dict) and (row := value.get("baseline")) is not None:
        rows = [row]
        limit.check_rows(f"{location}.baseline", rows)  # replaces an image file by what was read of it
        value = value | {"baseline": rows[0]}
    return read_asked(value, served.model, location)


def read_explain_parameters(parameters: Any, served: LoadedVersion, within: str = "") -> Asked | None:
    """Return what the parameters `explain`, and `explain_label` or `explain_target`, ask for.

    `within` begins the locations of an InputError. A label or target alone is explained, too.
    """
    if not isinstance(parameters, Mapping) or not any(name in parameters for name in EXPLAIN_PARAMETERS):
        return None
    if not isinstance(wanted := parameters.get("explain", True), bool):
        problem = f"expected true or false, found {describe_value(wanted)}"
        raise InputError([Fault(f"{within}explain", problem, "send true or false")])
    named = {name: parameters[f"explain_{name}"] for name in _NAMES if f"explain_{name}" in parameters}
    try:
        return read_explain(named or True, served) if wanted else None
    except InputError as error:
        raise InputError([_located(fault, within) for fault in error.faults], error.total) from error


def _located(fault: Fault, within: str) -> Fault:
    location, fix = f"{within}{fault.location.replace('.', '_')}", fault.fix
    if fault.location == "explain" and "baseline" in fix:
        fix = "train it again, or send JSON with a row to compare with to /models/<name>/predict"
    return Fault(location, fault.problem, fix)
