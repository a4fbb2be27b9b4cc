"""Checks that batches have the rows that BatchNorm needs: the mean of one value is that value, and its variance 0."""

from __future__ import annotations

import math
from collections.abc import Iterator

from model_store.nn import BatchNorm, Module, Sequential
from model_store.nn.module import Shape


class SingleRowBatchWarning(UserWarning):
    """The last batch of every epoch has one row, so that a BatchNorm normalizes it by its running averages."""


def check_batch_norm(module: Module, rows: int, batch_size: int) -> str | None:
    """Return a warning if the last batch of an epoch has one row, and a BatchNorm averages over rows alone.

    ValueError if all batches have one row: its running averages, which inference uses, would never change. Over images
    a BatchNorm averages over pixels too, and one image is enough.
    """
    size, last = min(batch_size, rows), rows % batch_size
    if 1 not in (size, last) or (location := next(_row_norms(module, module.input_shape), None)) is None:
        return None
    if size == 1:
        raise ValueError(f"expected batches of two rows or more for the BatchNorm at {location}, found batches of one")
    fitting = next(other for other in range(batch_size + 1, 2 * rows + 1) if rows % other != 1)
    return (
        f"the last batch of every epoch has one row, which the BatchNorm at {location} normalizes by its running "
        f"averages; a batch size of {fitting} leaves no such batch"
    )


def _row_norms(module: Module, shape: Shape | None, location: str = "") -> Iterator[str]:
    """Yield the location of each BatchNorm whose mean is over rows only. Unknown inputs count as rows."""
    if isinstance(module, BatchNorm) and (shape is None or math.prod(shape[:-1]) == 1):
        yield location.removesuffix(".") or type(module).__name__
    if isinstance(module, Sequential) and module.modules:
        shapes = module.shapes() if shape is None else module.shapes(shape)
        for i, (inner, (before, _)) in enumerate(zip(module.modules, shapes, strict=True)):
            yield from _row_norms(inner, before, f"{location}modules.{i}.")
