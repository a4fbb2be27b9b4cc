"""A communicator whose ranks are threads: what `training.engine.data_parallel` uses of MPI, without MPI."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Finished:
    """A request that is complete."""

    def Test(self) -> bool:  # noqa: N802
        return True


class ThreadCommunicator:
    """One rank of several threads. All wait at a barrier before and after they read what the others sent."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, sent: list[Any]) -> None:
        self.rank, self.size, self.barrier, self.sent = rank, size, barrier, sent

    def Get_rank(self) -> int:  # noqa: N802
        return self.rank

    def Get_size(self) -> int:  # noqa: N802
        return self.size

    def allgather(self, value: Any) -> list[Any]:
        self.sent[self.rank] = value
        self.barrier.wait()
        found = list(self.sent)
        self.barrier.wait()
        return found

    def bcast(self, obj: Any, root: int = 0) -> Any:
        return self.allgather(obj)[root]

    def Bcast(self, buf: Any, root: int = 0) -> None:  # noqa: N802
        buf[...] = self.allgather(buf.copy())[root]

    def Iallreduce(self, sendbuf: Any, recvbuf: Any) -> Finished:  # noqa: N802
        recvbuf[...] = np.sum(self.allgather(sendbuf.copy()), axis=0)
        return Finished()

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any) -> Finished:  # noqa: N802
        array, (counts, displacements) = recvbuf
        for found, count, first in zip(self.allgather(sendbuf.copy()), counts, displacements, strict=True):
            assert found.size == count
            array.reshape(-1)[first : first + count] = found.reshape(-1)
        return Finished()


def run_ranks(size: int, work: Callable[[ThreadCommunicator], T]) -> list[T]:
    """Return what `work` returns on each rank. Its first exception ends the others."""
    barrier, sent = threading.Barrier(size, timeout=60), [None] * size
    found: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadCommunicator(rank, size, barrier, sent))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found
