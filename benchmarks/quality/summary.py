"""The tables that the quality benchmark prints: ratios to every contestant, ranks, and the error on each table."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.quality.measures import critical_difference, friedman, geometric_mean, mean_ranks
from benchmarks.quality.tables import Table

Result = dict[str, Any]
KEPT = ("rmse", "log_loss", "error_rate", "process", "work", "memory")
FIGURES = 5  # digits of the committed errors


# Added to both before they are divided, so that tables whose error is almost 0, where one row multiplies it, do not
# decide a mean.
MORE = {"log_loss": 0.01, "error_rate": 0.005}


def error(result: Mapping[str, float]) -> float:
    """Return the error that ratios and ranks compare: RMSE of a regression, log loss of a classification."""
    return result["rmse"] if "rmse" in result else result["log_loss"]


def ratio(ours: Mapping[str, float], theirs: Mapping[str, float], key: str) -> float:
    return (ours[key] + MORE.get(key, 0.0)) / (theirs[key] + MORE.get(key, 0.0))


def error_ratio(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    return ratio(ours, theirs, "rmse" if "rmse" in ours else "log_loss")


def means(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Return the mean of each figure over the seeds, by table; without runs that failed."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if "failed" not in result:
            found.setdefault(result["table"], []).append(result)
    return {
        table: {key: fmean(run[key] for run in runs) for key in KEPT if key in runs[0]} for table, runs in found.items()
    }


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any], key: str) -> list[float]:
    """Return ours / theirs on the common tables."""
    common = [table for table in ours if table in theirs and key in ours[table] and key in theirs[table]]
    return [ratio(ours[table], theirs[table], key) for table in common]


def _ratio(values: Sequence[float]) -> str:
    return f"{geometric_mean(values):.3f}" if values else "–"


def summary(results: Mapping[str, Sequence[Result]], tables: Mapping[str, Table], reference: str = "ours") -> str:
    """Return Markdown: geometric means of reference / others, mean ranks, each table's errors, and what failed."""
    results = {name: [run for run in runs if run["table"] in tables] for name, runs in results.items()}
    found = {name: figures for name, runs in results.items() if (figures := means(runs))}
    if reference not in found:
        return f"No result of {reference} yet."
    failures = [run | {"contestant": name} for name, runs in results.items() for run in runs if "failed" in run]
    parts = [_overall(found, results, reference), _ranks(found, failures), _each(found, results, tables, reference)]
    if failures:
        parts.append("\nFailed:\n")
        parts += [f"- {run['contestant']}, {run['table']}, seed {run['seed']}: {run['failed']}" for run in failures]
    return "\n".join(parts)


def _seeds(runs: Iterable[Result]) -> str:
    """Return the numbers of seeds that have a result, and of how many tables: "5 of 23 tables, 1 of 18", or "5"."""
    of_table = Counter(run["table"] for run in runs if "failed" not in run)
    tables = sorted(Counter(of_table.values()).items(), reverse=True)
    (most, count), *others = tables
    first = f"{most} of {count} tables" if others else f"{most}"
    return ", ".join([first, *(f"{seeds} of {count}" for seeds, count in others)])


def _overall(found: Mapping[str, Any], results: Mapping[str, Sequence[Result]], reference: str) -> str:
    lines = [
        f"Geometric means of {reference} / theirs over the common tables, means over the seeds: of {reference} "
        f"{_seeds(results[reference])}\n",
        "| | tables | seeds | error | RMSE | log loss | error rate | worst table | process | work | memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    first = found[reference]
    for name, theirs in found.items():
        both = {table: error_ratio(first[table], theirs[table]) for table in first if table in theirs}
        if name == reference or not both:
            continue
        parts = {key: _ratio(ratios(first, theirs, key)) for key in KEPT}
        worst = max(both, key=lambda table: both[table])
        seeds = _seeds(run for run in results[name] if run["table"] in both)
        lines.append(
            f"| {name} | {len(both)} | {seeds} | **{_ratio(list(both.values()))}** "
            f"| {parts['rmse']} | {parts['log_loss']} | {parts['error_rate']} | {worst} {both[worst]:.2f} "
            f"| {parts['process']} | {parts['work']} | {parts['memory']} |"
        )
    return "\n".join(lines)


def _ranks(found: Mapping[str, Any], failures: Sequence[Result]) -> str:
    """Rank on the tables that all contestants ran on; who failed there has the largest error."""
    errors = {name: {table: error(figures) for table, figures in of.items()} for name, of in found.items()}
    for run in failures:
        errors.setdefault(run["contestant"], {}).setdefault(run["table"], inf)
    common = sorted(set.intersection(*(set(of) for of in errors.values())))
    if not 2 <= len(errors) <= 10 or not common:
        return "\nNo mean ranks: no table has a result of all contestants."
    ranked = mean_ranks([{name: errors[name][table] for name in errors} for table in common])
    difference, best = critical_difference(len(errors), len(common)), min(ranked.values())
    lines = [
        f"\nMean ranks by error over {len(common)} tables. Friedman's χ² is {friedman(ranked, len(common)):.1f} with "
        f"{len(errors) - 1} degrees of freedom; a difference of {difference:.2f} is significant at 5 % (Nemenyi).\n",
        "| contestant | mean rank | not significantly worse than the best |",
        "|---|---|---|",
    ]
    for name, rank in sorted(ranked.items(), key=lambda item: item[1]):
        lines.append(f"| {name} | {rank:.2f} | {'yes' if rank - best < difference else ''} |")
    return "\n".join(lines)


def _each(
    found: Mapping[str, Any], results: Mapping[str, Sequence[Result]], tables: Mapping[str, Table], reference: str
) -> str:
    others = [name for name in found if name != reference]
    seeds = Counter(run["table"] for run in results[reference] if "failed" not in run)
    lines = [
        f"\nError of {reference} (RMSE, or log loss), its processor seconds and MB, and {reference} / theirs\n",
        f"| table | seeds | error | s | MB | {' | '.join(others)} |",
        f"|---|---|---|---|---|{'---|' * len(others)}",
    ]
    for name in sorted(found[reference], key=lambda name: (tables[name].classes, name)):
        mine = found[reference][name]
        cells = [f"{error_ratio(mine, found[other][name]):.2f}" if name in found[other] else "–" for other in others]
        costs = f"{mine['process']:.1f} | {mine['memory']:.0f}"
        lines.append(f"| {name} | {seeds[name]} | {error(mine):.4g} | {costs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def save_committed(path: Path, results: Mapping[str, Sequence[Result]]) -> None:
    """Write the results of all but ours, so that later runs compare without the peers' environments."""
    data = {run["table"]: run["data"] for runs in results.values() for run in runs}
    kept: dict[str, dict[str, Any]] = {}
    for name, runs in results.items():
        if name == "ours":
            continue
        of_tables: dict[str, dict[str, list[float | None]]] = {}
        for run in sorted(runs, key=lambda run: (run["table"], run["seed"])):
            if "failed" not in run:
                figures = [float(f"{run[key]:.{FIGURES}g}") if key in run else None for key in KEPT]
                of_tables.setdefault(run["table"], {})[str(run["seed"])] = figures
        kept[name] = {"version": runs[0]["version"], "results": of_tables}
    machine = f"{_processor()}, {platform.system()} on {platform.machine()}, {os.cpu_count()} cores"
    head = {"measured": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine, "figures": KEPT, "data": data}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in (head | {"contestants": kept}).items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def load_committed(path: Path, digests: Mapping[str, str]) -> dict[str, list[Result]]:
    """Return the committed results of tables whose files have the same digests."""
    if not path.exists():
        return {}
    committed = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, list[Result]] = {}
    for name, entry in committed["contestants"].items():
        found[name] = [
            {"contestant": name, "version": entry["version"], "table": table, "seed": int(seed)}
            | {"data": committed["data"][table]}
            | {key: value for key, value in zip(committed["figures"], figures, strict=True) if value is not None}
            for table, runs in entry["results"].items()
            if digests.get(table) == committed["data"][table]
            for seed, figures in runs.items()
        ]
    return found
