"""JSON in pieces has the bytes of JSON rendered whole."""

from typing import Any

import orjson
import pytest

from service.http import responses
from service.http.responses import ListInBlocks, json_pieces

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
    items = in_blocks(ITEMS, 7)
    assert list(items) == list(items) == ITEMS


def test_small_parts_are_sent_together() -> None:
    """The server sends one piece a turn: 60,000 tensors of 8 bytes, each a piece, took it half a minute."""
    parts = [bytes([i % 256]) * 8 for i in range(60_000)]
    pieces = list(responses.join_pieces(parts))
    assert [len(piece) for piece in pieces] == [2**18, 480_000 - 2**18]
    assert b"".join(pieces) == b"".join(parts)
    assert list(responses.join_pieces([])) == [b""]
