"""The block loader: the order of rows in an epoch, resuming, and the bits that the network trains on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.nn import Linear, Sequential, Tanh
from tests.training.streams import everything, job
from tests.training.threads_mpi import ThreadCommunicator
from training import MSE, SGD, train
from training.data.streaming import record_file
from training.data.streaming.record_file import JoinedRecords
from training.engine.checkpoint import Checkpoint
from training.engine.data_parallel import DataParallel
from training.engine.loop import TrainingState
from training.pipeline import streaming_loader
from training.pipeline.job import from_dict, prepare


def test_every_epoch_has_all_rows_once_in_a_new_order(path: Path) -> None:
    prepared = prepare(job(path))
    expected, _ = everything(prepared)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(2):
        pieces = [
            x.copy() for x, _, order, first in prepared.samples.epoch_blocks(TrainingState(Sequential([]), rng), 50)
        ]
        assert len(pieces) > len(expected) / 512
        assert all(len(piece) % 50 == 0 for piece in pieces[:-1])
        seen.append(np.concatenate(pieces))
    for found in seen:
        assert np.array_equal(np.sort(found.view("V20").ravel()), np.sort(expected.view("V20").ravel()))
    assert not np.array_equal(seen[0], seen[1])
    moved = np.abs(np.argsort(seen[0][:, 1], kind="stable") - np.argsort(expected[:, 1], kind="stable"))
    assert np.median(moved) > len(expected) / 10


def test_buffers_are_reused_but_no_batch_is_trained_on_twice(path: Path) -> None:
    """A batch as large as a piece is the whole buffer: `train` must use its current rows."""
    seen = []

    class Noting(MSE):
        def loss(self, y_true: Any, y_pred: Any) -> float:
            seen.append(y_pred.copy())
            return super().loss(y_true, y_pred)

    prepared = prepare(job(path))
    size = streaming_loader.PIECE_VALUES // prepared.signature.width
    network = Sequential([Linear(5, 2, rng=np.random.default_rng(0))])
    train(network, prepared.samples, None, Noting(), SGD(network, 1e-12), 2, size, on_epoch=None)
    x, _ = everything(prepared)
    assert np.allclose(np.concatenate(seen), np.tile(network(x), (2, 1)), atol=1e-5)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("fatal", [1, 9, 10, 11, 37, 72, 73, 200])
def test_a_streamed_training_resumes_where_it_was_killed(path: Path, tmp_path: Path, fatal: int) -> None:
    prepared = prepare(job(path))

    def run(checkpoint: Checkpoint | None) -> list[Any]:
        rng = np.random.default_rng(1)
        network = Sequential([Linear(5, 3, rng=rng), Tanh(), Linear(3, 2, rng=rng)])
        errors = train(
            network, prepared.samples, None, MSE(), SGD(network), 4, 50, rng=rng, on_epoch=None, checkpoint=checkpoint
        )  # fmt: skip
        return [errors, rng.random(), *(array.tolist() for array in network.parameters())]

    class Mortal(Checkpoint):
        left = fatal

        def save(self) -> None:
            super().save()
            self.left -= 1
            if not self.left:
                raise Killed

    with pytest.raises(Killed):
        run(Mortal(tmp_path / "c.npz", {}, seconds=0))
    assert run(Checkpoint(tmp_path / "c.npz", {}, resume=True)) == run(None)


def test_large_rows_sorted_by_class_are_shuffled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block holds a few thousand rows of 3 KB, so chunks must be short for it to contain every class."""
    monkeypatch.undo()
    monkeypatch.setattr(streaming_loader, "BLOCK_BYTES", 4 << 20)
    monkeypatch.setattr(record_file, "CHUNK_BYTES", 32 << 10)
    rows, classes = 5000, 10
    x = np.random.default_rng(0).standard_normal((rows, 784), np.float32)
    np.savez(tmp_path / "t.npz", x=x, y=(np.arange(rows) * classes // rows).astype(np.uint8))
    content = {"model": {"name": "m"}, "data": {"path": "t.npz", "stream": True, "task": "classification"}}
    samples = prepare(from_dict(content, tmp_path)).samples
    learned = samples.epoch_blocks(TrainingState(Sequential([]), np.random.default_rng(0)), 50)
    first = np.concatenate([y.copy() for _, y, _, _ in islice(learned, 4)])  # of one block
    assert first.sum(axis=0).min() > len(first) / classes / 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", ["standard", "none"])
@pytest.mark.parametrize("given", ["u1", "i1", "u2", "i2", "i4", "i8", "f4", "f8"])
def test_training_and_serving_encode_rows_to_the_same_bits(tmp_path: Path, given: str, scale: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((300, 7)) * 40).astype(given)
    np.savez(tmp_path / "t.npz", x=x, y=rng.standard_normal(300))
    content = {
        "model": {"name": "m"},
        "data": {"path": "t.npz", "stream": True, "scale": scale},
        "network": {"dtype": dtype},
        "split": {"validation": 0},
    }
    prepared = prepare(from_dict(content, tmp_path))
    taught = np.setdiff1d(np.arange(300), np.array(prepared.dataset.lines) - 1)
    found, _ = everything(prepared)
    assert found.dtype == dtype
    assert np.array_equal(found, prepared.signature.encode_columns({"features": x[taught]}, dtype))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_read_their_own_rows_in_one_order(path: Path, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `reduce = "exact"` each part of the batches has chunks of its own, and a rank reads only its parts."""
    prepared = prepare(job(path))
    loader: Any = prepared.samples
    rows = [0] * ranks
    read = JoinedRecords.read_ranges

    def epoch(rank: int) -> np.ndarray[Any, Any]:
        def counted(records: JoinedRecords, ranges: list[tuple[int, int]]) -> np.ndarray[Any, Any]:
            rows[rank] += sum(stop - start for start, stop in ranges)
            return read(records, ranges)

        monkeypatch.setattr(JoinedRecords, "read_ranges", counted)
        communicator: Any = ThreadCommunicator(rank, ranks, None, [])  # type: ignore[arg-type]
        parallel = DataParallel(communicator, exact=True)
        found = []
        for x, *_ in loader.epoch_blocks(TrainingState(Sequential([]), np.random.default_rng(0)), 50, parallel):
            own = parallel.rows_of(parallel.own, len(x), 50)
            others = np.setdiff1d(np.arange(len(x)), own)
            x[others] = 0
            found.append(x.copy())
        return np.concatenate(found)

    together = np.sum([epoch(rank) for rank in range(ranks)], axis=0)
    assert sum(rows) == len(loader)
    assert max(rows) <= len(loader) * (1 / ranks + 0.05)
    alone = [
        x.copy()
        for x, *_ in loader.epoch_blocks(
            TrainingState(Sequential([]), np.random.default_rng(0)), 50, DataParallel(exact=True)
        )
    ]
    assert np.array_equal(together, np.concatenate(alone))
    expected, _ = everything(prepared)
    assert np.array_equal(np.sort(together.view("V20").ravel()), np.sort(expected.view("V20").ravel()))
