"""Whether a sweep of 50 trials beats the job of `train init` on held-out rows of public tables.

    python -m benchmarks.sweeps [--tables concrete,digits] [--folder data/quality] [--trials 50] [--work data/sweeps]

The tables and their held-out rows are those of the quality benchmark (`make bench-quality` exports them). Each job
has the held-out rows as its `test_file`, so the search never sees them; trials are compared on the other rows. The
search is the same for all tables: factors of the default learning rate and weight decay, widths, dropout, batch sizes,
and once or twice the epochs. Then the default job and the best settings are trained with the same seeds, and both are
measured on the held-out rows. A study that was interrupted is continued.

The three tables were chosen before any was searched: of 1,000 to 5,000 rows, one of numbers, one of two classes and one
of ten. `--tables` measures others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from benchmarks.quality.tables import TABLES, Table

ROOT = Path(__file__).parent.parent
CHOSEN = ("concrete", "spambase", "digits")
_WIDTHS, _DROPOUTS = (0.5, 1, 2), (0.0, 0.15, 0.3)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", metavar="NAMES", default=",".join(CHOSEN), help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "quality", help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "sweeps", help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of the comparison; default: %(default)s")
    parser.add_argument("--folds", type=int, metavar="K", help="of jobs that train one network; default: none")
    parser.add_argument("--search-only", action="store_true", help="join the study, and compare nothing")
    return parser.parse_args()


def train(*words: str) -> Any:
    """Run `train` and return its JSON."""
    command = [sys.executable, "-m", "training", *words, "--json", "--quiet"]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def layers(job: dict[str, Any], width: float, dropout: float) -> list[Any]:
    """Return the layers of a job with other sizes and dropout."""
    found: list[Any] = []
    for layer in job["network"]["layers"]:
        if isinstance(layer, int):
            found.append(round(layer * width))
        elif isinstance(layer, dict) and "dropout" in layer:
            found.append({"dropout": dropout})
        else:
            found.append(layer)
    return found


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def search(job: dict[str, Any], table: Table, trials: int, folds: int | None) -> str:
    """Return the section [search] for a job of `train init`."""
    section = job["train"]
    rate, decay, epochs = section["learning_rate"], section["weight_decay"], section["epochs"]
    options = [layers(job, width, dropout) for width in _WIDTHS for dropout in _DROPOUTS]
    batch = section["batch_size"]
    folded = f"folds = {folds}\n" if folds is not None and "ensemble" not in section else ""
    return f"""
[search]
trials = {trials}
metric = "{"log_loss" if table.classes else "rmse"}"
{folded}
[search.train]
learning_rate = {{ log_uniform = [{rate / 5:g}, {rate * 5:g}] }}
weight_decay = {{ log_uniform = [{decay / 10:g}, {decay * 10:g}] }}
batch_size = {{ choice = [{batch // 2}, {batch}, {batch * 2}] }}
epochs = {{ choice = [{epochs}, {2 * epochs}] }}

[search.network]
layers = {{ choice = {toml(options)} }}
"""


def write_job(table: Table, folder: Path, work: Path, trials: int, folds: int | None) -> Path:
    """Write the job of `train init` with the held-out rows as its test rows, and with a search."""
    path = work / f"{table.name}.toml"
    data = (folder / "tables" / table.name / "test").resolve()
    if path.exists():
        return path
    train("init", str(data / "train.csv"), "--target", table.target, "--output", str(path), "--name", table.name)
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(("test =", "test="))]
    at = lines.index(next(line for line in lines if line.startswith("[split]")))
    lines.insert(at + 1, f'test_file = "{data / "test.csv"}"')
    text = "\n".join(lines) + "\n"
    path.write_text(text + search(tomllib.loads(text), table, trials, folds), encoding="utf-8")
    return path


def held_out_error(job: Path, table: Table, seed: int, settings: dict[str, Any]) -> float:
    """Train a job and return its RMSE or log loss on the held-out rows."""
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={toml(value)}")]
    store = job.parent / "models"
    found = train(str(job), "--seed", str(seed), "--store", str(store), *words)
    if not table.classes:
        return float(next(iter(found["metrics"]["targets"].values()))["rmse"])
    reference = f"{table.name}/{found['published']['version']}"
    command = [sys.executable, "-m", "model_store", "show", reference, "--store", str(store), "--json"]
    manifest = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return float(json.loads(manifest.stdout)["manifest"]["training"]["diagnostics"]["calibration"]["log_loss"])


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    named = {table.name: table for table in TABLES}
    for name in options.tables.split(","):
        table = named[name]
        job = write_job(table, options.folder, options.work, options.trials, options.folds)
        found = train("sweep", str(job), "--join", "--no-publish")
        best = found["best"]
        if options.search_only:
            continue
        default, swept = (
            [held_out_error(job, table, seed, settings) for seed in range(options.seeds)]
            for settings in ({}, best["settings"])
        )
        states = [trial["state"] for trial in found["trials"]]
        result = {
            "table": name,
            "metric": found["metric"],
            "trials": {state: states.count(state) for state in sorted(set(states))},
            "first_trial": found["trials"][0]["value"],
            "best_trial": best["value"],
            "settings": best["settings"],
            "default": default,
            "swept": swept,
            "ratio": statistics.mean(swept) / statistics.mean(default),
        }
        (options.work / f"{name}.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
