"""Predictions as a JSON list in blocks of rows, for every protocol.

The Python objects of a million probabilities take 60 MB, and JSON of them 30. So each block of rows becomes objects and
JSON by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from model_store.artifact.asked_answers import AskedAnswers
from model_store.artifact.model import Model
from model_store.nn import Array
from model_store.schema.signature import Signature
from service.http.responses import ListInBlocks, ObjectInBlocks

BLOCK_VALUES = 2**15  # of an array in a block


def row_blocks(arrays: Mapping[str, Array], convert: Callable[[dict[str, Array]], list[Any]]) -> ListInBlocks:
    """Return the list that `convert` makes of the rows of `arrays`, which have equally many, in blocks."""
    return ListInBlocks(partial(_blocks, arrays, convert))


def column_blocks(names: Sequence[str], values: Array) -> ListInBlocks | ObjectInBlocks:
    """Return the values (n, names) as an object of lists by name, or as the list of the only name, in blocks."""
    if len(names) == 1:
        return row_blocks({names[0]: values}, lambda arrays: [row for (row,) in arrays[names[0]].tolist()])
    return ObjectInBlocks(partial(_column_blocks, names, values))


def _column_blocks(names: Sequence[str], values: Array) -> Iterator[dict[str, list[Any]]]:
    step = max(1, BLOCK_VALUES // len(values))
    for i in range(0, len(names), step):
        yield dict(zip(names[i : i + step], values.T[i : i + step].tolist(), strict=True))


def prediction_blocks(signature: Signature, outputs: Array, top_k: int | None = None) -> ListInBlocks:
    """Return raw outputs as native predictions. InputError if an output is not finite."""
    return row_blocks(signature.decode_arrays(outputs), partial(signature.predictions, top_k=top_k))


def range_blocks(asked: AskedAnswers, model: Model, outputs: Array) -> dict[str, ListInBlocks]:
    """Return the list `intervals` or `sets` of raw outputs in blocks of rows, if one is asked for."""
    if (key := asked.range_key) is None:
        return {}
    return {key: row_blocks({key: outputs}, lambda arrays: asked.as_json(model, arrays[key])[key])}


def _blocks(arrays: Mapping[str, Array], convert: Callable[[dict[str, Array]], list[Any]]) -> Iterator[list[Any]]:
    count = len(next(iter(arrays.values())))
    step = max(1, BLOCK_VALUES * count // max(1, *(array.size for array in arrays.values())))
    for i in range(0, count, step):
        yield convert({name: array[i : i + step] for name, array in arrays.items()})
