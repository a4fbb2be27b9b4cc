"""Data-parallel training: ranks of an MPI job compute parts of every batch, and step by the sum of their gradients.

A batch is divided into parts of neighbouring rows. Each rank has a copy of the network, computes the gradients of its
parts and receives those of the others; all then make the same step. With `exact` a batch has `EXACT_PARTS` parts
however many ranks there are, and their gradients are added in pairs, pairs of pairs and so on. A rank has neighbouring
parts, so that what it adds by itself are pairs of the same tree: 1, 2, 4 and 8 ranks give the same bits as each other,
and so do other numbers, which exchange every part. Without, each rank has one part, and MPI adds in its own order.

Only gradients are exchanged, so a layer with statistics of a batch (BatchNorm) cannot be trained this way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.nn import Array
from training.engine.compiled import CompiledStep
from training.optim.base import Optimizer

EXACT_PARTS = 8  # a power of two
_GENERATOR_STRIDE = 1 << 64  # numbers that a part may draw: a period of PCG64 has 2^128


class Request(Protocol):
    """An exchange that has begun."""

    def Test(self) -> bool: ...  # noqa: N802


class Communicator(Protocol):
    """What this module uses of `mpi4py.MPI.Comm`."""

    def Get_rank(self) -> int: ...  # noqa: N802

    def Get_size(self) -> int: ...  # noqa: N802

    def bcast(self, obj: Any, root: int = 0) -> Any: ...

    def Bcast(self, buf: Any, root: int = 0) -> None: ...  # noqa: N802

    def Iallreduce(self, sendbuf: Any, recvbuf: Any) -> Request: ...  # noqa: N802

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any) -> Request: ...  # noqa: N802


class InterruptedStepError(Exception):
    """A signal arrived while this rank waited for the others. The parameters are those before the step."""


class DataParallel:
    """The ranks that train one network together, and the parts of a batch that belong to this one.

    communicator: None for one process.
    exact: give the same bits for every number of ranks, at most `EXACT_PARTS`.
    interrupted: asked while this rank waits for others; True abandons the step with InterruptedStepError.

    ValueError if there are more ranks than parts.
    """

    def __init__(
        self,
        communicator: Communicator | None = None,
        *,
        exact: bool = False,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.communicator, self.exact, self.interrupted = communicator, exact, interrupted
        self.rank = 0 if communicator is None else communicator.Get_rank()
        self.ranks = 1 if communicator is None else communicator.Get_size()
        self.parts = EXACT_PARTS if exact else self.ranks
        if self.ranks > self.parts:
            raise ValueError(
                f"reduce = 'exact' divides a batch into {self.parts} parts, found {self.ranks} ranks; "
                f"start {self.parts} ranks at most, or write reduce = 'fast'"
            )
        self.own = range(self.parts * self.rank // self.ranks, self.parts * (self.rank + 1) // self.ranks)

    @property
    def is_main(self) -> bool:
        """Whether this rank evaluates, saves and publishes."""
        return self.rank == 0

    def bounds(self, size: int) -> list[int]:
        """Return where each part of a batch of `size` rows begins, and the end of the last one."""
        return [size * part // self.parts for part in range(self.parts + 1)]

    def rows_of(self, parts: range, rows: int, batch_size: int) -> NDArray[np.int64]:
        """Return the indices of the rows of neighbouring parts in `rows` rows, batch after batch."""
        whole = rows // batch_size * batch_size
        found = []
        for start, size in (
            (np.arange(0, whole, batch_size), batch_size),
            (np.arange(whole, rows, batch_size), rows - whole),
        ):
            bounds = self.bounds(size)
            in_batch = np.arange(bounds[parts.start], bounds[parts.stop])
            found.append((start[:, np.newaxis] + in_batch).reshape(-1))
        return np.concatenate(found)

    def share(self, parts: Mapping[str, Any]) -> None:
        """Give all ranks the state of these parts on the main rank (see `Checkpoint`)."""
        if self.communicator is None:
            return
        states = {name: part.state() for name, part in parts.items()} if self.is_main else None
        states = self.communicator.bcast(states)
        if not self.is_main:
            for name, part in parts.items():
                part.load_state(states[name])

    def share_parameters(self, parameters: Sequence[Array]) -> None:
        """Give all ranks the parameters of the main rank, as MPI may round a sum differently on each rank."""
        if self.communicator is not None and not self.exact:
            for array in parameters:
                self.communicator.Bcast(array)

    def from_main(self, value: Any) -> Any:
        """Return what `value` is on the main rank."""
        return value if self.communicator is None else self.communicator.bcast(value)


class ParallelStep:
    """A step over batches of `size` samples, like `CompiledStep`, of which this rank computes its parts.

    compile_part: compiles a step over as many samples as a part has.
    generators: what the module draws its masks from. Each part draws numbers of its own, on whatever rank.
    whole: ignored; a part is no whole batch.
    """

    def __init__(
        self,
        parallel: DataParallel,
        compile_part: Callable[..., CompiledStep],
        optimizer: Optimizer,
        generators: Sequence[np.random.Generator],
        x: Array,
        y: Array,
        size: int,
        gradient_scale: float = 1.0,
        *,
        whole: bool = False,
    ) -> None:
        self.parallel, self.size = parallel, size
        self._gradients = optimizer.gradients
        self._generators = list({id(generator): generator for generator in generators}.values())
        self._bounds = parallel.bounds(size)
        self._steps: dict[int, CompiledStep] = {}
        for part in parallel.own:
            if (rows := self._rows(part)) and rows not in self._steps:
                self._steps[rows] = compile_part(x, y, rows, gradient_scale * rows / size)
        values = 1 + sum(gradient.size for gradient in self._gradients)  # and the loss
        dtype = np.result_type(np.float32, *self._gradients)
        # A unit is what this rank adds by itself: all its parts, if they are a subtree, else one part.
        count = len(parallel.own)
        self._unit = count if parallel.parts % parallel.ranks == 0 else 1
        levels = self._unit.bit_length() - 1
        self._own = np.zeros((count // self._unit, values), dtype)
        self._levels = np.zeros((levels, values), dtype)
        self._all = np.zeros((parallel.parts // self._unit, values), dtype) if parallel.exact else self._own
        if parallel.communicator is not None and parallel.exact:
            ranks, parts = parallel.ranks, parallel.parts
            firsts = [parts * rank // ranks // self._unit * values for rank in range(ranks + 1)]
            self._received = [self._all, ([end - first for first, end in pairwise(firsts)], firsts[:-1])]

    def rescale(self, gradient_scale: float) -> None:
        """Multiply the gradients by this from the next batch on."""
        for rows, step in self._steps.items():
            step.rescale(gradient_scale * rows / self.size)

    def run(self, x: Array, y: Array, start: int, order: Array | None) -> float:
        """Return the loss of the batch that begins at `start`, in `order`, and set the gradients on every rank."""
        before = [generator.bit_generator.state for generator in self._generators]
        try:
            for i, unit in enumerate(self._own):
                first = self.parallel.own.start + i * self._unit
                self._sum(first, self._unit, 0, unit, (x, y, start, order), before)
            total = self._exchange()
        except InterruptedStepError:
            self._set_generators(before, 0)
            raise
        self._set_generators(before, self.parallel.parts)
        at = 1
        for gradient in self._gradients:
            gradient[...] = total[at : at + gradient.size].reshape(gradient.shape)
            at += gradient.size
        return float(total[0])

    def _rows(self, part: int) -> int:
        return self._bounds[part + 1] - self._bounds[part]

    def _sum(
        self, first: int, count: int, level: int, into: Array, batch: tuple[Any, ...], before: Sequence[Any]
    ) -> None:
        """Put the sum over `count` parts into an array, by the tree."""
        if count == 1:
            self._compute(first, into, batch, before)
            return
        half = count // 2
        self._sum(first, half, level + 1, into, batch, before)
        self._sum(first + half, half, level + 1, self._levels[level], batch, before)
        into += self._levels[level]

    def _compute(self, part: int, into: Array, batch: tuple[Any, ...], before: Sequence[Any]) -> None:
        """Put the loss of a part and its gradients into an array, as fractions of the batch's."""
        x, y, start, order = batch
        rows = self._rows(part)
        if not rows:
            into.fill(0)
            return
        self._set_generators(before, part)
        into[0] = self._steps[rows].run(x, y, start + self._bounds[part], order) * rows / self.size
        at = 1
        for gradient in self._gradients:
            into[at : at + gradient.size] = gradient.reshape(-1)
            at += gradient.size

    def _exchange(self) -> Array:
        """Return the sum over all parts."""
        communicator = self.parallel.communicator
        if communicator is None:
            return np.asarray(self._own[0])
        if not self.parallel.exact:
            total = np.empty_like(self._own)
            self._wait(communicator.Iallreduce(self._own, total))
            return np.asarray(total[0])
        self._wait(communicator.Iallgatherv(self._own, self._received))
        units, distance = self._all, 1
        while distance < len(units):
            for i in range(0, len(units), 2 * distance):
                units[i] += units[i + distance]
            distance *= 2
        return np.asarray(units[0])

    def _wait(self, request: Request) -> None:
        """Wait for an exchange, or for a signal: one that waits in MPI itself is never told of it."""
        while not request.Test():
            if self.parallel.interrupted():
                raise InterruptedStepError
            os.sched_yield()

    def _set_generators(self, before: Sequence[Any], parts: int) -> None:
        """Set each generator to so many parts after the beginning of the step, whatever this rank has drawn."""
        for generator, state in zip(self._generators, before, strict=True):
            generator.bit_generator.state = state
            if parts:
                generator.bit_generator.advance(parts * _GENERATOR_STRIDE)  # type: ignore[attr-defined]
