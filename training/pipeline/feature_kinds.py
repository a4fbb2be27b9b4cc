"""The kinds of encoded features, by which embeddings find the features that they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model_store.schema.columns import CategoryColumn, NumberColumn
from model_store.schema.signature import Signature


@dataclass(frozen=True)
class FeatureKinds:
    """The positions of the features that embeddings take: numbers, and categories by their number, with their count."""

    numbers: tuple[int, ...] = ()
    codes: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, signature: Signature) -> FeatureKinds:
        """Return the kinds of a signature's encoded features."""
        numbers, codes, position = [], {}, 0
        for column in signature.inputs:
            if isinstance(column, NumberColumn):
                numbers.append(position)
            elif isinstance(column, CategoryColumn) and getattr(column, "encoding", "one_hot") == "code":
                codes[position] = len(column.categories) + 1  # the last one is for unknown categories
            position += column.width
        return cls(tuple(numbers), codes)

    def after(self, taken: Sequence[int]) -> FeatureKinds:
        """Return the kinds of what an embedding passes on, first, before its own features, which have none."""

        def moved(position: int) -> int:
            return position - sum(one < position for one in taken)

        numbers = tuple(moved(position) for position in self.numbers if position not in taken)
        return FeatureKinds(numbers, {moved(p): count for p, count in self.codes.items() if p not in taken})
