"""Data-parallel training: the parts of a batch, and the bits that several ranks learn."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.nn import Array, BatchNorm, Dropout, Linear, Sequential, Tanh
from tests.training.threads_mpi import ThreadCommunicator, run_ranks
from training.engine.checkpoint import Checkpoint, InterruptedTrainingError
from training.engine.data_parallel import EXACT_PARTS, DataParallel
from training.engine.loop import train
from training.losses import MSE
from training.optim.lr_schedulers import OnPlateau
from training.optim.optimizers import Adam

RNG = np.random.default_rng(3)
X = RNG.standard_normal((150, 5)).astype(np.float32)
Y = np.stack([X[:, 0] * X[:, 1], X.sum(axis=1)], axis=1)


def make_network(dropout: float = 0.0) -> Sequential:
    rng = np.random.default_rng(7)
    hidden = [Dropout(dropout, rng=rng)] if dropout else []
    return Sequential([Linear(5, 16, rng=rng), Tanh(), *hidden, Linear(16, 2, rng=rng)])


def learn(
    communicator: ThreadCommunicator | None,
    *,
    exact: bool = True,
    dropout: float = 0.0,
    epochs: int = 3,
    interrupted: Callable[[], bool] = lambda: False,
    checkpoint: Checkpoint | None = None,
) -> tuple[bytes, list[float]]:
    """Return the parameters and the losses after batches of 32 and a last one of 22."""
    network = make_network(dropout)
    parallel = DataParallel(communicator, exact=exact, interrupted=interrupted)
    optimizer = Adam(network, 0.01)
    schedule = OnPlateau(patience=0, threshold=0.5, decay=0.5)
    errors = train(
        network, X, Y, MSE(), optimizer, epochs, 32,
        rng=np.random.default_rng(9), on_epoch=None, schedule=schedule, parallel=parallel, checkpoint=checkpoint,
    )  # fmt: skip
    return b"".join(array.tobytes() for array in network.parameters()), errors


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 8])
def test_exact_ranks_learn_the_bits_of_one_process(ranks: int, dropout: float) -> None:
    alone = learn(None, dropout=dropout)
    assert set(map(str, run_ranks(ranks, lambda rank: learn(rank, dropout=dropout)))) == {str(alone)}


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_fast_ranks_learn_what_one_process_learns_to_1e_5(ranks: int) -> None:
    network = make_network()
    schedule = OnPlateau(patience=0, threshold=0.5, decay=0.5)
    alone = train(
        network, X, Y, MSE(), Adam(network, 0.01), 3, 32,
        rng=np.random.default_rng(9), on_epoch=None, schedule=schedule,
    )  # fmt: skip
    expected = np.concatenate([array.reshape(-1) for array in network.parameters()])
    found = run_ranks(ranks, lambda rank: learn(rank, exact=False))
    assert len({parameters for parameters, _ in found}) == 1
    np.testing.assert_allclose(np.frombuffer(found[0][0], np.float32), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[0][1], alone, rtol=1e-5)


@given(ranks=st.integers(1, EXACT_PARTS), exact=st.booleans(), rows=st.integers(1, 300), batch_size=st.integers(1, 64))
def test_every_row_belongs_to_one_rank(ranks: int, exact: bool, rows: int, batch_size: int) -> None:
    found = []
    for rank in range(ranks):
        communicator: Any = ThreadCommunicator(rank, ranks, None, [])  # type: ignore[arg-type]
        parallel = DataParallel(communicator, exact=exact)
        own = parallel.rows_of(parallel.own, rows, batch_size)
        parts = [parallel.rows_of(range(part, part + 1), rows, batch_size) for part in parallel.own]
        assert sorted(own) == sorted(np.concatenate(parts)) == list(own)
        found.append(own)
    assert sorted(np.concatenate(found)) == list(range(rows))


class StoppedCheckpoint(Checkpoint):
    """A checkpoint whose training is told to stop after so many steps."""

    def __init__(self, path: Path, steps: int, *, waiting: bool) -> None:
        super().__init__(path, {}, seconds=1e9)
        self.steps, self.waiting, self.asked = steps, waiting, False

    def due(self) -> bool:
        self.steps -= 1
        if self.steps == 0 and not self.waiting:
            self._signal = signal.SIGTERM
        return super().due()

    @property
    def interrupted(self) -> bool:
        if self.steps == 0 and self.waiting:
            self._signal = signal.SIGTERM
        return super().interrupted


class SlowRequest:
    """An exchange that is complete when it is asked for the second time."""

    def __init__(self) -> None:
        self.asked = 0

    def Test(self) -> bool:  # noqa: N802
        self.asked += 1
        return self.asked > 1


class SlowCommunicator(ThreadCommunicator):
    def Iallgatherv(self, sendbuf: Array, recvbuf: Any) -> Any:  # noqa: N802
        super().Iallgatherv(sendbuf, recvbuf)
        return SlowRequest()


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("ranks", [1, 4])
def test_a_training_resumes_on_another_number_of_ranks(tmp_path: Path, ranks: int, waiting: bool) -> None:
    """Stopped between two steps, or while the main rank waits for the others: of that step nothing is kept."""
    path = tmp_path / "job.checkpoint.npz"

    def begin(rank: ThreadCommunicator) -> None:
        rank = SlowCommunicator(rank.rank, rank.size, rank.barrier, rank.sent)
        if rank.rank:
            learn(rank, dropout=0.3, epochs=5)
            return
        checkpoint = StoppedCheckpoint(path, 7, waiting=waiting)
        learn(rank, dropout=0.3, epochs=5, checkpoint=checkpoint, interrupted=lambda: checkpoint.interrupted)

    with pytest.raises(InterruptedTrainingError, match="SIGTERM"):
        run_ranks(2, begin)

    def resume(rank: ThreadCommunicator) -> tuple[bytes, list[float]]:
        checkpoint = Checkpoint(path, {}, resume=True, seconds=0) if rank.rank == 0 else None
        return learn(rank, dropout=0.3, epochs=5, checkpoint=checkpoint)

    assert set(map(str, run_ranks(ranks, resume))) == {str(learn(None, dropout=0.3, epochs=5))}


def test_several_ranks_save_before_the_first_step(tmp_path: Path) -> None:
    """If the main rank is killed, there is a training to resume, however short it was."""
    saved: list[int] = []

    class Counted(Checkpoint):
        def save(self) -> None:
            super().save()
            saved.append(int(self._parts["training"].state()["steps"]))

    def work(rank: ThreadCommunicator) -> None:
        learn(rank, checkpoint=None if rank.rank else Counted(tmp_path / "job.checkpoint.npz", {}, seconds=1e9))

    run_ranks(2, work)
    assert saved == [0]


def test_batch_norm_is_refused() -> None:
    network = Sequential([Linear(5, 4), BatchNorm(4), Linear(4, 2)])
    with pytest.raises(ValueError, match="BatchNorm needs the statistics of whole batches"):
        train(network, X, Y, MSE(), Adam(network), 1, 32, parallel=DataParallel(exact=True))


def test_more_ranks_than_parts_are_refused() -> None:
    communicator: Any = ThreadCommunicator(8, 9, None, [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="divides a batch into 8 parts, found 9 ranks"):
        DataParallel(communicator, exact=True)
