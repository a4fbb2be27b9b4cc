"""Duplicate keys of JSON objects, whatever their texts contain and however deep they are."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import InputError
from model_store.utils.duplicate_keys import duplicate_key_faults, has_duplicate_keys

TEXTS = st.text(st.sampled_from([*':",\\\\{}[]ab\u2028é']), max_size=4)


class Pairs(list[tuple[str, Any]]):
    """An object that may have a key twice."""


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(TEXTS, inner), max_size=4).map(Pairs),
    max_leaves=20,
)


def write(value: Any, spaces: str, escape: bool) -> str:
    if isinstance(value, Pairs):
        pairs = (
            f"{json.dumps(key, ensure_ascii=escape)}{spaces}:{spaces}{write(each, spaces, escape)}"
            for key, each in value
        )
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{','.join(write(each, spaces, escape) for each in value)}]"
    return json.dumps(value, ensure_ascii=escape)


def has_duplicates(value: Any) -> bool:
    if isinstance(value, Pairs):
        return len({key for key, _ in value}) < len(value) or any(has_duplicates(each) for _, each in value)
    return isinstance(value, list) and any(map(has_duplicates, value))


@given(DOCUMENTS, st.sampled_from(["", " ", "\n\t"]), st.booleans())
def test_duplicate_keys_are_found_in_any_document(document, spaces, escape):
    body = write(document, spaces, escape).encode()
    assert has_duplicate_keys(body, orjson.loads(body)) == has_duplicates(document)
    assert bool(duplicate_key_faults(body)) == has_duplicates(document)


def test_a_key_that_is_escaped_once_is_the_same_key():
    body = rb'{"a": 1, "\u0061": 2}'
    assert has_duplicate_keys(body, orjson.loads(body))


def test_all_duplicate_keys_are_reported_with_their_locations():
    body = b'{"a": [{"b": 1, "b": 2, "b": 3}, {"c": {"d": 1e999, "d": 1}}], "e": "a:b", "e": null}'
    assert list(map(str, duplicate_key_faults(body))) == [
        "e: expected each key once, found this one 2 times (remove all but one of them)",
        "a.0.b: expected each key once, found this one 3 times (remove all but one of them)",
        "a.1.c.d: expected each key once, found this one 2 times (remove all but one of them)",
    ]


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"[" + b'{"a":1,"a":2},' * 1000 + b"0]", InputError.MAX_FAULTS),
        (b"[" * 900 + b'{"a":1,"a":2}' + b"]" * 900, 1),
        (b'{"a":' * 900 + b'{"a":1,"a":2}' + b"}" * 900, 1),
        (b'{"a":' + b"7" * 300 + b',"a":2}', 1),
    ],
)
def test_no_depth_length_or_number_stops_the_search(body, count):
    assert has_duplicate_keys(body, orjson.loads(body))
    assert len(duplicate_key_faults(body)) == count


def test_a_long_text_is_not_searched_for_the_locations(monkeypatch: pytest.MonkeyPatch):
    """A megabyte of objects, which gzip makes 1.2 kB, took a second."""
    body = b'{"":1,"":1,"a":[' + b'{"":1,"":1},' * 6000 + b"0]}"
    monkeypatch.setattr("json.loads", lambda *_, **__: pytest.fail("parsed again"))
    assert has_duplicate_keys(body, orjson.loads(body))
    assert list(map(str, duplicate_key_faults(body))) == [
        "body: expected each key once, found one several times (remove the duplicate key)"
    ]
