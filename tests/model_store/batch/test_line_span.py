"""Ranges of bytes as whole lines."""

from __future__ import annotations

import io
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from model_store.tables.line_span import open_span


@given(st.text("ab\n", max_size=60).map(str.encode), st.sets(st.integers(0, 60)))
def test_each_line_is_in_the_range_of_its_first_byte(data: bytes, cuts: set[int]) -> None:
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [open_span(lambda: io.BytesIO(data), start, end).read() for start, end in pairwise(ends)]
    assert b"".join(parts) == data
    lines, position = data.splitlines(keepends=True), 0
    expected = [b""] * len(parts)
    for line in lines:
        part = next(i for i, (start, end) in enumerate(pairwise(ends)) if start <= position < end)
        expected[part] += line
        position += len(line)
    assert parts == expected
