"""The training loop equals the article's: the same errors to nine digits, and the same program."""

import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest

from model_store.nn import (
    GELU,
    Array,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from training import (
    MAE,
    MSE,
    SGD,
    Adam,
    BinaryCrossEntropy,
    CrossEntropy,
    DivergedError,
    Huber,
    Loss,
    Optimizer,
    RMSProp,
    WarmUp,
    train,
)
from training.engine.data_parallel import DataParallel
from training.engine.loop import Samples, TrainingState

XOR_X = [[0, 0], [0, 1], [1, 0], [1, 1]]
XOR_Y = [[0], [1], [1], [0]]


def xor_network(seed: int, dtype: type = np.float32) -> Sequential:
    rng = np.random.default_rng(seed)
    return Sequential([Linear(2, 3, dtype=dtype, rng=rng), Tanh(), Linear(3, 1, dtype=dtype, rng=rng), Tanh()])


def article_errors(network: Sequential, epochs: int, learning_rate: float, momentum: float) -> list[float]:
    """The article's formulas for XOR for one column vector at a time, independent of the library."""
    w1, b1, w2, b2 = (np.array(p, np.float64).reshape(len(p), -1) for p in network.parameters())
    speeds = [np.zeros_like(p) for p in (w1, b1, w2, b2)]
    errors = []
    for _ in range(epochs):
        total = 0.0
        for row, target in zip(XOR_X, XOR_Y, strict=True):
            x, y = np.array(row, np.float64).reshape(2, 1), float(target[0])
            h = np.tanh(w1 @ x + b1)
            out = np.tanh(w2 @ h + b2)
            total += (y - out.item()) ** 2
            d2 = 2 * (out - y) * (1 - out**2)
            d1 = (w2.T @ d2) * (1 - h**2)
            for p, v, g in zip((w1, b1, w2, b2), speeds, (d1 @ x.T, d1, d2 @ h.T, d2), strict=True):
                v[...] = momentum * v - learning_rate * g
                p += v
        errors.append(total / len(XOR_X))
    return errors


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_xor_errors_equal_the_articles_to_nine_digits(momentum: float) -> None:
    network = xor_network(1, np.float64)
    expected = article_errors(network, 1000, 0.01, momentum)
    found = train(network, XOR_X, XOR_Y, MSE(), SGD(network, 0.01, momentum), 1000, on_epoch=None)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_xor_is_learned_from_ten_seeds() -> None:
    finals = []
    for seed in range(10):
        network = xor_network(seed)
        finals.append(train(network, XOR_X, XOR_Y, MSE(), SGD(network), 1000, on_epoch=None)[-1])
    assert np.median(finals) <= 0.001


PROGRAM = """
import numpy as np
from model_store.nn import Linear, Sequential, Tanh
from training import MSE, SGD
from training import trainer

x_train = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]).reshape((4, 2, 1))
y_train = np.array([[0], [1], [1], [0]]).reshape((4, 1, 1))

model = Sequential([
    Linear(2, 3),
    Tanh(),
    Linear(3, 1),
    Tanh(),
])

trainer.train(
    model,
    x_train,
    y_train,
    MSE(),
    SGD(model),
    epochs=1000,
)

for x in x_train:
    print(x.tolist(), model.forward(x).tolist())
"""


def test_the_articles_program_runs_and_prints_the_same() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 1004
    assert lines[0].startswith("1/1000 error=")
    assert lines[999].startswith("1000/1000 error=0.")
    for line, expected in zip(
        lines[1000:], ("[[0], [0]] [[", "[[0], [1]] [[", "[[1], [0]] [[", "[[1], [1]] [["), strict=True
    ):
        assert line.startswith(expected)
        assert line.endswith("]]")


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batch_size_selects_the_variant_of_gradient_descent(batch_size: int) -> None:
    """A step takes the mean gradient of its batch: checked against the sum of single samples."""
    network, by_hand = xor_network(2, np.float64), xor_network(2, np.float64)
    train(network, XOR_X, XOR_Y, MSE(), SGD(network, 0.1, 0.9), 2, batch_size, on_epoch=None)
    optimizer, mse = SGD(by_hand, 0.1, 0.9), MSE()
    for _ in range(2):
        for start in range(0, 4, batch_size):
            rows = list(zip(XOR_X, XOR_Y, strict=True))[start : start + batch_size]
            for x, y in rows:
                output = by_hand.forward(np.array([x]))
                by_hand.backward(mse.loss_prime(np.array([y]), output) / len(rows))
            optimizer.step()
            optimizer.zero_gradients()
    np.testing.assert_allclose(network.parameter_vector, by_hand.parameter_vector, rtol=1e-12)


def test_columns_and_rows_train_alike() -> None:
    rows, columns = xor_network(3), xor_network(3)
    x, y = np.array(XOR_X), np.array(XOR_Y)
    one = train(rows, x, y, MSE(), SGD(rows), 20, on_epoch=None)
    two = train(columns, x.reshape(4, 2, 1), y.reshape(4, 1, 1), MSE(), SGD(columns), 20, on_epoch=None)
    assert one == two


def test_only_the_generator_shuffles() -> None:
    def run(seed: int) -> list[float]:
        network = xor_network(4)
        return train(network, XOR_X, XOR_Y, MSE(), SGD(network), 5, rng=np.random.default_rng(seed), on_epoch=None)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_class_numbers_are_one_hot_targets() -> None:
    def run(targets: object) -> list[float]:
        rng = np.random.default_rng(5)
        network = Sequential([Linear(2, 3, rng=rng), Softmax()])
        return train(network, XOR_X, targets, CrossEntropy(), SGD(network), 5, 2, on_epoch=None)

    assert run([0, 1, 2, 1]) == run(np.eye(3)[[0, 1, 2, 1]])
    with pytest.raises(ValueError, match="class numbers from 0 to 2"):
        run([0, 1, 3, 1])


def test_a_loss_that_is_not_finite_stops_with_epoch_and_step() -> None:
    network = Sequential([Linear(1, 1, rng=np.random.default_rng(0))])
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match=r"epoch \d+, step 2: try a smaller") as caught:
        train(network, [[1.0], [1000.0]], [[1.0], [-1000.0]], MSE(), SGD(network, 10.0), 100, on_epoch=None)
    assert caught.value.step == 2
    assert not np.isfinite(caught.value.loss)


def test_on_epoch_is_called_every_epoch_and_may_end_the_training() -> None:
    seen: list[tuple[int, int]] = []

    def on_epoch(epoch: int, epochs: int, error: float) -> bool:
        assert error > 0
        seen.append((epoch, epochs))
        return epoch == 3

    network = xor_network(6)
    assert len(train(network, XOR_X, XOR_Y, MSE(), SGD(network), 10, on_epoch=on_epoch)) == 3
    assert seen == [(1, 10), (2, 10), (3, 10)]


def test_an_error_names_targets_that_do_not_fit() -> None:
    network = xor_network(7)
    with pytest.raises(ValueError, match="as many targets as samples and at least one, found 3 and 4"):
        train(network, XOR_X, XOR_Y[:3], MSE(), SGD(network), 1)
    with pytest.raises(ValueError, match=r"expected y_train of shape \(samples, 1\), found \(4, 2\)"):
        train(network, XOR_X, XOR_X, MSE(), SGD(network), 1)
    with pytest.raises(ValueError, match="batch_size of at least 1, found 0"):
        train(network, XOR_X, XOR_Y, MSE(), SGD(network), 1, 0)


@pytest.mark.parametrize(("loss", "ending"), [(CrossEntropy(), "Softmax"), (BinaryCrossEntropy(), "Sigmoid")])
def test_logits_are_rejected_where_a_loss_expects_probabilities(loss: Loss, ending: str) -> None:
    """Other libraries' cross-entropies apply the softmax themselves; here the loss would fall below 0 without end."""
    network = Sequential([Linear(2, 2)])
    with pytest.raises(ValueError, match=rf"found a network that ends in Linear; add {ending}\(\)"):
        train(network, XOR_X, XOR_X, loss, SGD(network), 1)


def test_cross_entropy_needs_two_outputs_and_targets_of_at_least_0() -> None:
    """The cross-entropy of one output only asks for ones: its network would learn to answer 1 to everything."""
    one, two = Sequential([Linear(2, 1), Sigmoid()]), Sequential([Linear(2, 2), Softmax()])
    with pytest.raises(ValueError, match="expected two outputs or more for CrossEntropy, found 1; use Binary"):
        train(one, XOR_X, XOR_Y, CrossEntropy(), SGD(one), 1)
    with pytest.raises(ValueError, match=r"expected targets of at least 0 for CrossEntropy; found -1\.0"):
        train(two, XOR_X, [[-1, 1]] * 4, CrossEntropy(), SGD(two), 1)
    with pytest.raises(
        ValueError, match=r"shape \(samples, 2\), found \(4, 1\); class numbers are of shape \(samples,\)"
    ):
        train(two, XOR_X, [[0], [1], [1], [0]], CrossEntropy(), SGD(two), 1)


@pytest.mark.parametrize("dtype", ["complex128", "datetime64[s]", "timedelta64[s]", "U3"])
def test_arrays_that_are_not_numbers_are_rejected(dtype: str) -> None:
    numbers = np.arange(4).reshape(2, 2)
    other = numbers.astype(dtype)
    network = Sequential([Linear(2, 2)])
    for name, x, y in (("x_train", other, numbers), ("y_train", numbers, other)):
        with pytest.raises(ValueError, match=f"train: expected numbers in {name}, found "):
            train(network, x, y, MSE(), SGD(network), 1)


def test_an_error_names_samples_and_targets_that_are_not_finite() -> None:
    network = Sequential([Linear(2, 1), Sigmoid()])
    hole = np.array([[0.0, 0], [0, 1], [np.nan, 0], [1, 1]])
    with pytest.raises(ValueError, match="expected finite numbers; found nan in sample 2 of x_train"):
        train(network, hole, XOR_Y, MSE(), SGD(network), 1)
    with pytest.raises(ValueError, match="expected finite numbers; found inf in sample 0 of y_train"):
        train(network, XOR_X, [np.inf, 0, 0, 0], MSE(), SGD(network), 1)
    with pytest.raises(ValueError, match=r"targets from 0 to 1 for BinaryCrossEntropy; found -1\.0 to 1\.0"):
        train(network, XOR_X, [-1, 1, 1, -1], BinaryCrossEntropy(), SGD(network), 1)


def test_column_major_samples_are_copied_once_and_not_at_every_step() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.random((4000, 50), np.float32), rng.random((4000, 1), np.float32)
    found, peaks = [], []

    def on_epoch(*_: object) -> None:
        peaks.append(tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0])
        tracemalloc.reset_peak()

    tracemalloc.start()
    for order in ("C", "F"):
        network = Sequential([Linear(50, 1, initializer="zeros")])
        found.append(
            train(
                network, np.asarray(x, order=order), np.asarray(y[::-1], order=order), MSE(), SGD(network), 2, 100,
                rng=np.random.default_rng(1), on_epoch=on_epoch,
            )
        )  # fmt: skip
    tracemalloc.stop()
    assert found[0] == found[1]
    assert peaks[3] < x.nbytes / 2


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 2), (4, 1, 2)])
def test_an_error_names_samples_that_do_not_fit(shape: tuple[int, ...]) -> None:
    network = xor_network(7)
    with pytest.raises(ValueError, match=rf"expected x_train of shape \(samples, 2\), found {re.escape(str(shape))}"):
        train(network, np.zeros(shape), XOR_Y, MSE(), SGD(network), 1)


def test_an_error_names_class_weights_that_do_not_fit() -> None:
    network = Sequential([Linear(2, 3), Softmax()])
    message = r"CrossEntropy\.weights: expected 3 numbers, one for each class; found 2"
    with pytest.raises(ValueError, match=message):
        train(network, XOR_X, [0, 1, 2, 0], CrossEntropy([1, 2]), SGD(network), 1)
    with pytest.raises(ValueError, match=message):
        CrossEntropy([1, 2]).loss(np.eye(3), np.eye(3))


@pytest.mark.parametrize("ends", ["well", "by an exception"])
def test_the_learning_rate_is_restored_however_a_training_ends(ends: str) -> None:
    network = xor_network(7)
    optimizer = SGD(network, 0.1)

    def on_epoch(*_: object) -> None:
        assert optimizer.learning_rate < 0.1
        if ends != "well":
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        train(network, XOR_X, XOR_Y, MSE(), optimizer, 3, on_epoch=on_epoch, schedule=WarmUp(100))
    assert optimizer.learning_rate == 0.1
    assert not any(gradient.any() for gradient in network.gradients())


@pytest.mark.parametrize(("learning_rate", "momentum"), [(0, 0.9), (-1, 0), (0.1, 1), (0.1, -0.1)])
def test_sgd_rejects_invalid_rates(learning_rate: float, momentum: float) -> None:
    with pytest.raises(ValueError, match=r"SGD\.(learning_rate|momentum): expected"):
        SGD(xor_network(0), learning_rate, momentum)


WIDE, BATCH, BATCHES = 256, 512, 4
RNG = np.random.default_rng(8)
LAYERS: dict[str, list[Module]] = {
    "relu": [Linear(64, WIDE), ReLU(), Dropout(0.1, rng=RNG)],
    "leaky relu": [Linear(64, WIDE), LeakyReLU()],
    "tanh": [Linear(64, WIDE), Tanh()],
    "sigmoid": [Linear(64, WIDE), Sigmoid()],
    "gelu": [Linear(64, WIDE), GELU()],
    "norms": [Linear(64, WIDE), BatchNorm(WIDE), LayerNorm(WIDE)],
    "images": [Conv2D((8, 8, 1), WIDE // 9, 3), ReLU(), MaxPool2D((6, 6, WIDE // 9), 2), Flatten((3, 3, WIDE // 9))],
}
LOSSES: list[tuple[Loss, list[Module]]] = [
    (CrossEntropy([1, 2]), [Softmax()]),
    (MSE(), []),
    (MAE(), []),
    (Huber(), []),
    (BinaryCrossEntropy([1, 2]), [Sigmoid()]),
]


@pytest.mark.parametrize(
    ("layers", "loss", "last"),
    [(layers, *LOSSES[i % len(LOSSES)]) for i, layers in enumerate(LAYERS.values())],
    ids=list(LAYERS),
)
@pytest.mark.parametrize("make", [SGD, Adam, RMSProp])
def test_after_the_first_epoch_no_step_allocates(
    layers: list[Module], loss: Loss, last: list[Module], make: Callable[..., Optimizer]
) -> None:
    """Except the order of an epoch, and NumPy's buffer for arrays of different shapes: 8192 numbers."""
    width = 9 * (WIDE // 9) if isinstance(layers[0], Conv2D) else WIDE
    network = Sequential([*layers, Linear(width, 2, initializer="zeros"), *last])
    x, y = (
        RNG.random((BATCH * BATCHES, 64), np.float32),
        np.eye(2, dtype=np.float32)[RNG.integers(0, 2, BATCH * BATCHES)],
    )
    peaks, before = [], 0

    def on_epoch(*_: object) -> None:
        nonlocal before
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    train(network, x, y, loss, make(network, 1e-4, clip_norm=1.0), 3, BATCH, rng=RNG, on_epoch=on_epoch)
    tracemalloc.stop()
    one_layer, order, walking = 4 * BATCH * WIDE, 8 * BATCH * BATCHES, 3 * 4 * 8192
    assert peaks[0] > one_layer
    assert max(peaks[1:]) < order + walking + 10_000 < one_layer / 2


class Pieces(Samples):
    """Samples that arrive in pieces of the given sizes."""

    def __init__(self, x: Array, y: Array, sizes: list[int]) -> None:
        super().__init__(x, y)
        self.ends = np.cumsum(sizes).tolist()

    def epoch_blocks(
        self, state: TrainingState, batch_size: int, parallel: DataParallel | None = None
    ) -> Iterator[tuple[Array, Array, None, int]]:
        for start, end in pairwise([0, *self.ends]):
            yield self.x[start:end], self.y[start:end], None, 0


@pytest.mark.parametrize("width", [6, 65])
def test_learned_bits_do_not_depend_on_the_pieces_of_a_stream(width: int) -> None:
    """A first piece of one batch used to change the memory layout of batches, and the BLAS rounded differently."""
    x = np.random.default_rng(20).standard_normal((150, 5)).astype(np.float32)
    learned = set()
    for sizes in ([150], [50, 100], [100, 50], [50, 50, 50]):
        rng = np.random.default_rng(21)
        network = Sequential([Linear(5, width, rng=rng), Tanh(), Linear(width, 2, rng=rng)])
        train(network, Pieces(x, x[:, :2], sizes), None, MSE(), SGD(network), 3, 50, on_epoch=None)
        learned.add(b"".join(array.tobytes() for array in network.parameters()))
    assert len(learned) == 1
