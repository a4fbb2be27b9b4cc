"""JSON in pieces has the bytes of JSON rendered whole."""

from typing import Any

import orjson
import pytest

from service.http import responses
from service.http.responses import ListInBlocks, ObjectInBlocks, json_pieces

ITEMS: list[Any] = [{"label": f"ü{i}", "probabilities": {"a": i / 7, "b": None}} for i in range(100)]


def in_blocks(items: list[Any], size: int) -> ListInBlocks:
    return ListInBlocks(lambda: (items[i : i + size] for i in range(0, len(items), size)))


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize("piece_bytes", [1, 100, 2**18])
def test_pieces_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, size: int, piece_bytes: int) -> None:
    monkeypatch.setattr(responses, "PIECE_BYTES", piece_bytes)

    def response(items: Any) -> dict[str, Any]:
        nested = {"outputs": [{"name": "a", "shape": (2, 3), "data": items, "parameters": {}}, {"data": [1, 2.5]}]}
        return {"model": "m", "predictions": items, "warnings": [{"fix": 'a"b'}], **nested, "none": [], "x": None}

    pieces = json_pieces(response(in_blocks(ITEMS, size)))
    assert b"".join(pieces) == orjson.dumps(response(ITEMS)) + b"\n"
    assert len(pieces) > 1 or piece_bytes > 1000


def test_a_list_in_blocks_can_be_read_again() -> None:
    items = {"items": in_blocks(ITEMS, 7)}
    assert json_pieces(items) == json_pieces(items)


def test_an_object_in_blocks_and_objects_that_hold_blocks_are_those_of_the_whole() -> None:
    columns = {f"c{i}": [i, i / 7] for i in range(10)}
    in_parts = ObjectInBlocks(lambda: iter([dict([item]) for item in columns.items()]))
    outputs = ListInBlocks(lambda: iter([ITEMS[:2], {"data": in_blocks(ITEMS, 7)}, ITEMS[2:3], {"data": []}]))
    whole = {"a": columns, "b": [*ITEMS[:2], {"data": ITEMS}, ITEMS[2], {"data": []}]}
    assert b"".join(json_pieces({"a": in_parts, "b": outputs}, end=b"")) == orjson.dumps(whole)


def test_small_parts_are_sent_together() -> None:
    """The server sends one piece a turn: 60,000 tensors of 8 bytes, each a piece, took it half a minute."""
    parts = [bytes([i % 256]) * 8 for i in range(60_000)]
    pieces = list(responses.join_pieces(parts))
    assert [len(piece) for piece in pieces] == [2**18, 480_000 - 2**18]
    assert b"".join(pieces) == b"".join(parts)
    assert list(responses.join_pieces([])) == [b""]
