"""One contestant of the training benchmark: a process that prepares a case and trains and times it on request.

    python contestant.py NAME THREADS

Reads a line of JSON a command and answers with one: `{"prepare": case}`, then any number of `{"measure": true}`, whose
answer is the seconds of `epochs` epochs. A case is `{"sizes", "rows", "batch", "epochs"}`. All contestants get the
same rows and do the same work in float32: shuffled batches (one batch of all rows is not shuffled: it has no order; but
scikit-learn knows no other way), ReLU layers (tanh for networks of 2 inputs), the mean loss
of every epoch; cross-entropy where there are 10 outputs, squared error elsewhere; SGD with momentum 0.9. The first
weights are each library's own, which changes nothing about the work.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

NAME, THREADS = sys.argv[1], int(sys.argv[2])
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(THREADS)
if NAME == "jax":
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if THREADS > 1 else 'false'}"

import numpy as np  # noqa: E402  # after the number of threads is set

RATE, MOMENTUM = 0.001, 0.9
Case = dict[str, Any]
Epochs = Callable[[int], float]


def rows_of(case: Case) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    inputs, outputs = case["sizes"][0], case["sizes"][-1]
    x = rng.random((case["rows"], inputs), np.float32)
    if outputs == 10:
        return x, rng.integers(0, 10, case["rows"])
    return x, rng.random((case["rows"], outputs), np.float32)


def ours(case: Case, _: str) -> Epochs:
    from model_store.nn import Linear, Module, ReLU, Sequential, Softmax, Tanh  # noqa: PLC0415
    from training import MSE, SGD, CrossEntropy, train  # noqa: PLC0415

    x, y = rows_of(case)
    rng = np.random.default_rng(1)
    tanh, classes = case["sizes"][0] == 2, case["sizes"][-1] == 10
    layers: list[Module] = []
    for inputs, outputs in pairwise(case["sizes"]):
        layers += [Linear(inputs, outputs, rng=rng, initializer="he_normal"), Tanh() if tanh else ReLU()]
    if not tanh:
        layers = [*layers[:-1], Softmax()] if classes else layers[:-1]
    network = Sequential(layers)
    optimizer = SGD(network, RATE, MOMENTUM)
    loss = CrossEntropy() if classes else MSE()
    return lambda epochs: train(network, x, y, loss, optimizer, epochs, case["batch"], rng=rng, on_epoch=None)[-1]


def torch(case: Case, variant: str) -> Epochs:
    import torch  # noqa: PLC0415

    torch.set_num_threads(THREADS)
    x, y = map(torch.from_numpy, rows_of(case))
    tanh, classes = case["sizes"][0] == 2, case["sizes"][-1] == 10
    layers: list[Any] = []
    for inputs, outputs in pairwise(case["sizes"]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh() if tanh else torch.nn.ReLU()]
    network = torch.nn.Sequential(*(layers if tanh else layers[:-1]))
    options = {"fused": {"fused": True}, "foreach": {"foreach": True}}.get(variant, {})
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM, **options)
    loss = torch.nn.CrossEntropyLoss() if classes else torch.nn.MSELoss()
    rows, batch = case["rows"], case["batch"]

    def run(epochs: int) -> float:
        error = 0.0
        for _ in range(epochs):
            total = 0.0
            order = torch.randperm(rows) if batch < rows else None
            for start in range(0, rows, batch):
                chosen = slice(None) if order is None else order[start : start + batch]
                xs, ys = x[chosen], y[chosen]
                found = loss(network(xs), ys)
                found.backward()
                optimizer.step()
                optimizer.zero_grad()
                total += found.item() * len(xs)
            error = total / rows
        return error

    return run


def scikit_learn(case: Case, _: str) -> Epochs:
    from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: PLC0415

    x, y = rows_of(case)
    tanh, classes = case["sizes"][0] == 2, case["sizes"][-1] == 10
    kind = MLPClassifier if classes else MLPRegressor

    def run(epochs: int) -> float:
        network = kind(
            hidden_layer_sizes=case["sizes"][1:-1],
            activation="tanh" if tanh else "relu",
            solver="sgd",
            batch_size=min(case["batch"], case["rows"]),
            learning_rate_init=RATE,
            momentum=MOMENTUM,
            nesterovs_momentum=False,
            alpha=0.0,
            max_iter=epochs,
            n_iter_no_change=epochs,
            tol=0.0,
        )
        network.fit(x, y if classes else y[:, 0])
        return float(network.loss_)

    return run


def jax(case: Case, _: str) -> Epochs:
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    x, y = rows_of(case)
    tanh, classes = case["sizes"][0] == 2, case["sizes"][-1] == 10
    rng = np.random.default_rng(1)
    weights = [
        (jnp.asarray(rng.standard_normal((i, o), np.float32) * np.float32(0.1)), jnp.zeros(o, jnp.float32))
        for i, o in pairwise(case["sizes"])
    ]
    held = [weights, jax.tree.map(jnp.zeros_like, weights)]

    def loss(weights: Any, xs: Any, ys: Any) -> Any:
        for i, (w, b) in enumerate(weights):
            xs = xs @ w + b
            if tanh:
                xs = jnp.tanh(xs)
            elif i < len(weights) - 1:
                xs = jnp.maximum(xs, 0)
        if classes:
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(xs), ys[:, None], axis=1))
        return jnp.mean((xs - ys) ** 2)

    @jax.jit
    def step(weights: Any, velocities: Any, xs: Any, ys: Any) -> Any:
        error, slopes = jax.value_and_grad(loss)(weights, xs, ys)
        velocities = jax.tree.map(lambda v, g: MOMENTUM * v - RATE * g, velocities, slopes)
        return jax.tree.map(jnp.add, weights, velocities), velocities, error

    def run(epochs: int) -> float:
        error = 0.0
        for _ in range(epochs):
            total = 0.0
            order = rng.permutation(case["rows"]) if case["batch"] < case["rows"] else None
            for start in range(0, case["rows"], case["batch"]):
                chosen = slice(None) if order is None else order[start : start + case["batch"]]
                xs = x[chosen]
                *held[:], found = step(*held, xs, y[chosen])
                total += float(found) * len(xs)
            error = total / case["rows"]
        return error

    return run


def sgemm_peak() -> float:
    """Return the GF/s of NumPy's product of two large matrices: the limit of the machine."""
    a, b, out = (np.random.default_rng(i).random((1536, 1536), np.float32) for i in range(3))
    best = 0.0
    for _ in range(5):
        begin = perf_counter()
        np.matmul(a, b, out)
        best = max(best, 2 * 1536**3 / (perf_counter() - begin) / 1e9)
    return best


CONTESTANTS = {"forward pass": ours, "torch": torch, "scikit-learn": scikit_learn, "jax": jax}


def main() -> None:
    warnings.simplefilter("ignore")  # of scikit-learn's, that so few epochs do not converge
    name, _, variant = NAME.partition("/")
    run: Epochs | None = None
    case: Case = {}
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if "prepare" in command:
            case = command["prepare"]
            run = CONTESTANTS[name](case, variant)
            run(1)
            answer["peak"] = sgemm_peak() if command.get("peak") else None
        elif run is not None:
            begin = perf_counter()
            error = run(case["epochs"])
            answer = {"seconds": perf_counter() - begin, "error": error}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
