"""Misspelt words find the name that was meant, after few comparisons."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store import similar_names
from model_store.similar_names import closest_name

COLUMNS = ["island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex"]
MANY = [*COLUMNS, *(f"feature_{i}" for i in range(900))]


@pytest.mark.parametrize("known", [COLUMNS, MANY], ids=["few", "many"])
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("iland", "island"),
        ("Island", "island"),
        ("bill_lenght_mm", "bill_length_mm"),
        ("ill_depth_mm", "bill_depth_mm"),
        ("body mass g", "body_mass_g"),
        ("flipper_length", "flipper_length_mm"),
        ("SEX", "sex"),
        ("colour", None),
        ("", None),
        ("x" * 101, None),
    ],
)
def test_the_name_that_was_meant_is_found(known: list[str], word: str, expected: str | None) -> None:
    assert closest_name(word, known) == expected


@given(st.text(max_size=120), st.lists(st.text(max_size=120), max_size=60))
def test_a_name_that_is_found_is_known_and_similar(word: str, known: list[str]) -> None:
    found = closest_name(word, known)
    assert found is None or found in known
    if word in known and len(word) <= similar_names.MAX_WORD:
        assert found is not None
        assert found.casefold() == word.casefold()


def test_comparisons_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"ratio": 0, "quick_ratio": 0}

    class Counted(difflib.SequenceMatcher):
        def ratio(self) -> float:
            counts["ratio"] += 1
            return super().ratio()

        def quick_ratio(self) -> float:
            counts["quick_ratio"] += 1
            return super().quick_ratio()

    monkeypatch.setattr(similar_names.difflib, "SequenceMatcher", Counted)
    closest_name("a" * 40, [f"{'a' * 36}{i:04}" for i in range(5000)])
    assert counts["ratio"] <= 3
    assert counts["quick_ratio"] <= 16
    closest_name("a" * 100, ["a" * i for i in range(5000)])
    assert counts["ratio"] <= 3  # the order of letters is compared in short words only
