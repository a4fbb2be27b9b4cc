"""Tables of numbers read by simdjson equal what the schema reads; every other body is left to the schema."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_store.nn import Array
from model_store.schema.signature import ArrayColumn, NumberColumn, Signature
from model_store.schema.signature import RegressionOutput as Targets
from service.validation.simdjson_table import MAX_OUTLINE_BYTES, SimdjsonReader, _count_brackets

pytest.importorskip("simdjson", reason="simdjson is not installed: nothing is read as plain")

TARGETS = Targets(("y",), (0.0,), (1.0,))
TABLE = Signature((NumberColumn("a", 1.5, 2.0), NumberColumn("b", -3.0, 0.1), NumberColumn("c")), TARGETS)
IMAGE = Signature((ArrayColumn("pixels", (2, 3), 0.0, 16.0, None, None, {}),), TARGETS)


def table(body: bytes, signature: Signature, max_rows: int = 5) -> Array | None:
    shape, reader = signature.table_shape, SimdjsonReader()
    assert shape is not None
    if outline := reader.outline(body):
        return reader.small_table(body, outline, shape[0], max_rows) if len(shape) == 1 else None
    plain = reader.parse(body)
    return None if plain is None else plain.table(shape, max_rows)


def written(*instances: Any, **more: Any) -> bytes:
    return json.dumps({"instances": list(instances), **more}).encode()


@given(st.text("[]1, ", max_size=200), st.integers(0, 50))
def test_both_ways_to_count_brackets_agree(text: str, few: int) -> None:
    assert _count_brackets(text.encode(), few) == text.count("[")


@pytest.mark.parametrize(
    ("signature", "instances"),
    [
        (TABLE, [[1, 2.5, -0.0], [1e300, 5e-324, 18446744073709551615]]),
        (IMAGE, [[[1, 2, 3], [4, 5, 6]]] * 5),
        (IMAGE, [[1, 2, 3, 4, 5, 6]]),
    ],
)
def test_numbers_are_parsed_in_the_shape_of_the_signature(signature: Signature, instances: list[Any]) -> None:
    found = table(written(*instances) + b" " * MAX_OUTLINE_BYTES, signature)
    assert found is not None
    np.testing.assert_array_equal(found, np.array(instances, np.float64).reshape(len(instances), -1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[[1, 2, 3]]",
        b"\xef\xbb\xbf" + written([1, 2, 3]),
        b'{"instances": [[1, 2, 3]], "instances": [[4, 5, 6]]}',
        b'{"instances": [[1, 2, 3]], "other": 1}',
        b'{"instances": [[1, 2, 3]]} ,',
        b'{"instances": [[1, 2, NaN]]}',
        b'{"instances": [[1, 2, 1e999]]}',
        b'{"instances": [[1, 2, 03]]}',
        b'{"instances": [[1, 2, 3],]}',
        b'{"instances": [[1, 2, 123456789012345678901234567890]]}',
        b'{"instances": [[1, 2, "\xff"]]}',
        b'{"instances": "[[1, 2, 3]]"}',
        b'{"instances": {}}',
        written(),
        written([]),
        written(1, 2, 3),
        written([1, 2, None]),
        written([1, 2, True]),
        written([1, 2, "3"]),
        written([1, 2, {}]),
        written([1, 2]),
        written([1, 2, 3, 4], [5, 6]),
        written([[1, 2], 3, []]),
        written([[1, 2, 3]]),
        written({"a": 1, "b": 2, "c": 3}),
        written(*[[1, 2, 3]] * 6),
    ],
)
def test_bodies_that_are_not_a_table_of_numbers_give_none(body: bytes) -> None:
    assert table(body, TABLE) is None


@pytest.mark.parametrize(
    "rows",
    [
        [[[1, 2], [3, 4], [5, 6]]],
        [[[1, 2, 3, 4], [5, 6]]],
        [[[1, 2, 3], [4, 5, [6]]]],
        [[[1, 2, 3], [4, 5, 6]], [1, 2, 3, 4, 5, 6]],
        [[[[1, 2], 3, []], [4, 5, 6]]],
        [[[[1, 2, 3]], [4, 5, 6]]],
    ],
)
def test_an_image_of_another_shape_gives_none(rows: list[Any]) -> None:
    assert table(written(*rows), IMAGE) is None


def test_model_and_version_are_returned_as_sent() -> None:
    reader = SimdjsonReader()
    for keys in ({"model": "m", "version": 3}, {"version": "champion"}, {"model": None}, {}):
        plain = reader.parse(written([1], **keys) + b" " * MAX_OUTLINE_BYTES)
        assert plain is not None
        assert {"model": plain.model, "version": plain.version} == {"model": None, "version": None} | keys
        del plain  # the reader holds one body at a time


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**63), 2**64 - 1).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)
CELLS = st.one_of(NUMBERS, st.sampled_from(["null", "true", '"1"', "[]", "{}", "[1]", "1,2", "-", " 7 ", "\n8\t"]))


def rows(cells: st.SearchStrategy[str], width: int) -> st.SearchStrategy[str]:
    row = st.lists(cells, min_size=width, max_size=width).map(lambda found: f"[{','.join(found)}]")
    return st.lists(row, min_size=1, max_size=4).map(lambda found: f'{{"instances":[{",".join(found)}]}}')


@given(rows(NUMBERS, 3))
@example('{"instances":[[-0,0.1e1,9007199254740993]]}')
def test_numbers_have_the_same_bits_as_with_the_schema(text: str) -> None:
    found = table(text.encode(), TABLE)
    expected = np.array(orjson.loads(text)["instances"], np.float64) if is_json(text) else None
    if found is not None:
        assert expected is not None
        assert found.tobytes() == expected.tobytes()
        if abs(found).max() < 1e300:  # else scaling may overflow float64
            np.testing.assert_array_equal(TABLE.encode_table(found, dtype=np.float64), encoded(TABLE, text))
    else:  # an integer beyond 64 bits, or a number that overflows float64
        assert expected is None or any(abs(value) >= 2.0**63 for value in expected.flat)


@given(rows(CELLS, 3) | rows(CELLS, 2) | rows(st.lists(NUMBERS, max_size=4).map(lambda c: f"[{','.join(c)}]"), 2))
def test_nothing_is_accepted_that_the_schema_rejects(text: str) -> None:
    for signature, padding in product((TABLE, IMAGE), (b"", b" " * MAX_OUTLINE_BYTES)):
        found = table(text.encode() + padding, signature)
        if found is not None and abs(found).max() < 1e300:
            np.testing.assert_array_equal(signature.encode_table(found, dtype=np.float64), encoded(signature, text))


def is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def encoded(signature: Signature, text: str) -> Array:
    """Return what the schema makes of it; InputError if it rejects it."""
    return signature.encode(orjson.loads(text)["instances"], dtype=np.float64)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1, 2, 3]], "instances": []}',
        b'{"other": [[1, 2, 3]]}',
        b'{"inst\\"ances": [[1, 2, 3]]}',
        b'{"instances": [[1, 2, 3], [4, 5], 6]}',
        b'{"instances": [[1, 2, 3], 4, [5, 6]]}',
        b'{"instances": [[1, 2, "3"]]}',
        b'{"instances": [[1, 2, []]]}',
    ],
)
@pytest.mark.parametrize("padding", [0, MAX_OUTLINE_BYTES])
def test_neither_the_outline_nor_each_row_takes_another_body_for_a_table(body: bytes, padding: int) -> None:
    assert table(body + b" " * padding, TABLE) is None


@pytest.mark.parametrize("padding", [0, MAX_OUTLINE_BYTES])
def test_white_space_and_escapes_in_the_key_change_nothing(padding: int) -> None:
    body = b'{ "\\u0069nstances" :[ [1, 2,\n3],\t[4,5 ,6] ] }' + b" " * padding
    found = table(body, TABLE)
    assert found is not None
    assert found.tolist() == [[1, 2, 3], [4, 5, 6]]
