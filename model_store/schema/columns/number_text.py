"""How the numbers of a column are written: signs of decimals and thousands, units, bounds, words for a missing value.

Training infers it from the cells of a column, the artifact records it, and the service parses texts with it, so that
`"$1,200"` and 1200 are the same feature.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from marshmallow import ValidationError, fields

from model_store.schema.columns.units import MAX_UNITS, combine_units
from model_store.utils.values import parse_finite_number

MAX_NUMBER_TEXT = 64  # characters; longer texts are no numbers
MAX_UNIT = 12
MAX_MISSING_WORDS = 5
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2212": "-"})
_CURRENCY = r"(?:[A-Z]{0,2}[$€£¥₹₽₩₺₫₪]|USD|EUR|GBP|JPY|CHF|AUD|CAD|CNY|INR|Rs\.?)"
_UNIT = re.compile(rf"{_CURRENCY}|%|[^\W\d_°²³/.%]{{1,8}}[²³.]?|°[CFK]?|[^\W\d_]{{1,5}}/[^\W\d_]{{1,4}}[²³]?")
_PREFIX_UNIT = re.compile(_CURRENCY)
# Decimal and group signs, the first that reads all cells is chosen: "1,234" is 1234, and "1.234" is 1.234.
_DURATION_STYLE = (".", ":")  # 1:30:00, and 1h 30m: seconds
_DURATION = re.compile(r"(?:([0-9]{1,6}) days?,? )?([0-9]{1,5}):([0-5][0-9])(?::([0-5][0-9](?:\.[0-9]{1,9})?))?")
_PARTS = re.compile(r"[0-9.]+")
# The signs of a bound or a range are found first, and what is beside them is checked once: one expression for all of it
# took 40 µs for a text of 62 digits, as it tried each digit as the last one.
_BOUND_SIGNS = frozenset("<>≤≥~+")
_BOUND_SIGN = re.compile(r"(?:[<>]=?|[≤≥~]) ?")
_RANGE_SIGN = re.compile(r"(?<=[0-9.,]) ?(?:-|–|—|to) ?(?=[0-9])")
_FIRST_DIGIT = re.compile(r"\S*?[0-9]")
PARSE_CHARACTERS = 48  # to parse a short text takes up to 8 µs, as long as to hash so many characters of text
BOUNDS_WORK = 3  # times as long takes a text that may be a bound or a range: it is split, and then both parts parsed
PLAIN_CHARACTERS = 10
MAX_PARSE_CHARACTERS = BOUNDS_WORK * (PARSE_CHARACTERS + 4 * MAX_UNITS) + MAX_NUMBER_TEXT
_COUNT = r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?"
_NAMED_PARTS = re.compile(
    rf"(?:{_COUNT}d(?:ays?)?,? ?)?(?:{_COUNT}h(?:(?:ou)?rs?)?,? ?)?"
    rf"(?:{_COUNT}m(?:in(?:ute)?s?)?,? ?)?(?:{_COUNT}s(?:ec(?:ond)?s?)?)?",
    re.IGNORECASE,
)
_STYLES = ((".", ""), (".", ","), (",", "."), (",", ""), (".", " "), (",", " "), (".", "'"), (",", "'"))


@cache
def _pattern(decimal: str, group: str) -> re.Pattern[str]:
    digits = r"[0-9]++" if not group else rf"(?:[0-9]{{1,3}}(?:{re.escape(group)}[0-9]{{3}})++|[0-9]++)"
    sign = re.escape(decimal)
    return re.compile(rf"({digits}(?:{sign}[0-9]*+)?+|{sign}[0-9]++)([eE][+-]?+[0-9]{{1,3}}+)?+")


@cache
def _plain_pattern(decimal: str) -> re.Pattern[str]:
    return re.compile(rf"[+-]?+[0-9]++(?:{re.escape(decimal)}[0-9]*+)?+")


@dataclass(frozen=True)
class NumberFormat:
    """The signs of a decimal point and of thousands, a unit before or after the number, and words for a missing one.

    With a colon between groups the numbers are durations: see `parse_duration`. `units` are others, in lower case, with
    the factor that converts a number to `unit`. With `bounds`, texts such as "<5", "65+" and "1-2" are numbers too: the
    bound, or the middle of the range.
    """

    decimal: str = "."
    group: str = ""
    unit: str = ""
    missing: tuple[str, ...] = ()
    units: Mapping[str, float] = field(default_factory=dict)
    bounds: bool = False

    def parse(self, text: str) -> float | None:
        """Return the finite number that a text spells, NaN for a word that means missing, None for other texts.

        A number in parentheses is negative, as in accounting. The unit may be left out.
        """
        if len(text) > MAX_NUMBER_TEXT:
            return None
        text = text.strip()
        if text.lower() in self._missing_words:
            return math.nan
        if self._plain.fullmatch(text):
            return float(text.replace(self.decimal, "."))
        text, negative = text.translate(_SPACES).strip(), False
        if self.bounds and (parts := split_bounds(text)):
            values = [value for part in parts if (value := self._exact.parse(part)) is not None]
            return sum(values) / len(values) if len(values) == len(parts) else None
        if self.group == ":" and (duration := parse_duration(text)) is not None:
            return duration
        if text.startswith("(") and text.endswith(")"):
            text, negative = text[1:-1].strip(), True
        text, factor = self._split_factor(text)
        sign, text = _split_sign(text)
        text, other_factor = self._split_factor(text)
        if not sign:
            sign, text = _split_sign(text)
        if not negative and text.startswith("(") and text.endswith(")"):
            text, negative = text[1:-1].strip(), True
        if not (found := _pattern(self.decimal, self.group).fullmatch(text)) or (negative and sign):
            return None
        plain = found[1].replace(self.group, "") if self.group else found[1]
        value = float(plain.replace(self.decimal, ".") + (found[2] or "")) * factor * other_factor
        return None if math.isinf(value) else -value if negative or sign == "-" else value

    @cached_property
    def _plain(self) -> re.Pattern[str]:
        return _plain_pattern(self.decimal)

    def parse_characters(self, text: str) -> int:
        """Return as how many characters of text it counts to parse this one, few for a plain number.

        Every unit is tried, and those of both parts of a range.
        """
        if self._plain.fullmatch(text.strip()):
            return PLAIN_CHARACTERS
        work = PARSE_CHARACTERS + 4 * len(self.units)
        return (BOUNDS_WORK * work if self.bounds else work) + min(len(text), MAX_NUMBER_TEXT)

    @cached_property
    def _missing_words(self) -> frozenset[str]:
        return frozenset(word.lower() for word in self.missing)

    @cached_property
    def _exact(self) -> NumberFormat:
        return replace(self, bounds=False)

    @cached_property
    def _factors(self) -> list[tuple[str, float]]:
        """The units, the longest ones first, with their factors."""
        factors = {**self.units, **({self.unit.lower(): 1.0} if self.unit else {})}
        return sorted(factors.items(), key=lambda item: -len(item[0]))

    def _split_factor(self, text: str) -> tuple[str, float]:
        """Return a text without a unit before or after it, and the factor of the unit."""
        for unit, factor in self._factors:
            if text[: len(unit)].lower() == unit:
                return text[len(unit) :].strip(), factor
            if text[-len(unit) :].lower() == unit:
                return text[: -len(unit)].strip(), factor
        return text, 1.0

    @property
    def example(self) -> str:
        """A number in this format, "" if plain numbers are."""
        if self.group == ":":
            return "1:30:00"
        number = f"1{self.group}234" + (f"{self.decimal}5" if self.decimal == "," or not self.group else "")
        if self.unit and _PREFIX_UNIT.fullmatch(self.unit):
            return self.unit + number
        if self.unit:
            return number + ("" if self.unit == "%" else " ") + self.unit
        return number if self.decimal == "," or self.group else ""

    def describe(self, name: str, cells: Sequence[str | None]) -> str:
        """Return a note of how the cells of a column are read."""
        notes = []
        plain = [cell for cell in cells if cell is not None and parse_finite_number(cell) is None]
        read = next(((cell, value) for cell in plain if not math.isnan(value := self.parse(cell) or 0.0)), None)
        if read is not None:
            unit = f" ({self.unit})" if self.unit else " (durations)" if self.group == ":" else ""
            notes.append(f"column {name} is read as numbers{unit}: {read[0]!r} is {read[1]:.15g}")
        if self.units:
            other = next((cell for cell in plain if self._split_factor(cell.strip())[1] != 1), None)
            if other is not None and other != (read and read[0]):
                notes.append(f"{other!r} is {self.parse(other):.15g}")
        if self.bounds:
            bounds = [cell for cell in plain if split_bounds(cell)]
            cells_are = "1 cell is a bound or a range" if len(bounds) == 1 else f"{len(bounds)} are bounds or ranges"
            notes.append(f"{cells_are}, such as {bounds[0]!r}, and count as the bound or the middle")
        return join_missing_note(notes, name, self.missing, cells)

    def as_dict(self) -> dict[str, Any]:
        found = {"decimal": self.decimal, "group": self.group, "unit": self.unit, "missing": list(self.missing)}
        return found | ({"units": dict(self.units)} if self.units else {}) | ({"bounds": True} if self.bounds else {})

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> NumberFormat:
        """Return the format that valid JSON data describe."""
        units = {unit: float(factor) for unit, factor in found.get("units", {}).items()}
        bounds = bool(found.get("bounds"))
        return cls(found["decimal"], found["group"], found["unit"], tuple(found["missing"]), units, bounds)


def join_missing_note(notes: Sequence[str], name: str, missing: Sequence[str], cells: Sequence[str | None]) -> str:
    """Return notes on a column as one, with another of the words that mean a missing value, if there are any."""
    if not missing:
        return "; ".join(notes)
    counts = ", ".join(f"{word!r} in {cells.count(word)}" for word in missing)
    column = "" if notes else f"column {name}: "
    return "; ".join([*notes, f"{column}these words are read as missing values: {counts} cells"])


def check_missing_words(words: Any) -> None:
    """Raise ValidationError if JSON is not a list of words that mean a missing value."""
    if not isinstance(words, list) or len(words) > MAX_MISSING_WORDS:
        raise ValidationError(f"expected at most {MAX_MISSING_WORDS} words in missing")
    if not all(isinstance(word, str) and 0 < len(word) <= MAX_NUMBER_TEXT for word in words):
        raise ValidationError("expected words in missing")


class NumberFormatField(fields.Field[NumberFormat]):
    """A number format in the untrusted JSON of an artifact."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> NumberFormat:
        return _read_number_format(value)


def _read_number_format(value: Any) -> NumberFormat:
    """Return the format that JSON describes. ValidationError if it is none."""
    if not isinstance(value, dict) or value.keys() - {"units", "bounds"} != {"decimal", "group", "unit", "missing"}:
        raise ValidationError("expected an object with decimal, group, unit and missing")
    if not all(isinstance(value[key], str) for key in ("decimal", "group", "unit")):
        raise ValidationError("expected texts in decimal, group and unit")
    if (value["decimal"], value["group"]) not in (*_STYLES, _DURATION_STYLE):
        raise ValidationError("expected signs of decimals and thousands such as '.' and ','")
    if value["unit"] and (len(value["unit"]) > MAX_UNIT or not _UNIT.fullmatch(value["unit"])):
        raise ValidationError(f"expected a unit of at most {MAX_UNIT} characters, such as '$' or 'kg'")
    check_missing_words(value["missing"])
    _check_units(value.get("units", {"kg": 1.0}))
    if value.get("bounds", True) is not True:
        raise ValidationError("expected true for bounds, or none")
    return NumberFormat.from_dict(value)


def _check_units(units: Any) -> None:
    """Raise ValidationError if JSON is not an object of units with their factors."""
    if not isinstance(units, dict) or not 0 < len(units) <= MAX_UNITS:
        raise ValidationError(f"expected at most {MAX_UNITS} units with their factors")
    for unit, factor in units.items():
        if len(unit) > MAX_UNIT or unit != unit.lower() or not _UNIT.fullmatch(unit):
            raise ValidationError(f"expected units of at most {MAX_UNIT} characters in lower case, such as 'kg'")
        if type(factor) not in (int, float) or not 1e-30 <= factor <= 1e30:
            raise ValidationError("expected factors above 0, such as 0.001")


def infer_number_format(cells: Collection[str]) -> NumberFormat | None:
    """Return the first format in which all of the distinct texts are numbers, None if there is none."""
    found_units: Counter[str] = Counter()
    written: dict[str, str] = {}
    numbers, currencies, plain, is_code = set[str](), set[str](), False, False
    for cell in cells:
        split = _split_units(cell)
        if split is None:
            return None
        number, before, after = split
        numbers.add(number)
        plain |= not (before or after)
        is_code |= not before and len(after) == 1 and after.isupper() and not cell.strip().endswith(f" {after}")
        currencies |= {before.lower()} if before else set()
        for unit in filter(None, (before, after)):
            found_units[unit.lower()] += 1
            written.setdefault(unit.lower(), unit)
    if not numbers:
        return None
    base, units = next(iter(found_units), ""), dict[str, float]()
    if len(found_units) > 1:
        if (combined := combine_units(found_units, currencies, plain=plain)) is None:
            return None
        base, units = combined
    elif is_code and not any(sign in number for number in numbers for sign in ".,"):
        return None  # a code such as 12A, not a number such as 41.8C
    unit = written.get(base, "")
    for decimal, group in _STYLES:
        pattern = _pattern(decimal, group)
        if all(pattern.fullmatch(number) for number in numbers):
            found = NumberFormat(decimal, group, unit, units=units)
            return found if all(found.parse(cell) is not None for cell in cells) else None
    return None


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration such as 1:30:00, 2 days 04:30 or 1h 30m, None for other texts.

    Two numbers with a colon are minutes and seconds, or hours and minutes counted as such: 2:30 is 150.
    """
    if found := _DURATION.fullmatch(text):
        days, first, second, third = found.groups()
        value = 60.0 * int(first) + int(second)
        if third is not None or days is not None:
            value = 60 * value + float(third or 0)
        return value + 86_400.0 * int(days or 0)
    found = _NAMED_PARTS.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    return sum(size * float(part or 0) for size, part in zip((86_400, 3600, 60, 1), found.groups(), strict=True))


def are_durations(cells: Collection[str]) -> bool:
    """Return True if all of the distinct texts are durations, one of them of several parts: 5m may be a size."""
    found = [parse_duration(cell) is not None for cell in cells]
    return bool(found) and all(found) and any(":" in cell or len(_PARTS.findall(cell)) > 1 for cell in cells)


def split_bounds(text: str) -> tuple[str, ...]:
    """Return the number of a bound such as "<5" or "65+", the two of a range such as "1-2"; none of other texts."""
    if len(text) > MAX_NUMBER_TEXT:
        return ()
    text, number = text.strip(), ""
    if found := _BOUND_SIGN.match(text):
        number = text[found.end() :]
    elif text.endswith("+"):
        number = text[:-1].removesuffix(" ")
    if _FIRST_DIGIT.match(number) and _BOUND_SIGNS.isdisjoint(number):
        return (number,)
    return _split_range(text)


def _split_range(text: str) -> tuple[str, ...]:
    """Return the two numbers of a range, none of other texts: a hyphen, or the last of other signs, is between them."""
    if not text or not {"<", ">", "~", "+"}.isdisjoint(text) or text.count("-") > 1:
        return ()
    first_word, is_hyphen = len(text.split(maxsplit=1)[0]), "-" in text
    signs = [
        sign for sign in _RANGE_SIGN.finditer(text) if sign.start() <= first_word and ("-" in sign[0]) == is_hyphen
    ]
    return (text[: signs[-1].start()], text[signs[-1].end() :]) if signs else ()


def _split_units(text: str) -> tuple[str, str, str] | None:
    """Return the digits and signs of a number, and the units before and after it, "" without; None for other texts."""
    text = text.translate(_SPACES).strip()
    first = next((i for i, c in enumerate(text[:MAX_NUMBER_TEXT]) if c in "0123456789"), -1)
    if first < 0 or len(text) > MAX_NUMBER_TEXT:
        return None
    last = next(i for i in range(len(text) - 1, -1, -1) if text[i] in "0123456789")
    if first and text[first - 1] in ".,":
        first -= 1
    if last + 1 < len(text) and text[last + 1] == ".":
        last += 1
    number = text[first : last + 1]
    if parse_finite_number(text) is not None:
        return _split_sign(text)[1], "", ""
    before = text[:first].strip(" ()+-")
    after = text[last + 1 :].strip(" ()")
    if before and not _PREFIX_UNIT.fullmatch(before):
        return None
    if after and (len(after) > MAX_UNIT or not _UNIT.fullmatch(after)):
        return None
    return number, before, after


def _split_sign(text: str) -> tuple[str, str]:
    return (text[0], text[1:].strip()) if text[:1] in ("+", "-") else ("", text)
