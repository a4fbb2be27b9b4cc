"""The unanswered: why nothing in memory can answer a request, which is nobody's fault or the caller's."""

from __future__ import annotations

from collections.abc import Iterable

from model_store.errors import Fault, NotFoundError, did_you_mean
from model_store.utils.values import describe_value, list_names


class UnknownModelError(NotFoundError):
    """Asked for a model or version that is not there. `known` are those that are."""

    def __init__(self, location: str, found: object, known: list[str]) -> None:
        self.code = f"unknown_{location}"
        hint = did_you_mean(found, known)
        self.fault = Fault(location, f"expected one of {list_names(known)}; found {describe_value(found)}", hint)
        super().__init__(
            f"there is no {location} {describe_value(found)}; {hint or 'there are ' + list_names(known)}", known
        )


class UnavailableError(Exception):
    """Known, but nothing in memory can answer."""

    def __init__(self, code: str, message: str, fault: Fault) -> None:
        self.code, self.fault = code, fault
        super().__init__(message)


class WouldBlock(BaseException):
    """An answer has to wait for a load, and whoever asks must not. No error, so that nothing takes it for one.

    `number` is the version that is to be loaded.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        super().__init__("this has to wait for a load")


def unloaded_error(name: str) -> UnavailableError:
    fix = f"POST /v2/repository/models/{name}/load puts it back"
    return UnavailableError("model_unavailable", f"{name} has been unloaded; {fix}", Fault(name, "is unloaded", fix))


def load_error(name: str, number: int, problem: str) -> UnavailableError:
    fault = Fault(f"{name}/{number}", problem, "ask for another version")
    return UnavailableError("model_unavailable", f"{fault.location} cannot be loaded", fault)


def no_version_error(name: str, problems: Iterable[Fault]) -> UnavailableError:
    reasons = [problem for problem in problems if problem.location.startswith(f"{name}/")]
    reason = reasons[0] if reasons else Fault(name, "cannot be loaded")
    return UnavailableError("model_unavailable", f"no version of {name} can answer", reason)
