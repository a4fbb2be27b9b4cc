"""Loading a 100 MB model in two processes: our memory map against `np.load` of the same file.

    python -m benchmarks.loading

A process reads every array and answers one row; the time is until then, the memory the sum over both
processes of PSS, in which a page shared by two counts half for each. The file is in the page cache for all.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.rounds import alternate, unpin
from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential, build
from model_store.schema.signature import ArrayColumn, RegressionOutput, Signature

ROUNDS = 7
PROCESSES = 2
SIZES = [64, 4950, 4950, 10]  # 25 million float32 parameters


def np_load(path: str) -> Sequential:
    with np.load(path) as file:
        config = json.loads(file["__manifest__"].tobytes())["layers"]
        arrays = {name: file[name] for name in file.files if name.startswith("modules.")}
    return build(config, np.float32, arrays=arrays)


READERS: dict[str, Callable[[str], Sequential]] = {
    "np.load": np_load,
    "mapped, verified": lambda path: npz.read(path, mapped=True).network,
    "mapped": lambda path: npz.read(path, verify=False, mapped=True).network,
}


def write_model(path: Path, sizes: list[int] = SIZES) -> None:
    rng = np.random.default_rng(0)
    network = Sequential([Linear(inn, out, rng=rng, initializer="glorot_uniform") for inn, out in pairwise(sizes)])
    outputs = tuple(f"y{i}" for i in range(sizes[-1]))
    signature = Signature(
        (ArrayColumn("x", (sizes[0],), 0.0, 1.0, None, None, {}),),
        RegressionOutput(outputs, (0.0,) * len(outputs), (1.0,) * len(outputs)),
    )
    npz.write(path, Model(network, signature))


def child(reader: str, path: str) -> None:
    """Read the model, predict one row, print the milliseconds, and hold everything until stdin closes."""
    begin = perf_counter()
    network = READERS[reader](path)
    read = perf_counter()
    network(np.ones((1, network.input_size), np.float32))
    told = {"read": 1000 * (read - begin), "answered": 1000 * (perf_counter() - begin)}
    print(json.dumps(told), flush=True)
    sys.stdin.read()


def pss_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(reader: str, path: Path) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.loading", reader, str(path)]
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as in a worker of the service
    processes = [
        subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    told = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
    memory = sum(pss_megabytes(process.pid) for process in processes)
    for process in processes:
        process.communicate()
    return {"memory": memory, **{key: max(one[key] for one in told) for key in told[0]}}


def main() -> None:
    print(f"Loading a 100 MB model in {PROCESSES} processes, median of {ROUNDS} alternating rounds")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        write_model(path)
        found = alternate({reader: partial(measure, reader, path) for reader in READERS}, ROUNDS)
    print(f"{'reader':>18} {'read':>9} {'answered':>9} {'memory':>9}   relative to np.load")
    peer = found["np.load"]
    for reader, one in found.items():
        ratios = "  ".join(f"{key} {one[key] / peer[key]:.2f}x" for key in ("read", "answered", "memory"))
        times = f"{one['read']:>6.0f} ms {one['answered']:>6.0f} ms"
        print(f"{reader:>18} {times} {one['memory']:>6.0f} MB   {ratios}")


if __name__ == "__main__":
    unpin()
    if len(sys.argv) > 1:
        child(*sys.argv[1:])
    else:
        main()
