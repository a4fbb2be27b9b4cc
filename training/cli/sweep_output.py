"""The output of `train sweep`: a line for each trial, the table of the best ones, and data for `--json`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from model_store.utils.number_format import METRIC_TITLES, format_number, format_percent
from training.cli.output import new_table
from training.config.search_space import value_text

if TYPE_CHECKING:  # they need the extra
    from training.sweep.study import Tried
    from training.sweep.sweep import Sweep, TrialEvent

MAX_SHOWN_TRIALS = 10
_MAX_VALUE_LENGTH = 40  # characters of a value in the table


def metric_title(metric: str) -> str:
    return METRIC_TITLES.get(metric, metric)


def search_line(sweep: Sweep) -> str:
    """Return what is searched, and how trials are compared."""
    search, count = sweep.search, len(sweep.search.space.parameters)
    folded = search.folds is not None or sweep.prepared.job.settings.train.ensemble is not None
    rows = "rows out of fold" if folded else "validation rows"
    better = "higher" if sweep.higher_is_better else "lower"
    metric = f"by the {metric_title(sweep.metric)} of the {rows}, {better} is better"
    pruning = "no pruning" if search.pruning == "none" else f"{search.pruning} pruning"
    of = f"{format_number(search.trials)} trials of {count} {'parameter' if count == 1 else 'parameters'}"
    return f"search: {of}, compared {metric}; {pruning}"


def trial_line(event: TrialEvent, trials: int, metric: str, best: Tried | None) -> str:
    """Return the result of a trial of this process."""
    start = f"trial {event.number}/{trials}: "
    if event.evaluation is None:
        return f"{start}{event.reason}, {event.seconds:.1f} s"
    value = f"{metric_title(metric)} {event.evaluation.value:.6g} after {event.evaluation.epochs} epochs"
    shown = "" if best is None or best.value is None else f"  (best {best.value:.6g}, trial {best.number})"
    return f"{start}{value}, {event.seconds:.1f} s{shown}"


def print_trials(out: Console, sweep: Sweep, ranked: Sequence[Tried]) -> None:
    """Print the table of the best trials."""
    names = list(sweep.search.space.parameters)
    table = new_table("trial", metric_title(sweep.metric), "epochs", *short_names(names))
    for column in table.columns:
        column.overflow = "fold"  # of a narrow terminal: show all of a number
    for one in ranked[:MAX_SHOWN_TRIALS]:
        values = (_shown(one.values[name]) for name in names)
        table.add_row(str(one.number), f"{one.value:.6g}", str(one.epochs or "-"), *values)
    out.print()
    out.print(table)


def short_names(names: Sequence[str]) -> list[str]:
    """Return the names of parameters without their section, unless two would be equal."""
    short = [name.partition(".")[2] for name in names]
    return [one if short.count(one) == 1 else name for one, name in zip(short, names, strict=True)]


def summary_line(tried: Sequence[Tried]) -> str:
    """Return how many trials there are of each state."""
    states = ("complete", "pruned", "failed", "running", "waiting")
    counts = {state: sum(one.state == state for one in tried) for state in states}
    return f"{len(tried)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def importance_line(importance: Mapping[str, float]) -> str:
    """Return the parameters by their importance."""
    shares = sorted(importance.items(), key=lambda item: -item[1])
    return "importance: " + ", ".join(f"{name} {format_percent(share)}" for name, share in shares)


def job_command(file: str, overrides: Mapping[str, Any]) -> str:
    """Return the command that trains these settings."""
    settings = (f"--set {shlex.quote(f'{name}={_toml(value)}')}" for name, value in overrides.items())
    return f"train {shlex.quote(file)} {' '.join(settings)}"


def search_data(
    sweep: Sweep, tried: Sequence[Tried], best: Tried | None, importance: Mapping[str, float]
) -> dict[str, Any]:
    """Return the search for `--json`."""
    return {
        "metric": sweep.metric,
        "higher_is_better": sweep.higher_is_better,
        "best": best and {**_trial(best), "settings": sweep.search.space.overrides(best.values)},
        "importance": dict(importance),
        "trials": [_trial(one) for one in tried],
    }


def _trial(one: Tried) -> dict[str, Any]:
    found = {"number": one.number, "state": one.state, "value": one.value, "epochs": one.epochs, "values": one.values}
    return found | ({"reason": one.reason} if one.state == "failed" else {})


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else value_text(value)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH - 1]}…"


def _toml(value: Any) -> str:
    """Return a value as inline TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return value_text(value)
