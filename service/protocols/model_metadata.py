"""Metadata of models and versions as plain data, for /models, the OpenAPI document and the reference page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from model_store.artifact.conformal import Conformal
from model_store.artifact.model import MAX_EXAMPLE_CHARACTERS, MAX_EXAMPLE_VALUES
from service.http.exceptions import error_at
from service.registry.example_request import ExampleRequest
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.registry.snapshot import ModelEntry, Snapshot

# What /models shows of the training record: neither the loss of each epoch nor the paths of the data.
_TRAINING_KEYS = ("metrics", "baseline")


def model_summary(entry: ModelEntry) -> dict[str, Any]:
    """Return a model's entry in the list of models."""
    served = entry.default
    return {
        "name": entry.name,
        "description": served.model.description if served else "",
        "version": served.number if served else None,
        "published": _publication_details(entry, served),
        "versions": list(entry.versions),
        "aliases": {alias: served.number for alias, served in entry.loaded_by_alias.items() if alias in entry.aliases},
    }


def version_states(registry: ModelRegistry, name: str, snapshot: Snapshot) -> dict[int, str]:
    """Map the versions that are or should be in memory to the reason why they cannot predict; "" if they can."""
    if name not in snapshot.entries:
        registry.find(name, snapshot=snapshot)  # raises UnknownModelError
    broken = {}
    for problem in snapshot.problems:
        of, _, version = problem.location.partition("/")
        if of == name and version.isdigit():  # else it is an alias
            broken[int(version)] = problem.problem
    numbers = {served.number for served in snapshot.entries[name].pinned_versions}
    if name in registry.unloaded_models:
        return dict.fromkeys(sorted(numbers | broken.keys()), "unloaded")
    return {number: broken.get(number, "") for number in sorted(numbers | broken.keys())}


def model_details(entry: ModelEntry, served: LoadedVersion) -> dict[str, Any]:
    """Return what GET /models/<name> shows of a version."""
    model = served.model
    return {
        **model_summary(entry),
        "description": model.description,
        "version": served.number,
        "published": _publication_details(entry, served),
        "digest": served.digest,
        "inputs": [column.public_details() for column in model.signature.inputs],
        "output": model.signature.output.public_details(),
        "max_rows": served.max_rows,
        "explain": {"max_rows": served.row_limit.explained_rows, "baseline": model.baseline is not None},
        "conformal": _conformal_details(model.conformal),
        "training": _training_details(model.training),
        "example": _example_details(served.example),
    }


def _conformal_details(found: Conformal | None) -> dict[str, Any] | None:
    """Return what levels of intervals or sets a version can promise, None for none."""
    return None if found is None else {"method": found.method, "rows": found.rows, "max_level": found.max_level}


def _training_details(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the public part of a training record; nothing of one that is nested too deeply for a response."""
    details = {key: training[key] for key in _TRAINING_KEYS if key in training}
    try:
        orjson.dumps(details)
    except TypeError:
        return {}
    return details


def _example_details(example: ExampleRequest | None) -> dict[str, Any] | None:
    return None if example is None else {"instances": [example.instance], "predictions": [example.prediction]}


def require_example(served: LoadedVersion) -> ExampleRequest:
    """Return a version's example; ApiError 404 if a row of it is too large for one."""
    if served.example is None:
        problem = (
            f"{served.name} has none: a row and its prediction have {served.model.example_values} values, "
            f"and an example at most {MAX_EXAMPLE_VALUES}, with {MAX_EXAMPLE_CHARACTERS} characters of text"
        )
        raise error_at(404, "not_found", "example", problem, f"make a row of the inputs in /models/{served.name}")
    return served.example


def _publication_details(entry: ModelEntry, served: LoadedVersion | None) -> dict[str, Any] | None:
    """Return who published a version and when, None if that could not be read; not the stores it was copied from."""
    publication = entry.publication(served) if served else None
    return None if publication is None else {key: publication.as_dict()[key] for key in ("who", "when", "recorded")}
