"""Building blocks of the job file's schema: fields and sections that report faults with a location and a fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load

from model_store.errors import Fault, did_you_mean
from model_store.utils.values import describe_value, is_finite_number

# Helpers for faults --------------------------------------------------------------------------------------------------


def validation_error(problem: str, fix: str = "", key: str | None = None) -> ValidationError:
    """Return marshmallow's error for one fault, of the section's `key` if given."""
    faults: list[Any] = [Fault("", problem, fix)]
    return ValidationError(faults if key is None else {key: faults})


def flatten_messages(messages: Any, location: str = "") -> Iterator[Fault]:
    """Yield the faults of marshmallow's nested messages, each with its location."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from flatten_messages(inner, location if key == "_schema" else f"{location}.{key}".removeprefix("."))
        return
    for found in messages:
        yield replace(found, location=location) if isinstance(found, Fault) else Fault(location, str(found))


def is_integer_between(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def quoted(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def one_of(names: Sequence[str]) -> str:
    return f"one of {quoted(names)}" if len(names) > 1 else quoted(names)


# Fields --------------------------------------------------------------------------------------------------------------


class CheckedField(fields.Field[Any]):
    """A field whose value must satisfy `is_valid`; the fault of any other value says what was `expected`."""

    def __init__(self, expected: str, is_valid: Callable[[Any], bool], *, required: bool = False) -> None:
        super().__init__(required=required, error_messages={"required": f"missing; expected {expected}"})
        self.expected = expected
        self.is_valid = is_valid

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> Any:
        if not self.is_valid(value):
            raise validation_error(f"expected {self.expected}, found {describe_value(value)}", self.suggest_fix(value))
        return value

    def suggest_fix(self, value: Any) -> str:
        """Suggest removing the quotes if the value is valid without them."""
        if not isinstance(value, str):
            return ""
        for kind in (int, float):
            try:
                return f"write {value} without quotes" if self.is_valid(kind(value)) else ""
            except ValueError:
                continue
        return ""


class ChoiceField(CheckedField):
    """A field whose value is one of a few names."""

    def __init__(self, names: Sequence[str], *, required: bool = False) -> None:
        super().__init__(one_of(names), lambda value: isinstance(value, str) and value in names, required=required)
        self.names = names

    def suggest_fix(self, value: Any) -> str:
        return did_you_mean(value, self.names) if isinstance(value, str) else ""


class SectionField(fields.Nested):
    """A table of the job file."""

    def __init__(self, schema: type[Schema], *, required: bool = False) -> None:
        message = "missing; expected this section"
        super().__init__(schema, required=required, error_messages={"required": message, "null": message})


def text_field() -> CheckedField:
    return CheckedField("text", lambda value: isinstance(value, str))


def integer_field(low: int, high: int) -> CheckedField:
    expected = f"an integer of at least {low}" if high > 2**31 else f"an integer from {low} to {high}"
    return CheckedField(expected, lambda value: is_integer_between(value, low, high))


def number_field(expected: str, is_valid: Callable[[float], bool]) -> CheckedField:
    return CheckedField(expected, lambda value: is_finite_number(value) and is_valid(value))


# Sections ------------------------------------------------------------------------------------------------------------


class SectionSchema(Schema):
    """The schema of a section, which loads into the dataclass `settings_class`.

    `renamed_keys` maps keys of earlier versions to their new names.
    """

    settings_class: ClassVar[type]
    renamed_keys: ClassVar[Mapping[str, str]] = {}

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return self.settings_class(**data)

    def handle_error(self, error: ValidationError, data: Any, **_: Any) -> None:
        """Turn marshmallow's messages for this section into faults."""
        messages: Any = error.messages
        for key, found in messages.items():
            if found == [self.error_messages["unknown"]]:
                messages[key] = [Fault("", "unknown key", self.suggest_key(key))]
            elif found == [self.error_messages["type"]]:
                messages[key] = [Fault("", f"expected a table of keys, found {describe_value(data)}")]

    def suggest_key(self, key: str) -> str:
        """Suggest a key or section for an unknown key."""
        if key in self.renamed_keys:
            return f"rename it to '{self.renamed_keys[key]}'"
        if elsewhere := [name for name, schema in SECTION_SCHEMAS.items() if key in schema._declared_fields]:
            return f"it belongs in [{elsewhere[0]}]"
        return did_you_mean(key, self.fields) or f"known keys: {', '.join(self.fields)}"


SECTION_SCHEMAS: dict[str, type[SectionSchema]] = {}  # of the job file, by name; filled by schema.py
