"""The model: a network, the signature of its rows, and its training record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model_store.artifact.answers import Answers
from model_store.artifact.conformal import Conformal
from model_store.errors import ArtifactError, Fault, InputError
from model_store.nn import Array, Sequential
from model_store.nn.cost import MAX_ARRAY_BYTES, MAX_ROW_OPERATIONS
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Signature
from model_store.utils.values import integral_floats_to_ints

MAX_EXAMPLE_VALUES = 10_000  # of a row and its prediction: a row of 4096 x 4096 takes 650 MB as Python lists
MAX_CHECKED_CELLS = 100_000  # of golden rows, which training writes up to eight of
MAX_EXAMPLE_CHARACTERS = 100_000  # of the texts of a row


@dataclass(frozen=True)
class Golden:
    """Golden rows, as a client sends them, with the trained network's raw outputs (n, outputs)."""

    instances: list[Any]
    outputs: Array


@dataclass(frozen=True)
class Model:
    """The content of an artifact. `digest` is the SHA-256 of its manifest, None until it is written."""

    network: Sequential
    signature: Signature
    description: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    golden: Golden | None = None
    digest: str | None = None
    answers: Answers | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if network and signature do not fit together."""
        if self.network.input_size != self.signature.width:
            raise ValueError(
                f"modules.0.input_size: expected {self.signature.width}, the signature's encoded width; "
                f"found {self.network.input_size}"
            )
        output = self.signature.output
        if isinstance(output, ClassificationOutput):
            sizes, expected = {len(output.labels)}, f"{len(output.labels)}, one output for each label"
            if len(output.labels) == 2:
                sizes |= {1}
        elif isinstance(output, MultiLabelOutput):
            sizes, expected = {len(output.labels)}, f"{len(output.labels)}, one output for each label"
        else:
            sizes, expected = {len(output.names)}, f"{len(output.names)}, one output for each target"
        if self.network.output_size not in sizes:
            raise ValueError(f"modules: expected an output size of {expected}; found {self.network.output_size}")
        if self.answers is not None:
            self.answers.check(self.signature)

    @property
    def baseline(self) -> Array | None:
        """The encoded row that explanations compare with, or None."""
        return None if self.answers is None else self.answers.baseline

    @property
    def conformal(self) -> Conformal | None:
        """The scores of intervals or sets, or None."""
        return None if self.answers is None else self.answers.conformal

    def encode(
        self, instances: Sequence[Any] | Array, location: str = "instances", warnings: list[Fault] | None = None
    ) -> Array:
        """Return untrusted rows as the network's input, as `Signature.encode` does. InputError with all faults."""
        return self.signature.encode(instances, location, self.network.dtype, warnings)

    def predict(self, instances: Sequence[Any] | Array, top_k: int | None = None) -> list[Any]:
        """Return predictions for untrusted rows (see `Signature.encode` and `decode`). Thread-safe."""
        return self.signature.decode(self.network(self.encode(instances)), top_k)

    @property
    def row_bytes(self) -> int:
        """The bytes of an encoded row."""
        return self.signature.width * self.network.dtype.itemsize

    @property
    def example_values(self) -> int:
        """The number of values of a row and of its prediction."""
        return sum(math.prod(column.shape) for column in self.signature.inputs) + (self.network.output_size or 1)

    @property
    def example_row(self) -> Any:
        """A valid row: the first golden one, else one of typical values; by column name if the columns have names.

        None, before anything is made, for more than `MAX_EXAMPLE_VALUES`; and for texts of more than
        `MAX_EXAMPLE_CHARACTERS`.
        """
        if self.example_values > MAX_EXAMPLE_VALUES:
            return None
        columns = self.signature.inputs
        if columns[0].is_whole_row:
            return self.golden.instances[0] if self.golden else columns[0].typical_value()
        row = self.golden.instances[0] if self.golden else [column.typical_value() for column in columns]
        values = row.values() if isinstance(row, dict) else row
        if sum(len(value) for value in values if isinstance(value, str)) > MAX_EXAMPLE_CHARACTERS:
            return None
        return (
            row if isinstance(row, dict) else dict(zip(self.signature.names, integral_floats_to_ints(row), strict=True))
        )

    def check_golden(self) -> None:
        """Raise ArtifactError unless this machine reproduces the golden outputs, with the same bits in any batch.

        Outputs are compared with relative tolerance 1e-3 and absolute tolerance 1e-5, since other CPUs round
        differently in float32. Of costly rows only the first are checked: `MAX_ROW_OPERATIONS` in all, and
        `MAX_ARRAY_BYTES` of features, since a category of one text may be encoded as millions of features. So are the
        first `MAX_CHECKED_CELLS`: 10,000 rows of 100 columns, each of one text, fit a file of 10 kB.
        """
        if self.golden is None:
            return
        by_cost = self.network.row_cost.max_rows(MAX_ROW_OPERATIONS)
        by_cells = MAX_CHECKED_CELLS // len(self.signature.inputs)
        checked = max(1, min(by_cost, by_cells, MAX_ARRAY_BYTES // self.row_bytes))
        try:
            rows = self.encode(self.golden.instances[:checked])
        except InputError as e:
            raise ArtifactError(f"golden.instances: expected rows that fit the signature; {e}") from e
        found, expected = self.network(rows), self.golden.outputs[:checked]
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-3, atol=1e-5):
            raise ArtifactError("golden.outputs: the network does not reproduce the outputs recorded in training")
        for i in {0, len(rows) - 1}:
            if self.network(rows[i : i + 1]).tobytes() != found[i].tobytes():
                raise ArtifactError(f"golden.instances.{i}: the network gives it other bits alone than in a batch")
