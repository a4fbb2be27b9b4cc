"""What the job file's schema is made of: fields that tell a fault by what was expected, found and how to mend it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load

from model_store.errors import Fault, did_you_mean

# What faults are made of -------------------------------------------------------------------------------------------


def faulty(problem: str, fix: str = "", key: str | None = None) -> ValidationError:
    faults: list[Any] = [Fault("", problem, fix)]
    return ValidationError(faults if key is None else {key: faults})


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def named(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def one_of(names: Sequence[str]) -> str:
    return f"one of {named(names)}" if len(names) > 1 else named(names)


def shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "..."


# Fields --------------------------------------------------------------------------------------------------------------


class Setting(fields.Field[Any]):
    """A value that `accept` takes, or a fault saying what was `expected`."""

    def __init__(self, expected: str, accept: Callable[[Any], bool], *, required: bool = False) -> None:
        super().__init__(required=required, error_messages={"required": f"missing; expected {expected}"})
        self.expected = expected
        self.accept = accept

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> Any:
        if not self.accept(value):
            raise faulty(f"expected {self.expected}; found {shown(value)}", self.fix(value))
        return value

    def fix(self, value: Any) -> str:
        """How to mend a wrong value, if one can tell: by leaving its quotes out."""
        if not isinstance(value, str):
            return ""
        for kind in (int, float):
            try:
                return f"write {value} without quotes" if self.accept(kind(value)) else ""
            except ValueError:
                continue
        return ""


class Choice(Setting):
    """One of a few names."""

    def __init__(self, names: Sequence[str], *, required: bool = False) -> None:
        super().__init__(one_of(names), lambda value: isinstance(value, str) and value in names, required=required)
        self.names = names

    def fix(self, value: Any) -> str:
        return did_you_mean(value, self.names) if isinstance(value, str) else ""


class Section(fields.Nested):
    """A table of the job file."""

    def __init__(self, schema: type[Schema], *, required: bool = False) -> None:
        message = "missing; expected this section"
        super().__init__(schema, required=required, error_messages={"required": message, "null": message})


def text() -> Setting:
    return Setting("a text", lambda value: isinstance(value, str))


def whole_number(low: int, high: int) -> Setting:
    expected = f"a whole number of at least {low}" if high > 2**31 else f"a whole number from {low} to {high}"
    return Setting(expected, lambda value: whole(value, low, high))


def number(expected: str, accept: Callable[[float], bool]) -> Setting:
    return Setting(expected, lambda value: is_number(value) and math.isfinite(value) and accept(value))


# Sections ------------------------------------------------------------------------------------------------------------


class Base(Schema):
    """A section that turns into its dataclass."""

    section: ClassVar[type]

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return self.section(**data)

    def handle_error(self, error: ValidationError, data: Any, **_: Any) -> None:
        """Turn marshmallow's messages for this section into faults."""
        messages: Any = error.messages
        for key, found in messages.items():
            if found == [self.error_messages["unknown"]]:
                messages[key] = [Fault("", "unknown key", self.fix_unknown(key))]
            elif found == [self.error_messages["type"]]:
                messages[key] = [Fault("", f"expected a table of keys; found {shown(data)}")]

    def fix_unknown(self, key: str) -> str:
        if elsewhere := [location for location, schema in SECTIONS.items() if key in schema._declared_fields]:
            return f"it belongs in [{elsewhere[0]}]"
        return did_you_mean(key, self.fields) or f"known keys: {', '.join(self.fields)}"


SECTIONS: dict[str, type[Base]] = {}  # of the job file, by name; job_schema.py fills it
