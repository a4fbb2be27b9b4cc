"""Optimizer steps compared with PyTorch's: µs per step on one vector of float32 parameters, one thread.

    PEERS_PYTHON -m benchmarks.optimizers

PEERS_PYTHON is the interpreter of an environment with PyTorch, which `make bench-training` creates. Its parameters are
one tensor too; the better of its optimizers, foreach or fused, counts.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch

from benchmarks.rounds import alternate, unpin
from model_store.nn import Linear, Sequential
from training import SGD, Adam, AdamW, Optimizer, RMSProp

ROUNDS = 9
SECONDS = 0.02  # a round
SIZES = [9, 4_129, 84_060, 6_315_018]  # of 2-3-1, 30-64-32-1, 784-100-50-10 and 1024-2048-2048-10
CASES: dict[str, tuple[Callable[..., Optimizer], Callable[..., torch.optim.Optimizer], dict[str, float]]] = {
    "sgd": (SGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "rmsprop": (RMSProp, torch.optim.RMSprop, {"lr": 0.01}),
    "adam": (Adam, torch.optim.Adam, {"lr": 0.001}),
    "adamw": (AdamW, torch.optim.AdamW, {"lr": 0.001}),
}


def timed(step: Callable[[], object]) -> Callable[[], dict[str, float]]:
    """Return a function that measures µs per step, over as many steps as fit in a round."""

    def seconds(steps: int) -> float:
        begin = perf_counter()
        for _ in range(steps):
            step()
        return perf_counter() - begin

    steps = max(1, int(SECONDS / (seconds(3) / 3)))
    return lambda: {"time": 1e6 * seconds(steps) / steps}


def contestants(name: str, size: int) -> dict[str, Callable[[], dict[str, float]]]:
    rng = np.random.default_rng(0)
    ours, theirs, options = CASES[name]
    network = Sequential([Linear(size - 1, 1, rng=rng)])
    optimizer = ours(network)
    optimizer.gradients[0][:] = rng.standard_normal(size)
    found = {"ours": timed(optimizer.step)}
    for kind in ("foreach", "fused"):
        parameters = torch.from_numpy(rng.standard_normal(size).astype(np.float32)).requires_grad_()
        parameters.grad = torch.from_numpy(rng.standard_normal(size).astype(np.float32))
        try:
            peer = theirs([parameters], **options, **{kind: True})
        except (RuntimeError, TypeError):  # PyTorch has no fused RMSprop
            continue
        found[kind] = timed(peer.step)
    return found


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"Optimizer steps, µs, float32, one thread, median of {ROUNDS} alternating rounds; PyTorch {torch.__version__}"
    )
    print(f"{'optimizer':>10}{'parameters':>12}{'ours':>10}{'foreach':>10}{'fused':>10}   relative to PyTorch's better")
    for name in CASES:
        for size in SIZES:
            times = {key: one["time"] for key, one in alternate(contestants(name, size), ROUNDS).items()}
            shown = "".join(
                f"{times[key]:10,.1f}" if key in times else f"{'-':>10}" for key in ("ours", "foreach", "fused")
            )
            ratio = min(times[key] for key in times if key != "ours") / times["ours"]
            print(f"{name:>10}{size:12,}{shown}   {ratio:.1f}x")


if __name__ == "__main__":
    unpin()
    main()
