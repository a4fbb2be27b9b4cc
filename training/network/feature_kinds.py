"""The kinds of encoded features, by which embeddings find the features that they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from model_store.artifact.mean_row import code_counts
from model_store.schema.columns import CategoryColumn, NumberColumn
from model_store.schema.signature import Signature
from training.config.layer_spec import DEFAULT_MAX_ONE_HOT, LayerSpec


@dataclass(frozen=True)
class FeatureKinds:
    """The positions of the features that embeddings take: numbers, and categories by their number, with their count."""

    numbers: tuple[int, ...] = ()
    codes: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, signature: Signature) -> FeatureKinds:
        """Return the kinds of a signature's encoded features."""
        numbers, position = [], 0
        for column in signature.inputs:
            if isinstance(column, NumberColumn):
                numbers.append(position)
            position += column.width
        return cls(tuple(numbers), code_counts(signature))

    def after(self, taken: Sequence[int]) -> FeatureKinds:
        """Return the kinds of what an embedding passes on, first, before its own features, which have none."""

        def moved(position: int) -> int:
            return position - sum(one < position for one in taken)

        numbers = tuple(moved(position) for position in self.numbers if position not in taken)
        return FeatureKinds(numbers, {moved(p): count for p, count in self.codes.items() if p not in taken})


def encode_as_codes(signature: Signature, layers: Sequence[LayerSpec]) -> Signature:
    """Return the signature in which an embedding, if there is one, gets the columns of many categories.

    The key `one_hot` of the layer is the number of categories up to which a column stays one-hot.
    """
    table = next((layer for layer in layers if isinstance(layer, dict) and "embedding" in layer), None)
    if table is None:
        return signature
    limit = table.get("one_hot", DEFAULT_MAX_ONE_HOT)
    columns = (
        replace(column, encoding="code")
        if isinstance(column, CategoryColumn) and len(column.categories) > limit
        else column
        for column in signature.inputs
    )
    return replace(signature, inputs=tuple(columns))
