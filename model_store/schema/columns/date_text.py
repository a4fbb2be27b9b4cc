"""How the dates and times of a column are written, and their value: seconds since 1970-01-01 in UTC.

A time of day alone is one of 1970-01-01: seconds since midnight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from model_store.schema.columns.number_text import join_missing_note

MAX_DATE_TEXT = 48  # characters
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799  # the years 1 to 9999
_TIME = (
    r"(?:[T ] ?([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r" ?([AaPp][Mm])?(?: ?(Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)
_ISO = re.compile(rf"([0-9]{{4}})([-/.])([0-9]{{1,2}})(?:\2([0-9]{{1,2}}))?{_TIME}")
_DIGITS = re.compile(rf"([0-9]{{1,2}})([-/.])([0-9]{{1,2}})\2([0-9]{{4}}|[0-9]{{2}}){_TIME}")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?(?: ?([AaPp])\.?[Mm]\.?)?")
_NAMED = re.compile(rf"([0-9]{{1,2}})[- ]([A-Za-z]{{3,9}})\.?,?[- ]([0-9]{{4}}|[0-9]{{2}}){_TIME}")
_NAME_FIRST = re.compile(rf"([A-Za-z]{{3,9}})\.? ([0-9]{{1,2}}),? ([0-9]{{4}}){_TIME}")
_MONTHS = [
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
]  # fmt: skip
_EXAMPLES = {
    "iso": "2020-03-31", "mdy": "03/31/2020", "dmy": "31/03/2020", "named": "31-Mar-2020", "time": "14:30",
}  # fmt: skip
ORDERS = tuple(_EXAMPLES)

Order = Literal["iso", "mdy", "dmy", "named", "time"]


@dataclass(frozen=True)
class DateFormat:
    """The order of year, month and day: `iso`, month first (`mdy`), day first (`dmy`) or with the name of the month.

    ISO 8601 is read whatever the order is, except by `time`, a time of day alone. `NaT`, "not a time" of pandas and
    NumPy, is a missing value, as are the words `missing`.
    """

    order: Order = "iso"
    missing: tuple[str, ...] = ()

    def parse(self, text: str) -> float | None:
        """Return the seconds since 1970 in UTC, NaN for a missing value, None for other texts.

        A date without a time is midnight.
        """
        text = text.strip()
        if self.is_missing(text):
            return math.nan
        if len(text) > MAX_DATE_TEXT:
            return None
        if self.order == "time":
            found = _CLOCK.fullmatch(text)
            return None if found is None else _time_of_day(*found.groups())
        if found := _ISO.fullmatch(text):
            year, separator, month, day = found[1], found[2], found[3], found[4]
            if day is None and (separator != "-" or found[5] is not None):
                return None
            return _seconds(year, month, day or "1", found.groups()[4:])
        if self.order in ("mdy", "dmy") and (found := _DIGITS.fullmatch(text)):
            month, day = (found[1], found[3]) if self.order == "mdy" else (found[3], found[1])
            return _seconds(found[4], month, day, found.groups()[4:])
        if self.order == "named":
            if found := _NAMED.fullmatch(text):
                return _seconds(found[3], _month(found[2]), found[1], found.groups()[3:])
            if found := _NAME_FIRST.fullmatch(text):
                return _seconds(found[3], _month(found[1]), found[2], found.groups()[3:])
        return None

    def is_missing(self, text: str) -> bool:
        """Return True for a word that means a missing value."""
        return text.strip().lower() in self._missing_words

    @cached_property
    def _missing_words(self) -> frozenset[str]:
        return frozenset(("nat", *(word.lower() for word in self.missing)))

    def to_text(self, seconds: float) -> str:
        """Return a time as the service shows it: ISO 8601, or a time of day."""
        text = to_iso(seconds)
        if self.order != "time":
            return text
        clock = text.partition("T")[2] or "00:00:00"
        return clock.removesuffix(":00")

    @property
    def noun(self) -> str:
        """What a text is expected to be."""
        return "a time of day" if self.order == "time" else "a date"

    @property
    def example(self) -> str:
        return _EXAMPLES[self.order]

    def describe(self, name: str, cells: Sequence[str | None]) -> str:
        """Return a note if the order of day and month is not certain, or words are read as missing values."""
        unsure = self._describe_order(name, cells)
        return join_missing_note([unsure] if unsure else [], name, self.missing, cells)

    def _describe_order(self, name: str, cells: Sequence[str | None]) -> str:
        other = {"mdy": DateFormat("dmy"), "dmy": DateFormat("mdy")}.get(self.order)
        present = {cell for cell in cells if cell is not None and cell.lower() not in self._missing_words}
        if other is None or any(other.parse(cell) is None for cell in present):
            return ""
        example = next(iter(sorted(present)))
        first, date = "month" if self.order == "mdy" else "day", to_iso(self.parse(example) or 0.0)
        return (
            f"column {name} is read as dates with the {first} first, which its values leave open: "
            f"{example!r} is {date}; write the dates as YYYY-MM-DD to be certain"
        )

    def as_dict(self) -> dict[str, Any]:
        return {"order": self.order} | ({"missing": list(self.missing)} if self.missing else {})

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> DateFormat:
        """Return the format that valid JSON data describe."""
        return cls(found["order"], tuple(found.get("missing", ())))


def infer_date_format(cells: Collection[str]) -> DateFormat | None:
    """Return the first format in which all of the distinct texts are dates, None if there is none."""
    orders: tuple[Order, ...] = ("iso", "mdy", "dmy", "named", "time")
    if any("." in cell for cell in cells):  # day first, as in German, Russian or Turkish
        orders = ("iso", "dmy", "mdy", "named", "time")
    for order in orders:
        written = DateFormat(order)
        if cells and all(written.parse(cell) is not None for cell in cells):
            return None if all(cell.lower() == "nat" for cell in cells) else written
    return None


def to_iso(seconds: float) -> str:
    """Return a time from `MIN_SECONDS` to `MAX_SECONDS` as ISO 8601 text, without the time of day at midnight."""
    moment = (EPOCH + timedelta(seconds=round(seconds, 6))).replace(tzinfo=None)
    text = moment.isoformat()
    return text.removesuffix("T00:00:00")


def _time_of_day(hour: str, minute: str, second: str | None, fraction: str | None, half: str | None) -> float | None:
    return _seconds("1970", "1", "1", (hour, minute, second, fraction, half and f"{half}m", None))


def _month(name: str) -> str:
    name = name.lower()
    found = [i for i, month in enumerate(_MONTHS, 1) if name in (month, month[:3], month[:4])]
    return str(found[0]) if found else "0"


def _seconds(year: str, month: str, day: str, time: Sequence[str | None]) -> float | None:
    hour, minute, second, fraction, half, zone = time
    number = int(year)
    if len(year) == 2:
        number += 2000 if number < 70 else 1900
    clock = int(hour or 0)
    if half is not None:
        if not 1 <= clock <= 12:
            return None
        clock = clock % 12 + (12 if half.lower() == "pm" else 0)
    try:
        moment = datetime(number, int(month), int(day), clock, int(minute or 0), int(second or 0), tzinfo=UTC)
    except ValueError:
        return None
    seconds = min((moment - EPOCH).total_seconds() + float(f"0.{fraction or 0}"), MAX_SECONDS)
    if zone is not None and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = 3600 * int(digits[:2]) + 60 * int(digits[2:])
        if offset >= 24 * 3600:
            return None
        seconds -= offset if zone[0] == "+" else -offset
    return seconds if MIN_SECONDS <= seconds <= MAX_SECONDS else None
