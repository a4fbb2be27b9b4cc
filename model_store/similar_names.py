"""Find the name that a misspelt word probably means, at a bounded cost: words and names may come from strangers."""

from __future__ import annotations

import difflib
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import islice

MAX_NAMES = 1000  # that are searched
MAX_WORD = 100  # characters; longer words are no misspelt names
_NEIGHBOURS = 4  # in the order of the alphabet, on each side, forwards and backwards
_COMPARED = 3  # names that are compared letter by letter
_MAX_COMPARED_WORD = 40  # characters: comparing the order of letters takes the square of their number
_CUTOFF = 0.6  # of difflib's ratio


def closest_name(word: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `word`, None if none is close.

    Candidates are the neighbours of the word in the alphabet, so they share its beginning, and those in the alphabet of
    the reversed names, which share its end.
    """
    if len(word) > MAX_WORD:
        return None
    folded = word.casefold()
    names = {name.casefold(): name for name in islice(known, MAX_NAMES)}
    if folded in names:
        return names[folded]
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(folded)

    def likeness(name: str) -> float:
        matcher.set_seq1(name[:MAX_WORD])
        return matcher.quick_ratio()

    def compare(name: str) -> float:
        matcher.set_seq1(name[:MAX_WORD])
        return matcher.ratio() if len(folded) <= _MAX_COMPARED_WORD >= len(name) else matcher.quick_ratio()

    close = nlargest(_COMPARED, dict.fromkeys(_candidates(folded, list(names))), likeness)
    score, best = max(((compare(name), name) for name in close), default=(0.0, ""))
    return names[best] if score >= _CUTOFF else None


def _candidates(word: str, names: list[str]) -> Iterator[str]:
    if len(names) <= 4 * _NEIGHBOURS:
        yield from names
        return
    yield from _neighbours(word, sorted(names))
    yield from (name[::-1] for name in _neighbours(word[::-1], sorted(name[::-1] for name in names)))


def _neighbours(word: str, ordered: Sequence[str]) -> Sequence[str]:
    place = bisect(ordered, word)
    return ordered[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS]
