"""The ranks of an MPI job: `mpirun -n 4 train job.toml` trains one network in four processes.

Every rank runs the same command. Rank 0 prints, saves, evaluates and publishes; the others read the data and compute
gradients (training/engine/data_parallel.py). An error of one rank ends all.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from model_store.cli import common
from model_store.utils.extras import install_command
from training.errors import TrainingError
from training.pipeline import job as jobs

# Variables that hold the number of processes: of Open MPI, and of MPICH, Intel MPI and srun.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class RanksError(TrainingError):
    """The ranks of an MPI job cannot train together."""


def connect() -> Any:
    """Return the communicator of all ranks, or None in a process that no MPI has started.

    RanksError without mpi4py, or if it was built for another MPI than the one that started this process.
    """
    started = max(int(os.environ.get(name, "1")) for name in _SIZE_VARIABLES)
    if started == 1:
        return None
    try:
        from mpi4py import MPI  # noqa: PLC0415  # an import initializes MPI
    except (ImportError, RuntimeError) as error:
        if any(os.environ.get(name, "0") != "0" for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK")):
            sys.exit(2)  # rank 0 says so
        fix = f"install it with: {install_command('mpi')}"
        raise RanksError(f"{started} ranks need mpi4py and an MPI, found: {error}; {fix}") from error
    communicator = MPI.COMM_WORLD
    if communicator.Get_size() != started:
        library = MPI.Get_library_version().split(",")[0].strip("\0\n")
        problem = f"expected {started} ranks, as many as were started; mpi4py with {library} found"
        raise RanksError(f"{problem} {communicator.Get_size()}; start them with the mpirun of this MPI")
    return communicator


@contextmanager
def ending_together(communicator: Any) -> Iterator[None]:
    """End all ranks if this one exits with an error, which has been printed: they would wait for it for ever."""
    try:
        yield
    except SystemExit as end:
        if communicator is not None and end.code:
            _abort(communicator, end.code if isinstance(end.code, int) else 1)
        raise
    except click.ClickException as error:
        if communicator is not None:
            error.show()
            _abort(communicator, error.exit_code)
        raise


def prepare_together(communicator: Any, prepare: Callable[[], jobs.PreparedJob]) -> jobs.PreparedJob:
    """Prepare the job on every rank, and compare. RanksError if another rank failed, or read another job or data."""
    if communicator is None:
        return prepare()
    try:
        prepared = prepare()
    except Exception as error:
        communicator.allgather((f"{type(error).__name__}: {error}", None))
        raise
    found = communicator.allgather(("", prepared.identity))
    for rank, (problem, identity) in enumerate(found):
        if problem:
            raise RanksError(f"rank {rank}: {problem}")
        if identity != found[0][1]:
            fix = "start all ranks with the same job file, options and data"
            raise RanksError(f"rank {rank} has read another job, or other data, than rank 0; {fix}")
    jobs.check_ranks(prepared, communicator.Get_size())
    return prepared


def work(communicator: Any, prepare: Callable[[], jobs.PreparedJob]) -> None:
    """Do what a rank above 0 does. What all ranks report, rank 0 prints."""
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 saves the training and ends all
        signal.signal(number, signal.SIG_IGN)
    try:
        prepared = prepare_together(communicator, prepare)
    except Exception:  # noqa: BLE001 - rank 0 was told and ends all
        communicator.Barrier()
        return
    try:
        jobs.work(prepared, communicator)
    except Exception as error:  # noqa: BLE001 - rank 0 would wait for this rank for ever
        common.print_note(f"rank {communicator.Get_rank()}: {type(error).__name__}: {error}")
        _abort(communicator, 1)


def _abort(communicator: Any, code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    communicator.Abort(code)
