r"""Texts that are hashed a block at a time have the hashes of their tokens, one by one."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.schema.columns.base import FaultCollector, RowLocations
from model_store.schema.columns.text import TextColumn
from model_store.utils import text_hashing
from model_store.utils.text_hashing import hashed_counts, tokens

TEXTS = st.lists(st.text() | st.text("aZ _0-\n\x00\tüßİΣσ漢😀\u0301\ud800", max_size=80), max_size=6)


def count_tokens(texts: list[str], features: int) -> np.ndarray:
    counts = np.zeros((len(texts), features))
    for row, text in zip(counts, texts, strict=True):
        for token in tokens(text):
            code = zlib.crc32(token.encode())
            row[code % features] += -1 if code >> 31 else 1
    return counts


@given(texts=TEXTS, features=st.sampled_from([1, 7, 256, 4096]), block=st.sampled_from([1, 20, 1 << 16]))
def test_a_block_has_the_hashes_of_its_tokens(texts: list[str], features: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_hashing, "_BLOCK_CHARACTERS", block)
        expected = count_tokens(texts, features)
        for few in (-1, sys.maxsize):
            patch.setattr(text_hashing, "_FEW_CHARACTERS", few)
            np.testing.assert_array_equal(hashed_counts(texts, features), expected)


def test_every_character_is_hashed_alike_in_a_block() -> None:
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    texts = [characters[i : i + 4096] for i in range(0, len(characters), 4096)]
    np.testing.assert_array_equal(hashed_counts(texts, 64), count_tokens(texts, 64))


def test_the_features_of_texts_are_those_of_published_models() -> None:
    """Recorded before texts were hashed a block at a time."""
    column, texts = TextColumn("t", 8), ["The quick brown fox", "Straße 12, ÖPNV!", "漢字 kanji", "", "a " * 500]
    features = column.encode(np.array(texts, object), RowLocations("rows", range(5)), FaultCollector())
    np.testing.assert_array_equal(features, np.array(RECORDED))


RECORDED = [
    [
        -0.5144957554275265,
        0.6859943405700353,
        -0.17149858514250882,
        -0.17149858514250882,
        0.17149858514250882,
        -0.17149858514250882,
        0.34299717028501764,
        0.17149858514250882,
    ],
    [
        -0.30151134457776363,
        -0.30151134457776363,
        -0.6030226891555273,
        -0.6030226891555273,
        0.30151134457776363,
        0.0,
        0.0,
        0.0,
    ],
    [
        0.6666666666666666,
        0.3333333333333333,
        0.3333333333333333,
        0.0,
        0.3333333333333333,
        0.0,
        0.3333333333333333,
        -0.3333333333333333,
    ],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.7071067811865475, -0.7071067811865475, 0.0, 0.0, 0.0],
]
