"""What can go wrong with models, and the sentence that says so.

Every message names a place, what was expected there and what was found; a `Fault` adds how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice


class ModelStoreError(Exception):
    """Base of every error this package raises on purpose."""


class ArtifactError(ModelStoreError):
    """The file is not a valid artifact; nothing of it may be used."""


class TrustError(ModelStoreError):
    """No key that is trusted vouches for the model, or a key cannot be used."""


class StoreError(ModelStoreError):
    """The store cannot do what was asked: a bad name, no permission, a full disk."""


class NotFoundError(StoreError):
    """No model, version or alias of that name. `known` lists the names that do exist."""

    def __init__(self, message: str, known: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.known = list(known)


class ConflictError(StoreError):
    """Somebody else was first, or what is asked would break what others rely on."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input: where, what, and what to do about it."""

    location: str
    problem: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.location}: {self.problem}" + (f" ({self.fix})" if self.fix else "")

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class InputError(ModelStoreError):
    """Rows that do not fit a signature: all their faults at once.

    `faults` holds the first 100; `total` counts every one.
    """

    LIMIT = 100

    def __init__(self, faults: Sequence[Fault], total: int | None = None) -> None:
        self.faults = list(faults[: self.LIMIT])
        self.total = len(faults) if total is None else total
        super().__init__("; ".join(map(str, self.faults[:3])) + (" ..." if self.total > 3 else ""))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A question, "did you mean 'Biscoe'?", when `word` is close to one of `known`; else an empty string.

    Looks at the first 1000 names and at words of up to 100 letters, for the words come from strangers.
    """
    if not isinstance(word, str) or len(word) > 100:
        return ""
    by_fold = {name.casefold(): name for name in islice(known, 1000)}
    close = difflib.get_close_matches(word.casefold(), by_fold, n=1)
    return f"did you mean {by_fold[close[0]]!r}?" if close else ""
