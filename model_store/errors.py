"""The errors of model_store. ModelStoreError is the base of all.

Each message names a location, what was expected and what was found; a `Fault` adds a fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from model_store.similar_names import closest_name


class ModelStoreError(Exception):
    """Base class of all errors of this package."""


class ArtifactError(ModelStoreError):
    """The file is not a valid artifact; nothing in it is used."""


class TrustError(ModelStoreError):
    """No trusted key has signed the model, or a key cannot be used."""


class SigningKeyError(TrustError):
    """A file cannot be read as a key, or a key cannot be written there."""


class StoreError(ModelStoreError):
    """The store cannot carry out an operation: an invalid name, no permission, a full disk."""


class NotFoundError(StoreError):
    """There is no model, version or alias of that name. `known` lists the existing names."""

    def __init__(self, message: str, known: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.known = list(known)


class ConflictError(StoreError):
    """Another process was first, or the operation would break what others rely on."""


class ModelImportError(ModelStoreError):
    """A file of another framework cannot become a model: it is damaged, or has what our layers cannot compute."""


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
    """An invalid input, with its faults: `faults` holds the first MAX_FAULTS, `total` counts all, up to MAX_COUNTED."""

    MAX_FAULTS = 100
    MAX_COUNTED = 10_000

    def __init__(self, faults: Sequence[Fault], total: int | None = None) -> None:
        self.faults = list(faults[: self.MAX_FAULTS])
        self.total = min(len(faults) if total is None else total, self.MAX_COUNTED)
        super().__init__("; ".join(map(str, self.faults[:3])) + (" ..." if self.total > 3 else ""))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return "did you mean 'Biscoe'?" if `word` is close to one of `known`, else an empty string.

    The words are untrusted; the cost is bounded (similar_names.py).
    """
    close = closest_name(word, known) if isinstance(word, str) else None
    return "" if close is None else f"did you mean {close!r}?"
