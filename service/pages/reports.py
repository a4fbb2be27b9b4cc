"""The page `/reports`: the reports of the versions in the store."""

from __future__ import annotations

from typing import Any

from service.pages.overview import MAX_MODELS, MAX_POINTS, Headlines
from service.registry.snapshot import Snapshot


def describe(snapshot: Snapshot, headlines: Headlines) -> dict[str, Any]:
    """Return the newest versions of each model with their headline metrics, the newest first."""
    entries = list(snapshot.entries.values())
    shown = entries[:MAX_MODELS]
    metrics = headlines.of_models(shown)
    return {
        "models": [
            {
                "name": entry.name,
                "default": entry.default.number if entry.default else None,
                "older": max(0, len(entry.versions) - MAX_POINTS),
                "versions": [
                    (number, metrics.get((entry.name, number))) for number in reversed(entry.versions[-MAX_POINTS:])
                ],
            }
            for entry in shown
        ],
        "more": len(entries) - len(shown),
    }
