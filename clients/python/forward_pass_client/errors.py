"""The exceptions of the client. ServiceError is the base of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ServiceError(Exception):
    """The service did not respond, or returned an error. `status` is None if there was no response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class NotFoundError(ServiceError):
    """The service has no model, version or alias of that name."""


class Fault(NamedTuple):
    """One error in the rows: location, problem and fix, such as `instances.0.island`."""

    location: str
    problem: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.location}: {self.problem}" + (f" ({self.fix})" if self.fix else "")


class InputError(ServiceError):
    """Invalid rows, with all faults that the service reports. `status` is None if the client found them itself."""

    def __init__(self, faults: Sequence[Fault], status: int | None = None) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(map(str, faults[:3])) + (" ..." if len(faults) > 3 else ""), status)
