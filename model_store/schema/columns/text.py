"""Columns of free text, hashed into a vector of bounded width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from marshmallow import fields, validate

from model_store.nn import Array
from model_store.schema.columns.base import Column, FaultCollector, FormField, RowLocations
from model_store.utils.number_format import format_number
from model_store.utils.text_hashing import hashed_counts
from model_store.utils.values import describe_value, parse_texts

TEXT_FEATURES = 256
MAX_HASHED_CHARACTERS = 4096  # of a text; the rest does not count


@dataclass(frozen=True)
class TextColumn(Column):
    """A column of texts. The words and the trigrams of their characters are hashed into `features` numbers.

    A token with the CRC-32 h adds 1 or -1, by the highest bit of h, to the feature `h mod features`; the vector is
    divided by its Euclidean norm. Weinberger et al. 2009, "Feature hashing for large scale multitask learning".
    A missing text is a vector of zeros if `fill` is "", and rejected if it is None.
    """

    name: str
    features: int = TEXT_FEATURES
    fill: str | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["text"] = "text"
    tensor_datatype = "BYTES"
    missing_value = None

    @property
    def width(self) -> int:
        return self.features

    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted values as (n,) objects, text or None. A number counts as its digits."""
        known: dict[str, str | None] = {}
        parse_texts(self.parse_cell, (value for value in values if type(value) is str), known)
        parsed = np.empty(len(values), object)  # of None
        for i, value in enumerate(values):
            if value is None:
                continue
            if type(value) is str:
                parsed[i] = known[value]
            elif type(value) is int and -(2**63) <= value < 2**64:
                parsed[i] = str(value)
            else:
                problem = f"expected text, found {describe_value(value)}"
                faults.add(f"{locations[i]}.{self.name}", problem, "send the text in quotes")
                parsed[i] = ""
        return parsed

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, width)."""
        found = values.tolist()
        missing = [i for i, text in enumerate(found) if text is None]
        counts = hashed_counts([text[:MAX_HASHED_CHARACTERS] for text in found if text is not None], self.features)
        norms = np.sqrt(np.einsum("ij,ij->i", counts, counts))  # exact: the counts are integers
        counts /= np.where(norms == 0, 1.0, norms)[:, np.newaxis]
        encoded = counts
        if missing:
            encoded = np.zeros((len(found), self.features))
            encoded[[i for i, text in enumerate(found) if text is not None]] = counts
        if missing and self.fill is not None:
            self.note_filled(missing, locations, faults)
        elif missing:
            fix = "send a text; the column is required"
            faults.add_rows(missing, locations, self.name, lambda _: ("expected text, found none", fix))
        return encoded

    @classmethod
    def json_fields(cls) -> dict[str, fields.Field[Any]]:
        return {
            "features": fields.Integer(
                strict=True, required=True, validate=validate.Range(1, 4096, error="expected 1 to 4096")
            ),
            "fill": fields.String(required=True, allow_none=True, validate=validate.Length(max=0)),
        }

    def value_schemas(self) -> list[dict[str, Any]]:
        return [{"type": ["string", "null"] if self.fill is not None else "string", "description": "Free text."}]

    def form_field(self) -> FormField:
        return FormField("text", "free text")

    @classmethod
    def from_public_details(cls, details: Mapping[str, Any]) -> Self:
        return cls(details["name"], fill=details.get("fill"))

    def describe(self, format_value: Callable[[Any], str]) -> str:
        del format_value
        return "free text"

    def describe_statistics(self, statistics: Mapping[str, Any], shorten: Callable[[str], str]) -> str:
        del shorten
        count = statistics.get("distinct")
        return f"{format_number(count)} distinct texts" if isinstance(count, int) else ""

    def describe_acceptance(self, other: Column | None) -> list[str]:
        del other
        return ["free text"]

    def summarize(self, format_number: Callable[[float], str]) -> str:
        return f"{format_number(self.statistics['distinct'])} distinct texts, hashed into {self.features} features"

    @property
    def is_constant(self) -> bool:
        return bool(self.statistics["distinct"] == 1)

    def from_tensor(self, tensor: Array, datatype: str, location: str, faults: FaultCollector) -> Array | None:
        if tensor.dtype.kind not in "Oui":
            faults.add(location, f"expected BYTES, found {datatype}", "send the texts as strings")
            return None
        return np.fromiter(self._parse_cells(tensor.ravel().tolist(), faults), object, tensor.size)

    def typical_value(self) -> Any:
        return "a short text"

    def draw_values(self, count: int, rng: np.random.Generator) -> list[Any]:
        """Return made-up texts: the statistics hold no word of the training data."""
        words = ("a", "short", "text", "of", "some", "words", "for", "this", "column")
        return ["a short text", *(" ".join(rng.choice(words, 4)) for _ in range(count - 1))]

    def repairs(self, value: Any) -> list[Any]:
        return [value, str(value)]
