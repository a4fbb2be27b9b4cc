"""Columns of categories."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import repeat
from types import NoneType
from typing import Any, Literal, Self

import numpy as np
from marshmallow import fields, validate

from model_store.errors import did_you_mean
from model_store.nn import Array
from model_store.schema.columns.base import (
    Bins,
    Column,
    FaultCollector,
    FormField,
    RowLocations,
    finite_numbers,
    missing_count,
    parse_text_cell,
)
from model_store.schema.columns.boolean_words import BooleanWords, find_boolean_words
from model_store.utils.number_format import format_number, format_percent
from model_store.utils.values import describe_value, list_names, nearest_name, parse_texts

MISSING_CATEGORY = "missing"  # the value to fill in, if missing values are a category of their own
MAX_CATEGORY_BINS = 20  # the most frequent ones; all others share a bin
_MAX_LISTED_CATEGORIES = 5  # in reports and comparisons
_MAX_SUMMARIZED_CATEGORIES = 8
_MAX_OPTIONS = 500  # of a list to select from
_PLAIN_BOOLEANS = BooleanWords(("true", "yes"), ("false", "no"))  # among other categories, such as unknown
_ALREADY_REPORTED = "already reported"  # stands for a value whose fault `parse` has added


@dataclass(frozen=True)
class CategoryColumn(Column):
    """A column of categories, encoded one-hot, or as one feature that holds the index for an `Embedding` layer.

    `unknown="bucket"` adds a category for all unknown ones, the last index. If the two categories spell true and false,
    such as yes and no, every other spelling of them is the same category. If missing values are a category of their
    own, `fill` is `MISSING_CATEGORY`, which is one of the categories.
    """

    name: str
    categories: tuple[str, ...]
    unknown: Literal["refuse", "bucket"] = "refuse"
    fill: str | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["category"] = "category"
    encoding: Literal["one_hot", "code"] = "one_hot"
    tensor_datatype = "BYTES"
    missing_value = None
    newer_attributes = ("encoding",)

    @property
    def width(self) -> int:
        return 1 if self.encoding == "code" else self.codes

    @property
    def codes(self) -> int:
        """The number of categories, with that of the unknown ones."""
        return len(self.categories) + (self.unknown == "bucket")

    @cached_property
    def code_by_text(self) -> dict[str, int]:
        """The code of each category, and of other spellings of true and false: the index of its one-hot feature."""
        features = {category: feature for feature, category in enumerate(self.categories)}
        if (words := self.boolean_words) is not None:
            for value, category in self.category_by_bool.items():
                for spelling in words.of(value):
                    for text in (spelling, spelling.title(), spelling.upper()):
                        features.setdefault(text, features[category])
        return features

    @property
    def boolean_words(self) -> BooleanWords | None:
        """The words for true and false if there are two categories, and they are such words, else None."""
        is_boolean = len(self._present_categories) == 2 == len(self.category_by_bool)
        return find_boolean_words(self._present_categories) if is_boolean else None

    @property
    def has_missing_category(self) -> bool:
        """True if missing values are a category of their own."""
        return self.fill == MISSING_CATEGORY and MISSING_CATEGORY in self.categories

    @property
    def _present_categories(self) -> tuple[str, ...]:
        """The categories without that of missing values."""
        if not self.has_missing_category:
            return self.categories
        return tuple(category for category in self.categories if category != MISSING_CATEGORY)

    @cached_property
    def category_by_bool(self) -> dict[bool, str]:
        """The categories that spell true and false, such as True and False; without a value that several spell."""
        found: dict[bool, str] = {}
        words = find_boolean_words(self._present_categories) or _PLAIN_BOOLEANS
        for value in (False, True):
            spellings = [one for one in self.categories if one.lower() in words.of(value)]
            if len(spellings) == 1:
                found[value] = spellings[0]
        return found

    def knows(self, value: str) -> bool:
        """Return True if a parsed value is one of the categories."""
        return value in self.code_by_text

    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted values as (n,) objects, text or None.

        An integer of 64 bits is read as its digits, true and false as the categories that spell them. A text is read as
        in training: without spaces around it, and as a missing value if it means one.
        """
        known: dict[Any, Any] = {None: None}
        if set(map(type, values)) <= {str, NoneType}:
            parse_texts(self.parse_cell, set(values) - {None}, known)
            return np.fromiter(map(known.__getitem__, values), object, len(values))
        parse_texts(self.parse_cell, (value for value in values if type(value) is str), known)
        parsed = np.empty(len(values), object)  # of None
        for i, value in enumerate(values):
            if value is None:
                continue
            if type(value) is str:
                parsed[i] = known[value]
            elif type(value) is int and -(2**63) <= value < 2**64:
                parsed[i] = str(value)
            elif type(value) is bool and value in self.category_by_bool:
                parsed[i] = self.category_by_bool[value]
            else:
                parsed[i] = _ALREADY_REPORTED
                faults.add(
                    f"{locations[i]}.{self.name}",
                    f"expected text, found {describe_value(value)}",
                    partial(self._fix, value),
                )
        return parsed

    @cached_property
    def cell_key(self) -> Hashable:
        return self.kind, self.name

    def parse_cell(self, text: str) -> str | None:
        """Return a category as it is, also one that a program named " a" or "NA"; other texts as in training."""
        return text if text in self.code_by_text else parse_text_cell(text)

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, width)."""
        found = values.tolist()
        features = np.fromiter(map(self.code_by_text.get, found, repeat(-1)), np.intp, len(found))
        others = np.flatnonzero(features < 0).tolist()
        if others:
            missing = [i for i in others if found[i] is None] if None in found else []
            unknown = [i for i in others if found[i] is not None] if missing else others
            if self.fill is not None and missing:
                self.note_filled(missing, locations, faults)
                features[missing] = self.code_by_text.get(self.fill, len(self.categories))
            if self.unknown == "bucket" and unknown:
                features[unknown] = len(self.categories)
                if faults.replaced is not None:
                    faults.replaced.add_rows(unknown, locations, self.name, lambda i: self._replaced(found[i]))
            others = np.flatnonzero(features < 0).tolist()
            if rejected := [i for i in others if found[i] is not _ALREADY_REPORTED]:
                known = list_names(self.categories)
                faults.add_rows(rejected, locations, self.name, lambda i: self._rejected(known, found[i]))
        if self.encoding == "code":
            return features.reshape(-1, 1).astype(np.float64)
        encoded = np.zeros((len(values), self.codes))
        rows = np.flatnonzero(features >= 0) if others else np.arange(len(features))
        encoded[rows, features[rows]] = 1
        return encoded

    def _replaced(self, value: Any) -> tuple[str, Callable[[], str]]:
        """Return problem and fix of a value that counts as unknown."""
        return f"{self._not_known} {describe_value(value)}", partial(self._suggest, value)

    def _rejected(self, known: str, value: Any) -> tuple[str, Callable[[], str]]:
        """Return problem and fix of a value that is none of the `known` categories."""
        found = "none" if value is None else describe_value(value)
        return f"expected one of {known}; found {found}", partial(self._fix, value)

    @property
    def _not_known(self) -> str:
        if "distinct" in self.statistics:
            return f"the {len(self.categories)} most frequent categories of the training rows do not include"
        return "no training row has the category"

    def _fix(self, value: Any) -> str:
        if isinstance(value, bool):
            meant = [text for text in self.categories if text.lower() == str(value).lower()]
            if meant:
                return f"send one of these in quotes: {list_names(meant)}"
        if value is None:
            return "send one of the categories; the column is required"
        return self._suggest(value)

    def _suggest(self, value: Any) -> str:
        return did_you_mean(value, self.categories) or "send one of the training data's categories"

    @classmethod
    def json_fields(cls) -> dict[str, fields.Field[Any]]:
        return {
            # `Schema` has an attribute `unknown`, so the field has another name here.
            "bucket": fields.String(
                required=True, data_key="unknown", attribute="unknown", validate=validate.OneOf(["refuse", "bucket"])
            ),
            "categories": fields.List(fields.String(), required=True, validate=validate.Length(min=1)),
            "fill": fields.String(required=True, allow_none=True),
            "encoding": fields.Raw(validate=validate.OneOf(["code"]), load_default="one_hot"),
        }

    def find_problem(self) -> str | None:
        if len(set(self.categories)) != len(self.categories):
            return "categories: expected unique categories"
        if self.fill is not None and self.fill not in self.categories and self.unknown == "refuse":
            return "fill: expected one of the categories"
        return None

    def value_schemas(self) -> list[dict[str, Any]]:
        missing, notes = self.fill is not None, []
        form: dict[str, Any] = {"type": ["string", "null"] if missing else "string"}
        if self.unknown == "refuse":
            form["enum"] = [*self.categories, *([None] if missing else [])]
        else:
            form["examples"] = list(self.categories)
            notes.append("Other values count as unknown.")
        if self.category_by_bool:
            notes.append("true and false may be sent without quotes.")
        if (words := self.boolean_words) is not None:
            notes.append(f"So may texts such as {', '.join((*words.true, *words.false))}.")
            form.pop("enum", None)
        if missing:
            own = self.has_missing_category
            notes.append(f"null is the category {self.fill}." if own else f"null is replaced by {self.fill}.")
        return [form | ({"description": " ".join(notes)} if notes else {})]

    def public_details(self) -> dict[str, Any]:
        return super().public_details() | {"categories": list(self.categories), "unknown": self.unknown}

    def form_field(self) -> FormField:
        listed = self.unknown == "refuse" and len(self.categories) <= _MAX_OPTIONS
        note = "other values count as unknown" if self.unknown == "bucket" else ""
        widget, options = ("select", self.categories) if listed else ("text", ())
        return FormField(widget, note=note, chips=self.categories, options=options, fill=self.fill or "")

    @classmethod
    def from_public_details(cls, details: Mapping[str, Any]) -> Self:
        return cls(details["name"], tuple(details["categories"]), details["unknown"], details.get("fill"))

    def describe_missing(self, format_value: Callable[[Any], str]) -> str:
        return "a category of its own" if self.has_missing_category else super().describe_missing(format_value)

    def describe(self, format_value: Callable[[Any], str]) -> str:
        return format_value(self.categories) + (", others" if self.unknown == "bucket" else "")

    def describe_statistics(self, statistics: Mapping[str, Any], shorten: Callable[[str], str]) -> str:
        frequencies = sorted(statistics["frequencies"].items(), key=lambda item: (-item[1], item[0]))
        total = sum(statistics["frequencies"].values()) or 1
        words = [
            f"{shorten(name)} {format_percent(count / total, 0)}"
            for name, count in frequencies[:_MAX_LISTED_CATEGORIES]
        ]
        more = len(self.categories) - len(words)
        if more > 0:
            words.append(f"{format_number(more)} more" if words else f"{format_number(more)} categories")
        return ", ".join(words)

    def describe_acceptance(self, other: Column | None) -> list[str]:
        known = set(other.categories) if isinstance(other, CategoryColumn) else set()
        only = [category for category in self.categories if category not in known]
        words = only[:_MAX_LISTED_CATEGORIES]
        words += [f"{len(only) - len(words)} more"] if len(only) > len(words) else []
        return words + (["unknown categories"] if self.unknown == "bucket" else [])

    def summarize(self, format_number: Callable[[float], str]) -> str:
        del format_number
        return list_names(self.categories, _MAX_SUMMARIZED_CATEGORIES)

    @property
    def is_constant(self) -> bool:
        return len(self.categories) == 1

    def from_tensor(self, tensor: Array, datatype: str, location: str, faults: FaultCollector) -> Array | None:
        values = tensor.ravel().tolist()
        if tensor.dtype.kind == "b" and self.category_by_bool.keys() >= set(values):
            values = [self.category_by_bool[value] for value in values]
        elif tensor.dtype.kind not in "Oui":
            faults.add(location, f"expected BYTES, found {datatype}", "send the categories as strings")
            return None
        return np.fromiter(self._parse_cells(values, faults), object, tensor.size)

    def typical_value(self) -> Any:
        return self.categories[0]

    def draw_values(self, count: int, rng: np.random.Generator) -> list[Any]:
        """Return the most frequent category, and categories drawn by their frequencies."""
        frequencies = self.statistics.get("frequencies") or {}
        weights = np.array([frequencies.get(category, 0) for category in self.categories], np.float64)
        weights = weights if weights.sum() else np.ones(len(self.categories))
        drawn = rng.choice(len(self.categories), count - 1, p=weights / weights.sum())
        return [self.categories[i] for i in (int(weights.argmax()), *drawn)]

    def repairs(self, value: Any) -> Iterator[Any]:
        yield value
        yield nearest_name(value, self.categories)

    def bins(self, dtype: Any) -> Bins | None:
        """Return one bin per category; the less frequent ones share a bin."""
        del dtype
        frequencies = self.statistics.get("frequencies")
        if not isinstance(frequencies, Mapping):
            return None
        counts = finite_numbers([frequencies.get(category, 0) for category in self.categories])
        if not counts or min(counts) < 0 or not sum(counts):
            return None
        rare = max(0, *finite_numbers([self.statistics.get("count")]), 0) - sum(counts)
        if self.fill in self.categories:
            counts[self.categories.index(self.fill)] += missing_count(self.statistics)
        if self.unknown == "bucket":
            counts.append(max(0, rare))  # unknown categories, and those too rare for a feature of their own
        frequent = np.argsort([-count for count in counts], kind="stable")[:MAX_CATEGORY_BINS]
        feature_bins = np.full(len(counts), len(frequent))
        feature_bins[frequent] = np.arange(len(frequent))
        return Bins(np.bincount(feature_bins, counts, int(feature_bins.max()) + 1), None, feature_bins)
