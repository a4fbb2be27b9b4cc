"""What changes between two states of the service: versions, aliases, problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.registry.snapshot import Snapshot

State = dict[str, Any]
_MAX_TEXT = 500  # characters of a problem


def state_of(snapshot: Snapshot) -> State:
    """Return what the reload log compares of a snapshot, as JSON."""
    models = {
        entry.name: {
            "version": entry.default.number if entry.default else None,
            "why": entry.why_default,
            "aliases": {alias: served.number for alias, served in entry.loaded_by_alias.items()},
        }
        for entry in snapshot.entries.values()
    }
    problems = {problem.location: problem.problem[:_MAX_TEXT] for problem in snapshot.problems}
    return {"models": models, "problems": problems}


def changes(before: State | None, after: State) -> Iterator[dict[str, str]]:
    """Yield each change as {"subject", "text", "kind"}; kind: "served", "problem" or "solved"."""
    old = before or {"models": {}, "problems": {}}
    for name, model in after["models"].items():
        then = old["models"].get(name)
        yield from _model_changes(name, then or {"version": None, "why": "", "aliases": {}}, model)
    for name in old["models"].keys() - after["models"].keys():
        yield {"subject": name, "text": "removed from the store", "kind": "served"}
    for location, problem in after["problems"].items():
        if old["problems"].get(location) != problem:
            yield {"subject": location, "text": problem, "kind": "problem"}
    for location in old["problems"].keys() - after["problems"].keys():
        yield {"subject": location, "text": "the problem is solved", "kind": "solved"}


def _model_changes(name: str, then: dict[str, Any], now: dict[str, Any]) -> Iterator[dict[str, str]]:
    if now["version"] is not None and (now["version"], now["why"]) != (then["version"], then["why"]):
        is_other = then["version"] is not None and then["version"] != now["version"]
        instead = f" instead of {then['version']}" if is_other else ""
        yield {"subject": name, "text": f"serves version {now['version']}{instead} ({now['why']})", "kind": "served"}
    for alias in sorted(now["aliases"].keys() | then["aliases"].keys()):
        old, new = then["aliases"].get(alias), now["aliases"].get(alias)
        if old != new:
            text = f"alias {alias}: {old if old is not None else 'none'} → {new if new is not None else 'none'}"
            yield {"subject": name, "text": text, "kind": "served"}
