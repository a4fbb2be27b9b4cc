"""The errors of model_store. ModelStoreError is the base of all.

Each message names a location, what was expected and what was found; a `Fault` adds a fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice


class ModelStoreError(Exception):
    """Base class of all errors of this package."""


class ArtifactError(ModelStoreError):
    """The file is not a valid artifact; nothing in it is used."""


class TrustError(ModelStoreError):
    """No trusted key has signed the model, or a key cannot be used."""


class StoreError(ModelStoreError):
    """The store cannot carry out an operation: an invalid name, no permission, a full disk."""


class NotFoundError(StoreError):
    """There is no model, version or alias of that name. `known` lists the existing names."""

    def __init__(self, message: str, known: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.known = list(known)


class ConflictError(StoreError):
    """Another process was first, or the operation would break what others rely on."""


@dataclass(frozen=True)
class Fault:
    """One error in an input: location, problem and fix."""

    location: str
    problem: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.location}: {self.problem}" + (f" ({self.fix})" if self.fix else "")

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class InputError(ModelStoreError):
    """An invalid input, with all its faults: `faults` holds the first MAX_FAULTS, `total` counts all."""

    MAX_FAULTS = 100

    def __init__(self, faults: Sequence[Fault], total: int | None = None) -> None:
        self.faults = list(faults[: self.MAX_FAULTS])
        self.total = len(faults) if total is None else total
        super().__init__("; ".join(map(str, self.faults[:3])) + (" ..." if self.total > 3 else ""))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return "did you mean 'Biscoe'?" if `word` is close to one of `known`, else an empty string.

    At most 1000 names and words of 100 characters are compared, since the words are untrusted.
    """
    if not isinstance(word, str) or len(word) > 100:
        return ""
    by_fold = {name.casefold(): name for name in islice(known, 1000)}
    close = difflib.get_close_matches(word.casefold(), by_fold, n=1)
    return f"did you mean {by_fold[close[0]]!r}?" if close else ""
