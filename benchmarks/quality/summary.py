"""The tables that the quality benchmark prints: ratios to every contestant, ranks, and the error on each table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.quality.measures import critical_difference, friedman, geometric_mean, mean_ranks
from benchmarks.quality.tables import Table

Result = dict[str, Any]
KEPT = ("rmse", "log_loss", "error_rate", "process", "work", "memory")
FIGURES = 5  # digits of the committed errors


def error(result: Mapping[str, float]) -> float:
    """Return the error that ratios and ranks compare: RMSE of a regression, log loss of a classification."""
    return result["rmse"] if "rmse" in result else result["log_loss"]


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
    """Return ours / theirs on the common tables. An error rate counts half a row more, so that none is zero."""
    common = [table for table in ours if table in theirs and key in ours[table] and key in theirs[table]]
    more = 0.001 if key == "error_rate" else 0.0
    return [(ours[table][key] + more) / (theirs[table][key] + more) for table in common]


def _ratio(values: Sequence[float]) -> str:
    return f"{geometric_mean(values):.3f}" if values else "–"


def summary(results: Mapping[str, Sequence[Result]], tables: Mapping[str, Table]) -> str:
    """Return Markdown: geometric means of ours / theirs, mean ranks, and each table's errors."""
    found = {name: {t: v for t, v in means(runs).items() if t in tables} for name, runs in results.items()}
    found = {name: figures for name, figures in found.items() if figures}
    if "ours" not in found:
        return "No result of ours yet."
    parts = [_overall(found), _ranks(found), _each(found, tables)]
    failures = [
        f"- {name}, {run['table']}, seed {run['seed']}: {run['failed']}"
        for name, runs in results.items()
        for run in runs
        if "failed" in run
    ]
    return "\n".join([*parts, "\nFailed:", *failures] if failures else parts)


def _overall(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "Geometric means of ours / theirs over the common tables, means over the seeds\n",
        "| | tables | error | RMSE | log loss | error rate | worst table | process | work | memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    ours = found["ours"]
    for name, theirs in found.items():
        if name == "ours":
            continue
        parts = {key: ratios(ours, theirs, key) for key in KEPT}
        both = {table: error(ours[table]) / error(theirs[table]) for table in ours if table in theirs}
        if not both:
            continue
        worst = max(both, key=lambda table: both[table])
        lines.append(
            f"| {name} | {len(both)} | **{_ratio(list(both.values()))}** | {_ratio(parts['rmse'])} "
            f"| {_ratio(parts['log_loss'])} | {_ratio(parts['error_rate'])} | {worst} {both[worst]:.2f} "
            f"| {_ratio(parts['process'])} | {_ratio(parts['work'])} | {_ratio(parts['memory'])} |"
        )
    return "\n".join(lines)


def _ranks(found: Mapping[str, Mapping[str, Any]]) -> str:
    common = set.intersection(*(set(figures) for figures in found.values()))
    entries = list(found)
    if not 2 <= len(entries) <= 10 or not common:
        return "\nNo mean ranks: no table has a result of all contestants."
    ranked = mean_ranks([{name: error(found[name][table]) for name in entries} for table in sorted(common)])
    difference = critical_difference(len(entries), len(common))
    lines = [
        f"\nMean ranks by error over {len(common)} tables; Friedman's χ² is {friedman(ranked, len(common)):.1f} with "
        f"{len(entries) - 1} degrees of freedom; a difference of {difference:.2f} is significant at 5 % (Nemenyi)\n",
        "| contestant | mean rank | not significantly different from the best |",
        "|---|---|---|",
    ]
    best = min(ranked.values())
    for name, rank in sorted(ranked.items(), key=lambda item: item[1]):
        lines.append(f"| {name} | {rank:.2f} | {'yes' if rank - best < difference else ''} |")
    return "\n".join(lines)


def _each(found: Mapping[str, Mapping[str, Any]], tables: Mapping[str, Table]) -> str:
    others = [name for name in found if name != "ours"]
    lines = [
        "\nError of ours (RMSE, or log loss), its processor seconds and MB, and ours / theirs\n",
        f"| table | error | s | MB | {' | '.join(others)} |",
        f"|---|---|---|---|{'---|' * len(others)}",
    ]
    for name in sorted(tables, key=lambda name: (tables[name].classes, name)):
        mine = found["ours"].get(name)
        if mine is None:
            continue
        cells = [f"{error(mine) / error(found[other][name]):.2f}" if name in found[other] else "–" for other in others]
        lines.append(
            f"| {name} | {error(mine):.4g} | {mine['process']:.1f} | {mine['memory']:.0f} | {' | '.join(cells)} |"
        )
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
