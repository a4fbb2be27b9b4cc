"""The record of a search in the model's manifest. It holds no time and no address, only what was tried and found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model_store.evaluation.search_record import MAX_OPTION_LENGTH, MAX_SEARCH_TRIALS
from training.config.search_space import Choice, Distribution, value_text
from training.sweep.study import Study, Tried
from training.sweep.sweep import Sweep

_DIGITS = 6  # of recorded values; the job has those of the best trial exactly


def search_record(sweep: Sweep, study: Study) -> dict[str, Any]:
    """Return the record of a search that has a complete trial. Its size is bounded."""
    tried, best, importance = study.tried(), study.best(), study.importance()
    if best is None:
        raise ValueError("expected a complete trial")
    counts = {state: sum(one.state == state for one in tried) for state in ("complete", "pruned", "failed")}
    parameters = sweep.search.space.parameters
    return {
        "metric": sweep.metric,
        "higher_is_better": sweep.higher_is_better,
        "pruning": sweep.search.pruning,
        **counts,
        "best": best.number,
        "parameters": [_describe(name, one, importance.get(name)) for name, one in parameters.items()],
        "trials": [
            {
                "number": one.number,
                "state": one.state,
                **({} if one.value is None else {"value": _rounded(one.value)}),
                "values": [_position(one.values[name], distribution) for name, distribution in parameters.items()],
            }
            for one in _chosen(tried, sweep.higher_is_better)
        ],
    }


def ranked(tried: Sequence[Tried], higher_is_better: bool) -> list[Tried]:
    """Return the complete sets of values, the best first."""
    complete = [one for one in tried if one.value is not None]
    return sorted(complete, key=lambda one: -(one.value or 0.0) if higher_is_better else one.value or 0.0)


def _chosen(tried: Sequence[Tried], higher_is_better: bool) -> list[Tried]:
    """Return the ended trials, or of many the best half, and others evenly spaced."""
    ended = [one for one in tried if one.state in ("complete", "pruned", "failed")]
    if len(ended) <= MAX_SEARCH_TRIALS:
        return ended
    kept = {one.number for one in ranked(ended, higher_is_better)[: MAX_SEARCH_TRIALS // 2]}
    others = [one.number for one in ended if one.number not in kept]
    room = MAX_SEARCH_TRIALS - len(kept)
    kept.update(others[i * len(others) // room] for i in range(room))
    return [one for one in ended if one.number in kept]


def _describe(name: str, distribution: Distribution, importance: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name}
    if isinstance(distribution, Choice):
        found["options"] = [_shortened(value_text(option)) for option in distribution.options]
    else:
        found |= {"low": distribution.low, "high": distribution.high, "log": distribution.log}
    return found if importance is None else {**found, "importance": round(min(max(importance, 0.0), 1.0), 4)}


def _position(value: Any, distribution: Distribution) -> float:
    if isinstance(distribution, Choice):
        return [value_text(option) for option in distribution.options].index(value_text(value))
    return min(max(_rounded(value), distribution.low), distribution.high)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_OPTION_LENGTH else f"{text[: MAX_OPTION_LENGTH - 1]}…"
