"""Serving compared with peers: requests/s, latency, cold start, memory and installed size.

    make bench-serving                                       # installs the peers, then measures all: half an hour
    make bench-serving ARGS="--only ours,naive --networks 784 --workers 1 --seconds 2"

Every contestant serves the same weights from a fresh start, with one worker on a core of its own and wrk on another,
then with two workers and wrk wherever the kernel puts them; contestants take turns. All must first give the same
answers, to 1e-5. Ratios are to the naive service.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.contestants import CONTESTANTS, NAIVE, PEERS, ROOT, Contestant, Setting, free_port
from benchmarks.rounds import alternate
from benchmarks.serving_process import FailedError, Service, bodies, free_share, installed_megabytes
from model_store.artifact.model import Golden, Model
from model_store.nn import Linear, ReLU, Sequential, Softmax, Tanh
from model_store.registry.store import open_store
from model_store.schema.signature import ArrayColumn, ClassificationOutput, NumberColumn, RegressionOutput, Signature

ROWS = (1, 32)
CONNECTIONS = (1, 32)
CELLS = [(rows, connections) for rows in ROWS for connections in CONNECTIONS]
AGREEMENT = 1e-5
WARM_UP = 20  # requests of each size, before wrk's
Figures = dict[str, dict[str, dict[str, dict[str, float]]]]  # network, workers, contestant, what: how much


def mnist(rng: np.random.Generator) -> tuple[Model, list[list[float]]]:
    """An untrained image classifier: pixels from 0 to 1 in, ten probabilities out."""
    sizes = [784, 256, 128, 10]
    layers: list[Any] = []
    for inputs, outputs in pairwise(sizes):
        layers += [Linear(inputs, outputs, rng=rng, initializer="glorot_uniform"), ReLU()]
    network = Sequential([*layers[:-1], Softmax()])
    rows = (rng.integers(0, 256, (max(ROWS), sizes[0])) / 255).tolist()
    signature = Signature(
        (ArrayColumn("pixels", (784,), 0.0, 1.0, 0.0, 1.0),), ClassificationOutput("digit", tuple(range(10)))
    )
    return Model(network, signature, golden=Golden(rows[:1], network(np.array(rows[:1], np.float32)))), rows


def xor(rng: np.random.Generator) -> tuple[Model, list[list[float]]]:
    """The network of examples/xor.toml."""
    network = Sequential([Linear(2, 3, rng=rng), Tanh(), Linear(3, 1, rng=rng), Tanh()])
    rows = rng.integers(0, 2, (max(ROWS), 2)).astype(float).tolist()
    signature = Signature((NumberColumn("a"), NumberColumn("b")), RegressionOutput(("xor",), (0.0,), (1.0,)))
    return Model(network, signature, golden=Golden(rows[:1], network(np.array(rows[:1], np.float32)))), rows


NETWORKS = {"784": ("784-256-128-10", mnist), "xor": ("2-3-1", xor)}


class Network:
    """A network published to its own store and exported to ONNX, with rows and their expected predictions."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        model, rows = NETWORKS[name][1](np.random.default_rng(0))
        self.rows = {count: rows[:count] for count in ROWS}
        self.expected = model.network(np.array(rows, np.float32))
        store = open_store(str(self.folder / "models"))
        store.publish(name, model)
        self.artifact, self.onnx = store.path(name, 1), self.folder / "model.onnx"
        exporter = ROOT / ".venv-peer-onnx" / "bin" / "python"
        if exporter.exists():
            subprocess.run([str(exporter), str(PEERS / "export.py"), str(self.artifact), str(self.onnx)], check=True)

    def setting(self, workers: int) -> Setting:
        return Setting(self.folder / "models", self.artifact, self.onnx, workers, free_port(), self.folder)


def check(service: Service, network: Network, asked: dict[int, Path]) -> None:
    """Raise if a prediction differs from the network's."""
    for count, path in asked.items():
        answers = np.array(service.predictions(path.read_bytes()), float).reshape(count, -1)
        expected = network.expected[:count]
        if answers.shape != expected.shape or not (gap := float(np.abs(answers - expected).max())) <= AGREEMENT:
            found = f"{gap:.1e} from them" if answers.shape == expected.shape else f"{answers.shape}"
            raise FailedError(f"expected the network's own answers {expected.shape}, found {found}")


def turn(contestant: Contestant, network: Network, workers: int, seconds: int) -> dict[str, float]:
    """Start, apply all loads, stop; a load of 0 seconds is skipped."""
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    served_on, loaded_from = (cores[0], cores[1]) if workers == 1 else (",".join(cores), ",".join(cores))
    asked = bodies(contestant, network.rows, network.folder)
    found = {"free": free_share(int(core) for core in cores[:2])}
    with Service(contestant, network.setting(workers), served_on, asked[1].read_bytes()) as service:
        found["cold start"] = service.cold_start
        check(service, network, asked)
        for rows, connections in CELLS if seconds else ():
            for _ in range(WARM_UP):
                service.ask(asked[rows].read_bytes())
            for key, value in service.load(asked[rows], connections, seconds, loaded_from).items():
                found[f"{rows}/{connections} {key}"] = value
        found["memory"] = service.memory()
    return found


def turn_again(contestant: Contestant, network: Network, workers: int, seconds: int) -> dict[str, float]:
    """Run a turn; retry once, so that one failure does not lose all earlier rounds."""
    try:
        return turn(contestant, network, workers, seconds)
    except FailedError as e:
        print(f"{contestant.name} failed, retrying once: {e}", file=sys.stderr, flush=True)
        return turn(contestant, network, workers, seconds)


def able(names: list[str], networks: list[Network], most_workers: int) -> tuple[list[Contestant], dict[str, str]]:
    """Return the contestants that are installed, start and predict correctly, and the reasons why others do not."""
    taking, absent = [], {}
    for contestant in (one for one in CONTESTANTS if one.name in names):
        try:
            if contestant.missing:
                raise FailedError(f"not installed: {contestant.missing}")
            for network in networks:
                turn(contestant, network, most_workers, 0)
            taking.append(contestant)
        except FailedError as e:
            absent[contestant.name] = str(e)
            print(f"{contestant.name} is left out: {e}", file=sys.stderr, flush=True)
    return taking, absent


def measure(
    contestants: list[Contestant], networks: list[Network], workers: list[int], rounds: int, seconds: int
) -> Figures:
    figures: Figures = {}
    for network in networks:
        for count in workers:
            print(f"{NETWORKS[network.name][0]}, {count} worker(s): {rounds} rounds", file=sys.stderr, flush=True)
            turns = {one.name: partial(turn_again, one, network, count, seconds) for one in contestants}
            figures.setdefault(network.name, {})[str(count)] = alternate(turns, rounds)
    return figures


def tables(figures: Figures, sizes: dict[str, float], absent: dict[str, str]) -> str:
    """Render Markdown: ratios and latencies per network and number of workers, then what is independent of load."""
    lines: list[str] = []
    says = {one.name: one.says for one in CONTESTANTS}
    for network, by_workers in figures.items():
        for workers, found in by_workers.items():
            location = "on a core of its own" if workers == "1" else "unpinned"
            lines += ["", f"**{NETWORKS[network][0]}, {workers} worker{'s' * (workers != '1')}, {location}**", ""]
            free = [one["free"] for one in found.values()]
            lines += [
                f"Before the turns the cores were free to {median(free):.0%} in the median.",
                "",
            ]
            cells = [f"{rows} row{'s' * (rows > 1)}, {c} conn." for rows, c in CELLS]
            base = found.get(NAIVE.name)
            lines.append(f"| | {' | '.join(cells)} |")
            lines.append("|---" * (len(CELLS) + 1) + "|")
            for name, one in found.items():
                row = [name]
                for rows, connections in CELLS:
                    key = f"{rows}/{connections}"
                    ratio = f"**{one[f'{key} rate'] / base[f'{key} rate']:.1f}x** " if base else ""
                    failed = f", {one[f'{key} failed']:.0f} failed" if one[f"{key} failed"] else ""
                    p50, p99 = one[f"{key} p50"], one[f"{key} p99"]
                    row.append(f"{ratio}{one[f'{key} rate']:,.0f}/s, {p50:.2f} / {p99:.2f} ms{failed}")
                lines.append(f"| {' | '.join(row)} |")
    heads: list[str] = []
    rows: dict[str, list[str]] = {name: [f"{name} ({says[name]})"] for name in sizes}
    for network, by_workers in figures.items():
        for workers, found in by_workers.items():
            kinds = ["cold start"] * (workers == min(by_workers)) + ["memory"]
            of = f"{NETWORKS[network][0]}, {workers} worker{'s' * (workers != '1')}"
            heads += [f"{'PSS' if kind == 'memory' else kind}, {of}" for kind in kinds]
            for name, row in rows.items():
                one = found.get(name)
                told = (
                    {"cold start": f"{one['cold start'] / 1000:.2f} s", "memory": f"{one['memory']:.0f} MiB"}
                    if one
                    else {}
                )
                row += [told.get(kind, "") for kind in kinds]
    lines += ["", f"| | {' | '.join([*heads, 'installed'])} |", "|---" * (len(heads) + 2) + "|"]
    lines += [f"| {' | '.join(row)} | {sizes[name]:.0f} MB |" for name, row in rows.items()]
    lines += [f"| {name} | {reason.replace('|', '/')} |" for name, reason in absent.items()]
    return "\n".join(lines).strip()


def arguments() -> argparse.Namespace:
    names = [one.name for one in CONTESTANTS]

    def some(known: list[str]) -> Any:
        def parse(text: str) -> list[str]:
            if unknown := set(text.split(",")) - set(known):
                raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}; found {', '.join(unknown)}")
            return [one for one in known if one in text.split(",")]

        return parse

    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=some(names), default=names, metavar="NAMES", help=",".join(names))
    parser.add_argument("--networks", type=some(list(NETWORKS)), default=list(NETWORKS), help=",".join(NETWORKS))
    parser.add_argument("--workers", type=some(["1", "2"]), default=["1", "2"], help="1,2")
    parser.add_argument("--seconds", type=int, default=3, help="seconds per load [3]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all contestants [3]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to FILE")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    for program, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            sys.exit(f"{program} generates or places the load and is not installed: apt-get install {package}")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("expected two cores, one to serve on and one to ask from; found one")
    workers = [int(count) for count in options.workers]
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as name:
        networks = [Network(network, Path(name)) for network in options.networks]
        contestants, absent = able(options.only, networks, max(workers))
        figures = measure(contestants, networks, workers, options.rounds, options.seconds)
    sizes = {one.name: installed_megabytes(one, ROOT) for one in contestants}
    if options.json:
        figures, sizes = kept(options.json, figures, sizes)
    print(f"Medians of {options.rounds} alternating rounds of {options.seconds} s; ratios are to the naive service,")
    print(f"times are p50 / p99; {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}\n")
    print(tables(figures, sizes, absent))


def kept(path: Path, figures: Figures, sizes: dict[str, float]) -> tuple[Figures, dict[str, float]]:
    """Merge the figures with those in `path` and write them back."""
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"figures": {}, "installed": {}}
    for network, by_workers in figures.items():
        for workers, found in by_workers.items():
            told["figures"].setdefault(network, {}).setdefault(workers, {}).update(found)
    told["installed"].update(sizes)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told["figures"], told["installed"]


if __name__ == "__main__":
    main()
