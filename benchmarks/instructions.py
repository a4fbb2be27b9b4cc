"""Instructions that a service runs for a request, counted by valgrind: nearly equal at any load of the machine.

    make bench-instructions                                  # installs valgrind and the peers; 10 minutes
    make bench-instructions ARGS="--only ours --networks xor"

One client sends requests over one connection. The count has all user-space instructions of all processes of the
service, so also those of the interpreter and of its libraries, without the kernel's. For Forward Pass a second run
divides it into stages (instruction_stages.py).
"""

from __future__ import annotations

import argparse
import http.client
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from benchmarks.contestants import CONTESTANTS, OURS, ROOT, Contestant, Setting
from benchmarks.instruction_stages import CALIBRATION, PARTS
from benchmarks.serving import NETWORKS, ROWS, Network, check
from benchmarks.serving_process import FailedError, Service, bodies

VGDB, CONTROL = (shutil.which(name) or name for name in ("vgdb", "callgrind_control"))
PEERS = ("naive", "fastapi", "starlette-uvicorn", "starlette-granian")
WARM_UP = 30  # requests, after which caches are filled
FEW, MANY = 10, 30  # requests of two counts: their difference has no connection and no timers
STAGED = 10  # requests that are counted by stage
_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)
_STAGE = re.compile(r"^desc: Trigger: Client Request: (.*)$", re.MULTILINE)


class CountedService(Service):
    """A contestant under callgrind, with one worker."""

    patience_seconds = 300.0

    def __init__(self, contestant: Contestant, setting: Setting, body: bytes) -> None:
        self.dumps = setting.folder / "dumps"
        shutil.rmtree(self.dumps, ignore_errors=True)
        self.dumps.mkdir()
        valgrind = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--instr-atstart=no"]
        super().__init__(contestant, setting, "0-1", body, prefix=[*valgrind, f"--callgrind-out-file={self.dumps}/%p"])
        self._control("--instr=on")

    def send(self, body: bytes, requests: int) -> None:
        """Send requests over one connection, each after the response to the one before."""
        connection = http.client.HTTPConnection("127.0.0.1", self.setting.port, timeout=60)
        with closing(connection):
            for _ in range(requests):
                connection.request("POST", self.contestant.path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    raise FailedError(f"answered {response.status}: {answer[:200]!r}")

    def count(self, body: bytes, requests: int) -> dict[str, list[int]]:
        """Return the counts of so many requests by stage, "" without stages."""
        for path in self.dumps.iterdir():
            path.unlink()
        self._control("--zero")
        self.send(body, requests)
        self._control("--dump")
        found: dict[str, list[int]] = defaultdict(list)
        for path in self.dumps.glob("*.*"):
            text = path.read_text(encoding="utf-8")
            stage = _STAGE.search(text)
            found[stage[1] if stage else ""] += map(int, _TOTAL.findall(text))
        return found

    def _control(self, option: str) -> None:
        listed = subprocess.run([VGDB, "-l"], capture_output=True, text=True, check=False)  # it ends with 1
        mine = set(map(str, self.processes())) & set(re.findall(r"--pid=(\d+)", listed.stdout + listed.stderr))
        subprocess.run([CONTROL, option, *sorted(mine)], capture_output=True, check=True)


def per_request(contestant: Contestant, network: Network) -> dict[int, int]:
    """Return the instructions of a request, by its number of rows."""
    asked = bodies(contestant, network.rows, network.folder)
    found = {}
    with CountedService(contestant, network.setting(1), asked[1].read_bytes()) as service:
        check(service, network, asked)
        for rows, path in asked.items():
            body = path.read_bytes()
            service.count(body, WARM_UP)
            few, many = (sum(service.count(body, requests)[""]) for requests in (FEW, MANY))
            found[rows] = (many - few) // (MANY - FEW)
    return found


def _patient(*, stages: bool = False) -> Contestant:
    """Return our service without its limit of the time in a queue, which would be exceeded under valgrind."""
    more = {"PYTHONPATH": str(ROOT), "SERVE_POLL_SECONDS": "3600", "BENCH_STAGES": "1" if stages else ""}
    return replace(
        OURS,
        command=lambda setting: ["python", "-m", "benchmarks.instruction_stages", *OURS.command(setting)[1:]],
        environ=lambda setting: {**OURS.environ(setting), **more},
    )


def by_stage(network: Network) -> dict[int, dict[str, int]]:
    """Return the instructions of each stage of our service, by the number of rows."""
    contestant = _patient(stages=True)
    asked = bodies(contestant, network.rows, network.folder)
    found = {}
    with CountedService(contestant, network.setting(1), asked[1].read_bytes()) as service:
        for rows, path in asked.items():
            body = path.read_bytes()
            service.count(body, WARM_UP)
            counts = service.count(body, STAGED)
            marks = fmean(counts[CALIBRATION])  # the instructions of the marks around a count
            found[rows] = {name: int(sum(counts[name]) - marks * len(counts[name])) // STAGED for name in PARTS}
    return found


def main() -> None:
    names = [one.name for one in CONTESTANTS if one is OURS or one.name in PEERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(names), metavar="NAMES", help=",".join(names))
    parser.add_argument("--networks", default=",".join(NETWORKS), help=",".join(NETWORKS))
    options = parser.parse_args()
    if shutil.which("callgrind_control") is None:
        sys.exit("valgrind counts the instructions and is not installed: apt-get install valgrind")
    contestants = [one for one in CONTESTANTS if one.name in options.only.split(",")]
    with tempfile.TemporaryDirectory(prefix="bench-instructions-") as name:
        networks = [Network(network, Path(name)) for network in options.networks.split(",")]
        columns = [(network, rows) for network in networks for rows in ROWS]
        print(f"Instructions of a request, in thousands; Python {sys.version.split()[0]}\n")
        heads = [f"{NETWORKS[network.name][0]}, {rows} row{'s' * (rows > 1)}" for network, rows in columns]
        print(f"| | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|", flush=True)
        for contestant in contestants:
            try:
                found = {
                    network: per_request(_patient() if contestant is OURS else contestant, network)
                    for network in networks
                }
            except FailedError as e:
                print(f"| {contestant.name} | {e} |", flush=True)
                continue
            cells = [f"{found[network][rows] / 1000:,.0f}" for network, rows in columns]
            print(f"| {contestant.name} | {' | '.join(cells)} |", flush=True)
        if OURS in contestants:
            stages = {network: by_stage(network) for network in networks}
            print(f"\n| stage | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|")
            for part in PARTS:
                cells = [f"{stages[network][rows][part] / 1000:,.1f}" for network, rows in columns]
                print(f"| {part} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
