"""A peer of the MNIST benchmark: train the layers of an example job in scikit-learn or PyTorch, and time it.

    python mnist.py scikit-learn|torch mnist|mnist-conv ROWS.npz

ROWS.npz holds x, y, x_test, y_test, epochs and batch_size. The last line is `{"seconds": ..., "accuracy": ...}`.
scikit-learn trains with its defaults, Adam among them; PyTorch with Adam and a cosine schedule, as the jobs do.
"""

from __future__ import annotations

import json
import sys
import warnings
from time import process_time
from typing import Any

import numpy as np

Rows = dict[str, Any]


def scikit_learn(rows: Rows) -> tuple[float, float]:
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    warnings.simplefilter("ignore")  # that it has not converged after so many epochs
    network = MLPClassifier(
        (256, 128), batch_size=int(rows["batch_size"]), max_iter=int(rows["epochs"]), random_state=0
    )
    begin = process_time()
    network.fit(rows["x"], rows["y"])
    seconds = process_time() - begin
    return seconds, float(network.score(rows["x_test"], rows["y_test"]))


def torch(rows: Rows, job: str) -> tuple[float, float]:
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    torch.manual_seed(0)
    torch.set_num_threads(1)
    dense = [nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.2)]
    network = nn.Sequential(*dense, nn.Linear(128, 10))
    x, y, x_test = (torch.from_numpy(rows[name]) for name in ("x", "y", "x_test"))
    if job == "mnist-conv":
        first = [nn.Conv2d(1, 16, 3), nn.MaxPool2d(2), nn.ReLU()]
        second = [nn.Conv2d(16, 32, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()]
        network = nn.Sequential(*first, *second, nn.Linear(800, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))
        x, x_test = x.reshape(-1, 1, 28, 28), x_test.reshape(-1, 1, 28, 28)
    epochs, size = int(rows["epochs"]), int(rows["batch_size"])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.002, fused=True)
    steps = epochs * -(-len(x) // size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    begin = process_time()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(size):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    seconds = process_time() - begin
    with torch.no_grad():
        answers = torch.cat([network.eval()(part) for part in x_test.split(1000)]).argmax(1).numpy()
    return seconds, float((answers == rows["y_test"]).mean())


def main() -> None:
    name, job, path = sys.argv[1:]
    with np.load(path) as archive:
        rows = dict(archive)
    seconds, accuracy = scikit_learn(rows) if name == "scikit-learn" else torch(rows, job)
    print(json.dumps({"seconds": seconds, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
