"""Measure the quality of predictions on public tables, beside peers; `make bench-quality` installs them.

    python -m benchmarks.quality [--only ours,realmlp] [--tables ames,tips] [--seeds 1] [--development] [--summary]

Results are appended to files below --folder, so an interrupted run continues where it was; peers.json holds results of
the peers. A result is measured again only if the version of the contestant, the table or the seed is another. Small
tables and the first seed come first.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.quality.runs import ENVIRONMENTS, OURS, ROOT, Contestant, Results, contestant, digest, run
from benchmarks.quality.summary import load_committed, save_committed, summary
from benchmarks.quality.tables import TABLES, Table

LOG_LOSS = "realmlp-log-loss"
COMMITTED = Path(__file__).parent / "peers.json"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAMES", help=f"contestants; default: {','.join([*OURS, *ENVIRONMENTS])}")
    parser.add_argument("--tables", metavar="NAMES", help="default: all")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N-1; default: %(default)s")
    parser.add_argument("--development", action="store_true", help="hold out rows of the training rows, to tune on")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change our jobs, as `train --set` does"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "quality", help="default: %(default)s")
    parser.add_argument(
        "--timeout", type=float, default=3600, metavar="SECONDS", help="of one run; default: %(default)s"
    )
    parser.add_argument("--reference", default="ours", metavar="NAME", help="divided by the others in the summary")
    parser.add_argument("--summary", action="store_true", help="print the tables of what is measured, and run nothing")
    parser.add_argument("--again", action="store_true", help=f"do not count what {COMMITTED.name} holds as measured")
    parser.add_argument("--commit-peers", action="store_true", help=f"write the peers' results to {COMMITTED.name}")
    return parser.parse_args()


def chosen(names: str | None, known: list[str], what: str) -> list[str]:
    wanted = names.split(",") if names else known
    if unknown := sorted(set(wanted) - set(known)):
        sys.exit(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if name in wanted]


def exported(tables: list[Table], folder: Path) -> None:
    """Write the tables' files if they are not there."""
    if all((folder / "tables" / table.name / "development" / "test.csv").exists() for table in tables):
        return
    python = ROOT / ".venv-peer-tables" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python}: expected an environment with the tables; `make bench-quality` installs it")
    command = [str(python), "-m", "benchmarks.quality.export_tables", str((folder / "tables").resolve())]
    subprocess.run(command, cwd=ROOT, check=True)


def measure(
    contestants: list[Contestant], tables: dict[str, str], seeds: int, results: Results, folder: Path, timeout: float
) -> None:
    """Run what has no result yet. `tables` maps names to digests of their files, small tables first."""
    named = {table.name: table for table in TABLES}
    for seed in range(seeds):
        for name, data in tables.items():
            for one in contestants:
                if results.has(one, name, data, seed) or (one.name == LOG_LOSS and not named[name].classes):
                    continue
                result = run(one, named[name], folder / name / results.folder.name, seed, timeout)
                results.add(one, name, data, seed, result)
                shown = result.get("failed") or " ".join(
                    f"{key} {result[key]:.4g}" for key in ("rmse", "log_loss", "error_rate") if key in result
                )
                cost = f"{result['process']:8.1f} s {result['memory']:6.0f} MB"
                print(f"{one.name:17} {name:19} seed {seed} {cost}  {shown}", flush=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the contestant that runs ends too
    options = arguments()
    tables = [table for table in TABLES if table.name in chosen(options.tables, [t.name for t in TABLES], "table")]
    names = chosen(options.only, [*OURS, *ENVIRONMENTS], "contestant")
    exported(tables, options.folder)
    files, purpose = options.folder / "tables", "development" if options.development else "test"
    tables.sort(key=lambda table: (files / table.name / purpose / "train.csv").stat().st_size)
    digests = {table.name: digest((files / table.name / purpose).glob("*.csv")) for table in tables}
    everyone = [contestant(name, options.folder, options.set if name == "ours" else ()) for name in names]
    able = [one for one in everyone if one.python.exists()]
    for one in everyone:
        if one not in able:
            print(f"{one.name}: not installed: {one.python}", file=sys.stderr)
    committed = {} if options.development or options.again else load_committed(COMMITTED, digests)
    results = Results(options.folder, purpose, committed)
    if not options.summary:
        measure(able, digests, options.seeds, results, files, options.timeout)
    found = dict(committed)
    for one in everyone:
        mine = [result for result in results.of(one) if digests.get(result["table"]) == result["data"]]
        if mine:
            found[one.name] = mine
    if options.commit_peers:
        save_committed(COMMITTED, found)
    if LOG_LOSS in found:  # which differs from RealMLP in classifications only
        found[LOG_LOSS] = [*found[LOG_LOSS], *(one for one in found.get("realmlp", []) if "rmse" in one)]
    print(summary(found, {table.name: table for table in tables}, options.reference))


if __name__ == "__main__":
    main()
