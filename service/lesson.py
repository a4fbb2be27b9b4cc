"""The lesson: for a request that was refused, one that works - a body, and the line for a shell that sends it.

The row is the caller's own with its faults mended, where one was sent, else the model's example.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from typing import Any

import orjson
from flask import g, request

from model_store.columns import Array, Category, Faults, Places
from model_store.errors import Fault
from model_store.signature import Input
from service import tensors
from service.catalog import Served, Snapshot

_MOST_BYTES = 4096  # an error is not the place for a large image


def lesson(snapshot: Snapshot, faults: list[Fault]) -> dict[str, Any] | None:
    """`{"body": ..., "curl": "..."}`, or None where no model can answer or its rows are too long."""
    served = _meant(snapshot)
    if served is None:
        return None
    row = _mended(served, faults)
    path, body = _form(served, row, alone=len(snapshot.entries) == 1)
    text = orjson.dumps(body).decode()
    if len(text) > _MOST_BYTES:
        return None
    address = shlex.quote(request.host_url.rstrip("/") + path)
    return {"body": body, "curl": f"curl -s {address} -d {shlex.quote(text)}"}


def _meant(snapshot: Snapshot) -> Served | None:
    """The model that the request names, or the one whose name is most like it."""
    answering = {served.name: served for served in snapshot.answering}
    found = re.search(r"/models/([^/:]+)", request.path)
    name = found[1] if found else g.get("named") or ""
    close = [name] if name in answering else difflib.get_close_matches(name[:100], answering, 1, 0.0)
    return answering[close[0]] if close else next(iter(answering.values()), None)


def _form(served: Served, row: Any, *, alone: bool) -> tuple[str, dict[str, Any]]:
    """The address and the body, as the protocol that was spoken has them."""
    if request.path.startswith("/v2"):
        return f"/v2/models/{served.name}/infer", {"inputs": _tensors(served, row)}
    if request.path.startswith("/v1"):
        return f"/v1/models/{served.name}:predict", {"instances": [row]}
    if request.path == "/invocations":
        return "/invocations", ({} if alone else {"model": served.name}) | {"instances": [row]}
    return f"/models/{served.name}/predict", {"instances": [row]}


def _tensors(served: Served, row: Any) -> list[dict[str, Any]]:
    signature = served.model.signature
    declared = tensors.inputs(signature)
    if isinstance(signature.inputs[0], Array) and len(declared) == 1:
        values = [row]
    else:
        values = [[row.get(name)] for name in signature.names] if isinstance(row, Mapping) else [[cell] for cell in row]
    return [
        {"name": t.name, "shape": [1, *t.shape[1:]], "datatype": t.datatype, "data": _flat(value)}
        for t, value in zip(declared, values, strict=True)
    ]


def _flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, list) else [value]


def _mended(served: Served, faults: list[Fault]) -> Any:
    """The first row that a fault names, mended; the model's example where there is none, or it cannot be understood."""
    example, rows = served.example.instance, g.get("sent")
    numbers = [found[1] for fault in faults if (found := re.match(r"(?:instances|inputs)\.(\d+)", fault.place))]
    if not numbers or not isinstance(rows, list) or not isinstance(example, Mapping) or int(numbers[0]) >= len(rows):
        return example
    row, names = rows[int(numbers[0])], served.model.signature.names
    if isinstance(row, list) and len(row) == len(names):
        row = dict(zip(names, row, strict=True))
    if not isinstance(row, Mapping):
        return example
    given = {_nearest(key, names): value for key, value in row.items()} | {n: row[n] for n in names if n in row}
    columns = served.model.signature.inputs
    return {column.name: _value(column, given, example[column.name]) for column in columns}


def _value(column: Input, given: Mapping[str, Any], example: Any) -> Any:
    """The value that was given, or the nearest that fits."""
    value = given.get(column.name)
    if value is None or isinstance(value, list):
        return value if _fits(column, value) else example
    known = column.categories if isinstance(column, Category) else ()
    return next((each for each in (value, _number(value), _nearest(value, known)) if _fits(column, each)), example)


def _fits(column: Input, value: Any) -> bool:
    faults, places = Faults(), Places("", range(1))
    parsed = column.parse([value], places, faults)
    if not faults.total:
        column.encode(parsed, places, faults)
    return not faults.total


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _nearest(word: Any, known: tuple[str, ...]) -> str:
    """The known word that is most like this one, or the word itself."""
    return next(iter(difflib.get_close_matches(str(word)[:100], known[:1000], 1)), str(word)[:100])
