"""Optimizer steps compared with PyTorch's and JAX's: µs per step on one vector of float32 parameters, one thread.

    PEERS_PYTHON -m benchmarks.optimizers

PEERS_PYTHON is the interpreter of an environment with PyTorch and JAX, which `make bench-training` creates. Their
parameters are one array too. JAX has no optimizers of its own: it compiles the formulas, and reuses the memory of what
it replaces. Ours steps as `train` does; its gradients come multiplied by `gradient_scale`, which costs `train` nothing.
"""

import os
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.rounds import alternate, unpin
from model_store.nn import Linear, Sequential
from training import SGD, Adam, AdamW, Optimizer, RMSProp

ROUNDS = 9
SECONDS = 0.02  # a round
SIZES = [9, 4_129, 84_060, 6_315_018]  # of 2-3-1, 30-64-32-1, 784-100-50-10 and 1024-2048-2048-10


def momentum_step(w: Any, g: Any, v: Any) -> tuple[Any, ...]:
    v = 0.9 * v + g
    return w - 0.01 * v, v


def rmsprop_step(w: Any, g: Any, v: Any) -> tuple[Any, ...]:
    v = 0.99 * v + 0.01 * g * g
    return w - 0.01 * g / (jnp.sqrt(v) + 1e-8), v


def adam_step(w: Any, g: Any, m: Any, v: Any, t: Any, decay: float = 0.0) -> tuple[Any, ...]:
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    step = m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w - 0.001 * (decay * w + step), m, v, t + 1


Case = tuple[
    Callable[[Any], Optimizer], Callable[..., torch.optim.Optimizer], dict[str, float], Callable[..., tuple[Any, ...]]
]
CASES: dict[str, Case] = {
    "sgd, plain": (partial(SGD, momentum=0.0), torch.optim.SGD, {"lr": 0.01}, lambda w, g: (w - 0.01 * g,)),
    "sgd": (SGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}, momentum_step),
    "rmsprop": (RMSProp, torch.optim.RMSprop, {"lr": 0.01}, rmsprop_step),
    "adam": (Adam, torch.optim.Adam, {"lr": 0.001}, adam_step),
    "adamw": (AdamW, torch.optim.AdamW, {"lr": 0.001}, partial(adam_step, decay=0.01)),
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


def jax_step(update: Callable[..., tuple[Any, ...]], w: Any, g: Any, slots: int) -> Callable[[], object]:
    """Return a step of the compiled formula, whose arguments but the gradients are replaced in place."""
    state = [jnp.array(w), *(jnp.zeros_like(w) for _ in range(min(slots, 2))), *([jnp.float32(1)] if slots > 2 else [])]
    gradients = jnp.array(g)
    compiled = jax.jit(lambda state, g: list(update(state[0], g, *state[1:])), donate_argnums=0, keep_unused=True)

    def step() -> object:
        nonlocal state
        state = compiled(state, gradients)
        return jax.block_until_ready(state)

    return step


def contestants(name: str, size: int) -> dict[str, Callable[[], dict[str, float]]]:
    rng = np.random.default_rng(0)
    ours, theirs, options, formula = CASES[name]
    network = Sequential([Linear(size - 1, 1, rng=rng)])
    optimizer = ours(network)
    optimizer.gradients[0][:] = rng.standard_normal(size)
    found = {"ours": timed(optimizer.scaled_step)}
    for kind in ("foreach", "fused"):
        parameters = torch.from_numpy(rng.standard_normal(size).astype(np.float32)).requires_grad_()
        parameters.grad = torch.from_numpy(rng.standard_normal(size).astype(np.float32))
        try:
            peer = theirs([parameters], **options, **{kind: True})
        except (RuntimeError, TypeError):  # PyTorch has no fused RMSprop
            continue
        found[kind] = timed(peer.step)
    slots = {"sgd, plain": 0, "sgd": 1, "rmsprop": 1}.get(name, 3)  # Adam's are two, and the number of the step
    w, g = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    found["jax"] = timed(jax_step(formula, w, g, slots))
    return found


def main() -> None:
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # JAX has no setting for one thread
    print(
        f"Optimizer steps, µs, float32, one thread, median of {ROUNDS} alternating rounds; "
        f"PyTorch {torch.__version__}, JAX {jax.__version__}"
    )
    names = ("ours", "foreach", "fused", "jax")
    print(
        f"{'optimizer':>10}{'parameters':>12}"
        + "".join(f"{name:>10}" for name in names)
        + "   to PyTorch's better, to JAX"
    )
    for name in CASES:
        for size in SIZES:
            times = {key: one["time"] for key, one in alternate(contestants(name, size), ROUNDS).items()}
            shown = "".join(f"{times[key]:10,.1f}" if key in times else f"{'-':>10}" for key in names)
            best = min(times[key] for key in ("foreach", "fused") if key in times)
            print(
                f"{name:>10}{size:12,}{shown}   {best / times['ours']:.2f}x {times['jax'] / times['ours']:.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    unpin()
    main()
