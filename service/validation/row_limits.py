"""Limit the rows of a request by what they cost with one model.

A request of 100 kB can ask a model of 1,000 classes for 10,000 rows: an answer of 350 MB, which took a worker 8 s and
1.4 GB. So each version has a limit of its own, worked out once when it is loaded and the same in every protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_store.artifact.model import Model
from model_store.errors import Fault
from model_store.nn.cost import MAX_BATCH_VALUES
from model_store.schema.signature import ClassificationOutput

_NAME_CHARACTERS = 32  # of a label or target in a response: a longer one counts as several values


@dataclass(frozen=True)
class RowLimit:
    """How many rows a request for one model may have."""

    inference_rows: int  # by the cost of the forward pass
    output_values: int  # in a response
    row_values: int  # in a response, for each row
    label_values: int  # the most that one of its labels or targets counts as

    def max_rows(self, top_k: int | None = None) -> int:
        """Return the number of rows, at least 1. A response with the `top_k` most probable labels may have more."""
        values = self.row_values
        if top_k is not None:
            values = min(values, (1 + top_k) * self.label_values)  # the label, and the probabilities
        return max(1, min(self.inference_rows, self.output_values // values))


@dataclass(frozen=True)
class RowLimits:
    """The limits of a request: rows, values in its response, and multiply-adds."""

    max_instances: int
    max_output_values: int
    max_operations: int

    def for_model(self, model: Model) -> RowLimit:
        """Return how many rows a request for `model` may have.

        A response repeats the labels for each row, so long ones count as several values. The encoded rows, in which a
        category takes a value for each of its labels, may have as many values as an array of a forward pass, and so may
        the outputs.
        """
        output = model.signature.output
        names = output.labels if isinstance(output, ClassificationOutput) else output.names
        values = [1 + len(str(name)) // _NAME_CHARACTERS for name in names]
        inference_rows = min(
            self.max_instances,
            self.max_operations // model.network.row_cost.operations,
            MAX_BATCH_VALUES // model.signature.width,
            max(MAX_BATCH_VALUES, self.max_output_values) // len(names),
        )
        return RowLimit(inference_rows, self.max_output_values, sum(values), max(values))


class TooManyRowsError(Exception):
    """A request has more rows than the model's limit."""

    def __init__(self, location: str, max_rows: int, found: int | str) -> None:
        rows = "1 row" if max_rows == 1 else f"{max_rows} rows"
        problem = f"expected at most {rows} in a request for this model, found {found}"
        self.fault = Fault(location, problem, "send them in several requests")
        super().__init__(f"{location}: {problem}; {self.fault.fix}")


def check_row_count(location: str, found: int, max_rows: int) -> None:
    """Raise TooManyRowsError if `found` exceeds `max_rows`."""
    if found > max_rows:
        raise TooManyRowsError(location, max_rows, found)
