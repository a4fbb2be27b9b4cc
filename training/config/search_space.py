"""The search space of a sweep: the tables `[search.data]`, `[search.network]` and `[search.train]`.

Each mirrors a section of the job, with distributions in place of values:

    [search.train]
    learning_rate = { log_uniform = [0.001, 0.3] }
    batch_size = { choice = [32, 64, 128] }

    [search.network]
    layers = [{ log_integer = [16, 256] }, "relu", { dropout = { uniform = [0, 0.5] } }]

A parameter is named by the location of its value in the job, such as `train.learning_rate` and `network.layers.0`. A
trial gives each of them a value; `SearchSpace.overrides` then has the keys of the job as `--set` would set them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from model_store.errors import Fault, did_you_mean
from model_store.utils.values import describe_value, is_finite_number
from training.config.fields import quoted

MAX_PARAMETERS, MAX_CHOICES = 50, 100
_MIN_SIZE = 1e-300  # of numbers other than 0
_MIN_DIFFERENCE, _MIN_STEP = 1e-9, 1e-6  # of the largest number: of the lowest and the highest, and of two values
_RANGES = {  # whether the values are integers, and whether their logarithm is uniform
    "uniform": (False, False),
    "log_uniform": (False, True),
    "integer": (True, False),
    "log_integer": (True, True),
}
KINDS = (*_RANGES, "choice")
_EXAMPLE = "{ log_uniform = [0.001, 0.1] } or { choice = [32, 64] }"
SEARCHED_SECTIONS = ("data", "network", "train")
_SEARCHED_DATA = ("scale", "target_transform", "indicators")
_FIXED = {  # what no trial may change, and why
    "train.seed": "the split of the rows depends on it",
    "train.threads": "it changes no result",
    "train.early_stopping.metric": "trials would be compared by different metrics",
}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log` spreads their logarithms evenly."""

    low: float
    high: float
    integer: bool = False
    log: bool = False
    step: float | None = None

    @property
    def extremes(self) -> list[Any]:
        return [self.low, self.high]

    def contains(self, value: Any) -> bool:
        """Return True if a trial may have this value."""
        if not is_finite_number(value) or not self.low <= value <= self.high:
            return False
        if self.integer and not isinstance(value, int):
            return False
        return self.step is None or math.isclose((value - self.low) / self.step, round((value - self.low) / self.step))

    @property
    def values(self) -> list[Any] | None:
        """All values, or None if they cannot be listed."""
        step = self.step or (1 if self.integer else None)
        if step is None or (self.high - self.low) / step >= 1000:
            return None
        count = int((self.high - self.low) / step + 1e-9) + 1
        if self.integer:
            return [int(self.low + i * step) for i in range(count)]
        return [_stepped(self.low, step, i) for i in range(count)]

    def nearest(self, value: Any) -> Any:
        """Return the value that the steps reach for one that was computed in binary: 0.9 for 0 + 3 * 0.3."""
        if self.step is None or self.integer:
            return value
        return _stepped(self.low, self.step, round((value - self.low) / self.step))


def _stepped(low: float, step: float, count: int) -> float:
    """Return `low + count * step` of the decimal numbers, not the binary ones: 3 steps of 0.3 are 0.9."""
    return float(Decimal(str(low)) + count * Decimal(str(step)))


@dataclass(frozen=True)
class Choice:
    """One of some values, which may be lists and tables."""

    options: tuple[Any, ...]

    @property
    def extremes(self) -> list[Any]:
        return list(self.options)

    def contains(self, value: Any) -> bool:
        """Return True if a trial may have this value."""
        return value in self.options

    @property
    def values(self) -> list[Any] | None:
        """All values."""
        return list(self.options)


Distribution = Range | Choice


@dataclass(frozen=True)
class SearchSpace:
    """`parameters`, the distributions by location, and the template of the job's sections that they are in."""

    parameters: Mapping[str, Distribution] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """The number of sets of values, or None if they are not finite."""
        values = [one.values for one in self.parameters.values()]
        return None if None in values else math.prod(len(found or ()) for found in values)

    def overrides(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys of the job that a trial sets, by location, for the values of its parameters."""
        return dict(_fill(self.template, "", values))

    def initial_values(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the values that a job has by itself; None if it lacks one, or one is outside of its distribution."""
        found = {location: _value_at(job, location.split(".")) for location in self.parameters}
        inside = all(distribution.contains(found[name]) for name, distribution in self.parameters.items())
        return found if inside else None


def parse_space(template: Mapping[str, Any]) -> SearchSpace | dict[str, Any]:
    """Return the space of the tables by section, or their faults as marshmallow nests them."""
    faults: dict[str, Any] = {}
    parameters: dict[str, Distribution] = {}
    for section, keys in template.items():
        if not isinstance(keys, Mapping) or not keys:
            problem = f"expected keys of [{section}] with distributions, found {describe_value(keys)}"
            faults[section] = [Fault("", problem, f"such as learning_rate = {_EXAMPLE}")]
            continue
        for key, value in keys.items():
            if found := _collect(value, f"{section}.{key}", parameters):
                faults.setdefault(section, {})[key] = found
    if faults:
        return faults
    if len(parameters) > MAX_PARAMETERS:
        return {"_schema": [Fault("", f"expected at most {MAX_PARAMETERS} parameters, found {len(parameters)}")]}
    return SearchSpace(parameters, template)


def _fixed_faults(location: str) -> list[Fault]:
    """Return the fault of a key that all trials share."""
    section, key = location.split(".", 1)
    if section == "data" and key not in _SEARCHED_DATA:
        fix = did_you_mean(key, _SEARCHED_DATA) or f"write it in [data]; of its keys, search {quoted(_SEARCHED_DATA)}"
        return [Fault("", "cannot be searched: all trials have the same rows and columns", fix)]
    if location in _FIXED:
        return [Fault("", f"cannot be searched: {_FIXED[location]}", f"write it in [{section}]")]
    return []


def is_distribution(value: Any) -> bool:
    """Return True for a table such as `{ uniform = [0, 1] }`."""
    return isinstance(value, Mapping) and any(kind in value for kind in KINDS)


def _collect(value: Any, location: str, parameters: dict[str, Distribution]) -> Any:
    """Add the distributions inside a value to `parameters`. Return its faults, nested by key; empty if it has none."""
    if faults := _fixed_faults(location):
        return faults
    if is_distribution(value):
        found = _parse_distribution(value)
        if isinstance(found, dict):
            return found
        parameters[location] = found
        return None
    if isinstance(value, Mapping):
        if dotted := next((key for key in value if "." in key), None):
            return [Fault("", f"expected keys without dots, found {dotted!r}", "search another key")]
        if fix := next(
            (hint for key in value if isinstance(value[key], list) and (hint := did_you_mean(key, KINDS))), ""
        ):
            return [Fault("", f"expected a distribution such as {_EXAMPLE}, found {quoted(value)}", fix)]
    if isinstance(value, Mapping) and any(isinstance(inner, (Mapping, list)) for inner in value.values()):
        return {
            key: found for key, inner in value.items() if (found := _collect(inner, f"{location}.{key}", parameters))
        }
    if isinstance(value, list) and _has_distribution(value):
        return _collect_inside(value, location, parameters)
    fix = "a fixed value belongs in the section of the job"
    return [Fault("", f"expected a distribution such as {_EXAMPLE}, found {describe_value(value)}", fix)]


def _collect_inside(value: Any, location: str, parameters: dict[str, Distribution]) -> Any:
    """Like `_collect`, for a part of a list, which may have fixed values beside the distributions."""
    if is_distribution(value):
        return _collect(value, location, parameters)
    items: Iterator[tuple[Any, Any]] = iter(value.items()) if isinstance(value, Mapping) else enumerate(value)
    return {
        str(key): found
        for key, inner in items
        if _has_distribution(inner) and (found := _collect_inside(inner, f"{location}.{key}", parameters))
    }


def _has_distribution(value: Any) -> bool:
    if is_distribution(value):
        return True
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(map(_has_distribution, parts))


def _parse_distribution(table: Mapping[str, Any]) -> Distribution | dict[str, list[Fault]]:
    """Return the distribution of a table, or its faults by key."""
    kind = next(key for key in KINDS if key in table)
    known = [kind, "step"] if kind in ("uniform", "integer") else [kind]
    for key in table:
        if key not in known:
            return {key: [Fault("", "unknown key", did_you_mean(key, known) or f"known keys: {', '.join(known)}")]}
    value = table[kind]
    if kind == "choice":
        return _parse_choice(value)
    integer, log = _RANGES[kind]
    numbers = "two integers" if integer else "two numbers"
    is_valid = isinstance(value, list) and len(value) == 2 and all(map(is_finite_number, value))
    if not is_valid or (integer and not all(isinstance(number, int) for number in value)):
        return {kind: [Fault("", f"expected {numbers}, the lowest and the highest, found {describe_value(value)}")]}
    low, high = value
    if low >= high:
        return {kind: [Fault("", f"expected a lowest number below the highest, found {describe_value(value)}")]}
    if max(abs(low), abs(high)) > 2**53:
        return {kind: [Fault("", f"expected numbers up to 2**53, found {describe_value(value)}")]}
    largest = max(abs(low), abs(high))
    if any(0 < abs(number) < _MIN_SIZE for number in value):
        problem = f"expected 0 or numbers of at least {_MIN_SIZE:g} in size, found {describe_value(value)}"
        return {kind: [Fault("", problem, "write larger numbers")]}
    if not integer and high - low < _MIN_DIFFERENCE * largest:
        problem = f"expected numbers that differ by more than a billionth, found {describe_value(value)}"
        return {kind: [Fault("", problem, "write numbers that are further apart, or a fixed value in the section")]}
    if log and low <= 0:
        plain = kind.removeprefix("log_")
        problem = f"expected numbers above 0 on a logarithmic scale, found {describe_value(value)}"
        return {kind: [Fault("", problem, f"write {plain}, or a lowest number above 0")]}
    step = table.get("step")
    if step is not None and not (is_finite_number(step) and 0 < step <= high - low):
        return {"step": [Fault("", f"expected a number above 0, at most {high - low:g}, found {describe_value(step)}")]}
    if step is not None and integer and not isinstance(step, int):
        return {"step": [Fault("", f"expected an integer, found {describe_value(step)}")]}
    if step is not None and not integer and step < _MIN_STEP * largest:
        problem = f"expected at least {_MIN_STEP * largest:g}, a millionth of the largest number, found {step:g}"
        return {"step": [Fault("", problem, "write a larger step, or none")]}
    if step is not None:  # the highest value is one that the steps reach
        count = math.floor((high - low) / step + 1e-9)
        high = low + count * step if integer else _stepped(low, step, count)
    return Range(low, high, integer, log, step)


def _parse_choice(value: Any) -> Choice | dict[str, list[Fault]]:
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_CHOICES:
        problem = f"expected a list of 2 to {MAX_CHOICES} values, found {describe_value(value)}"
        return {"choice": [Fault("", problem)]}
    texts = [value_text(option) for option in value]
    if double := next((text for i, text in enumerate(texts) if text in texts[:i]), None):
        return {"choice": [Fault("", f"{double} is listed twice", "list each value once")]}
    if any(_has_distribution(option) for option in value):
        return {"choice": [Fault("", "expected fixed values, found a distribution inside", "write each value out")]}
    return Choice(tuple(value))


def value_text(value: Any) -> str:
    """Return a value as compact JSON, which identifies it."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(", ", ": "), default=str)


def _fill(template: Any, location: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the job that a template sets: lists as a whole, tables key by key."""
    if location in values:
        yield location, values[location]
    elif isinstance(template, Mapping):
        for key, inner in template.items():
            yield from _fill(inner, f"{location}.{key}".removeprefix("."), values)
    else:
        yield location, _filled(template, location, values)


def _filled(template: Any, location: str, values: Mapping[str, Any]) -> Any:
    if location in values:
        return values[location]
    if isinstance(template, Mapping):
        return {key: _filled(inner, f"{location}.{key}", values) for key, inner in template.items()}
    if isinstance(template, list):
        return [_filled(inner, f"{location}.{i}", values) for i, inner in enumerate(template)]
    return template


def _value_at(content: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(content, Mapping):
            content = content.get(part)
        elif isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        else:
            return None
    return content
