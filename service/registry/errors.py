"""Errors of the registry: unknown models, unavailable models, and loads that the event loop must not wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model_store.errors import Fault, NotFoundError, did_you_mean
from model_store.utils.values import describe_value, list_names
from service.http.model_version import AT_LEAST_HEADER


class UnknownModelError(NotFoundError):
    """The requested model or version does not exist; `known` lists those that do."""

    def __init__(self, location: str, found: object, known: list[str]) -> None:
        self.code = f"unknown_{location}"
        hint = did_you_mean(found, known)
        fix = hint or "send one of these, or train and publish it first"
        self.fault = Fault(location, f"expected one of {list_names(known)}; found {describe_value(found)}", fix)
        super().__init__(
            f"there is no {location} {describe_value(found)}; {hint or 'there are ' + list_names(known)}", known
        )


class UnavailableError(Exception):
    """The model is known, but no version of it can be served now. `retry_after`: seconds that a client should wait."""

    def __init__(self, code: str, message: str, fault: Fault, retry_after: int = 5) -> None:
        self.code, self.fault, self.retry_after = code, fault, retry_after
        super().__init__(message)


class WouldBlock(BaseException):
    """The request must wait for a load of version `number`, or for the store, and this thread must not wait.

    Derives from BaseException so that `except Exception` cannot swallow it.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        super().__init__("this must wait for a load")


def unloaded_error(name: str) -> UnavailableError:
    fix = f"to load it again, POST /v2/repository/models/{name}/load"
    return UnavailableError("model_unavailable", f"{name} has been unloaded; {fix}", Fault(name, "is unloaded", fix))


def load_error(name: str, number: int, problem: str) -> UnavailableError:
    fault = Fault(f"{name}/{number}", problem, "request another version")
    return UnavailableError("model_unavailable", f"{fault.location} cannot be loaded", fault)


def older_version_error(name: str, found: int, expected: int, stored: Sequence[int], seconds: int) -> UnavailableError:
    """Return the error for a default version or an alias that is older than the client expects.

    `stored`: the numbers of the versions in the store, as last read. `seconds`: until the store may be read again.
    """
    problem = f"expected version {expected} or newer of {name}, found {found}"
    if any(number >= expected for number in stored):
        fix = "send a smaller number if an older version was chosen on purpose, or try again"
    else:
        fix = "try again: this replica has not yet found a newer version"
    return UnavailableError("older_version", f"{problem}; {fix}", Fault(AT_LEAST_HEADER, problem, fix), seconds)


def budget_error(name: str, number: int, seconds: int) -> UnavailableError:
    problem = f"is not in memory, and no version is loaded for a request now; try again in {seconds} s"
    fix = "give it an alias, or raise SERVE_MAX_EXTRA_VERSIONS, so that it stays in memory"
    fault = Fault(f"{name}/{number}", problem, fix)
    return UnavailableError("loading", f"{fault.location} {problem}", fault, seconds)


def no_version_error(name: str, problems: Iterable[Fault]) -> UnavailableError:
    problems = list(problems)
    reasons = [problem for problem in problems if problem.location.startswith(f"{name}/")]
    reasons += [problem for problem in problems if problem.location in {"store", "models"}]
    fix = f"see the service's log, or run: models verify {name}"
    reason = reasons[0] if reasons else Fault(name, "cannot be loaded", fix)
    return UnavailableError("model_unavailable", f"no version of {name} can be served", reason)


def no_model_error(problems: Iterable[Fault]) -> UnavailableError:
    """Return the error for a service that knows no model: the store is empty or cannot be read, or it is starting."""
    train = "train one: train examples/penguins.toml"
    reason = next((problem for problem in problems if problem.location in {"store", "models"}), None)
    if reason is None:
        return UnavailableError("no_model", f"the store has no model; {train}", Fault("store", "is empty", train))
    starting = reason.location == "models"
    hint = "" if starting else f"; if the store is new, {train}"
    return UnavailableError(
        "model_unavailable" if starting else "no_model", f"no model can be served: {reason}{hint}", reason
    )
