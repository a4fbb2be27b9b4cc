"""A model version in memory, checked and ready to serve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from model_store.artifact.model import Model
from model_store.nn.forward_pass import ForwardPass
from model_store.registry.publication import Publication
from service.registry.batching_policy import BatchingPolicy
from service.registry.example_request import ExampleRequest
from service.validation.predict_request import PredictSchema
from service.validation.row_limits import RowLimit


@dataclass(frozen=True, eq=False)
class LoadedVersion:
    """One version of a model with everything that a request needs: the network, the row schema, an example request."""

    name: str
    number: int
    digest: str
    model: Model
    schema: PredictSchema
    example: ExampleRequest | None  # None if a row is too large for one
    batching: BatchingPolicy
    row_limit: RowLimit
    publication: Publication | None = None  # as read with it; see `ModelEntry.publication`

    @cached_property
    def forward(self) -> ForwardPass:
        """The network's forward pass, prepared."""
        return ForwardPass(self.model.network)

    @cached_property
    def max_rows(self) -> int:
        """The most rows of a request without `top_k`."""
        return self.row_limit.max_rows()
