"""The page `/`: every model of the service."""

from __future__ import annotations

from typing import Any

from service.registry.snapshot import ModelEntry, Snapshot


def describe_models(snapshot: Snapshot) -> list[dict[str, Any]]:
    return [_describe(entry) for entry in snapshot.entries.values()]


def _describe(entry: ModelEntry) -> dict[str, Any]:
    served = entry.default
    return {
        "name": entry.name,
        "version": served.number if served else None,
        "description": served.model.description if served else "",
    }
