"""Limit the rows of a request by what they cost with one model.

A request of 100 kB can ask a model of 1,000 classes for 10,000 rows: an answer of 350 MB, which took a worker 8 s and
1.4 GB. So each version has a limit of its own, worked out once when it is loaded and the same in every protocol.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

from model_store.artifact.model import Model
from model_store.errors import Fault
from model_store.nn import Array
from model_store.nn.cost import MAX_ARRAY_BYTES
from model_store.nn.integrated_gradients import can_integrate, max_explained_rows
from model_store.schema.columns import ArrayColumn, Column
from model_store.schema.columns.number_text import MAX_PARSE_CHARACTERS, PLAIN_CHARACTERS
from model_store.schema.columns.text import MAX_HASHED_CHARACTERS, TextColumn
from model_store.schema.outputs import name_values
from model_store.schema.signature import MultiLabelOutput

RECEIPT_VALUES = 4  # hashing a value and sending it costs about as much as sending so many


@dataclass(frozen=True)
class RowLimit:
    """How many rows a request for one model may have."""

    inference_rows: int  # by the cost of the forward pass
    output_values: int  # in a response
    row_values: int  # in a response, for each row
    label_values: int  # the most that one of its labels or targets counts as
    answer_values: int  # the most that its predicted label counts as, or all labels if a row may have several
    text_columns: tuple[tuple[int, str], ...]  # index and name of each
    parsed_columns: tuple[tuple[int, Column], ...]  # dates and numbers in a format, and the index of each
    text_characters: int  # in all text columns of a request, and to parse the texts of others
    image_column: ArrayColumn | None = None  # the only input, if it takes image files
    image_pixels: int = 0  # of all image files of a request
    explained_rows: int = 0  # of a request whose answers are explained; 0 if none are
    not_explained: str = ""  # why

    def max_rows(self, top_k: int | None = None, *, receipt: bool = False) -> int:
        """Return the number of rows, at least 1.

        A response with the `top_k` most probable labels may have more, one with a receipt fewer.
        """
        values = self.row_values
        if top_k is not None:
            values = min(values, self.answer_values + top_k * self.label_values)
        if receipt:
            values *= RECEIPT_VALUES
        return max(1, min(self.inference_rows, self.output_values // values))

    def check_explained(self, location: str, rows: int) -> None:
        """Raise RowLimitError if so many rows are too many to explain their answers."""
        if rows > self.explained_rows:
            problem = f"expected at most {_rows(self.explained_rows)} to explain for this model, found {rows}"
            raise RowLimitError(location, problem, "send them in several requests")

    def check_ranges(self, location: str, rows: int, values: int) -> None:
        """Raise RowLimitError if so many rows have too many values with `values` more for each output."""
        if values and rows > (
            most := max(1, min(self.inference_rows, self.output_values // (self.row_values * (1 + values))))
        ):
            problem = f"expected at most {_rows(most)} with intervals or sets for this model, found {rows}"
            raise RowLimitError(location, problem, "send them in several requests")

    def check_rows(self, location: str, rows: list[Any], top_k: int | None = None, *, receipt: bool = False) -> None:
        """Raise RowLimitError if untrusted rows, of any form, are too many or have too many characters of text.

        Image files in `rows` are replaced by what was read of them.
        """
        check_row_count(location, len(rows), self.max_rows(top_k, receipt=receipt))
        if (column := self.image_column) is not None:
            self._check_images(location, column, rows)
        if self.text_columns or len(rows) * len(self.parsed_columns) * MAX_PARSE_CHARACTERS > self.text_characters:
            self._check_texts(location, (self._texts_of_row(row) for row in rows))

    def check_cells(self, location: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Raise TooManyCharactersError if cells of CSV, of columns with these names, take too long to parse."""
        index_by_name = {name: i for i, name in enumerate(names)}
        places = [index_by_name.get(column.name) for _, column in self.parsed_columns]
        if any(place is not None for place in places):
            texts = ([None if place is None else row[place] for place in places] for row in rows)
            no_texts = [None] * len(self.text_columns)
            self._check_texts(location, ([*no_texts, *parsed] for parsed in texts))

    def check_tensors(self, location: str, tensors: Mapping[str, Array]) -> None:
        """Raise RowLimitError if the text tensors of a request have too many characters, or its images pixels."""
        if (column := self.image_column) is not None and column.name in tensors:
            tensor = tensors[column.name]
            values = column.tensor_values(tensor)
            self._check_images(location, column, values)
            for i, value in enumerate(values):
                tensor.flat[i] = value
        texts = [_texts_of_tensor(tensors.get(name)) for _, name in self.text_columns]
        texts += [_texts_of_tensor(tensors.get(column.name)) for _, column in self.parsed_columns]
        self._check_texts(location, zip_longest(*texts))  # unequal counts are reported later

    def _check_images(self, location: str, column: ArrayColumn, rows: list[Any]) -> None:
        """Raise TooManyPixelsError if image files have too many pixels: none is decoded. Replace them as checked."""
        total = 0
        for count, row in enumerate(rows):
            is_named = isinstance(row, dict) and row.keys() == {column.name}
            checked = column.check_file(row[column.name] if is_named else row)
            if checked is None:
                continue
            rows[count] = {column.name: checked} if is_named else checked
            total += checked.pixels
            if total > self.image_pixels:
                raise TooManyPixelsError(location, self.image_pixels, count)

    def _check_texts(self, location: str, rows: Iterable[Sequence[Any]]) -> None:
        """Raise TooManyCharactersError if the texts of the rows, several for each, have too many characters.

        They are counted as they are hashed: of each text the first `MAX_HASHED_CHARACTERS`. After them come those of
        `parsed_columns`, which count once for columns of the same format. One row alone always fits.
        """
        total, hashed = 0, len(self.text_columns)
        known: dict[Hashable, set[str]] = {}
        parsed = [(column, known.setdefault(column.cell_key, set())) for _, column in self.parsed_columns]
        for count, texts in enumerate(rows):
            for text, (column, seen) in zip(texts[hashed:], parsed, strict=True):
                if type(text) is str and text not in seen:
                    seen.add(text)
                    total += column.parse_characters(text)
            for text in texts[:hashed]:
                if type(text) is str:
                    total += min(len(text), MAX_HASHED_CHARACTERS)
                elif type(text) is int:
                    total += len(str(text))
            if total > self.text_characters and count:
                raise TooManyCharactersError(location, self.text_characters, count, parsed=bool(parsed))

    @cached_property
    def _counted(self) -> list[tuple[int, str]]:
        return [*self.text_columns, *((i, column.name) for i, column in self.parsed_columns)]

    def _texts_of_row(self, row: Any) -> list[Any]:
        if isinstance(row, dict):
            return [row.get(name) for _, name in self._counted]
        cells = row if isinstance(row, list | tuple) else ()
        return [cells[i] if i < len(cells) else None for i, _ in self._counted]


@dataclass(frozen=True)
class RowLimits:
    """The limits of a request: rows, values in its response, operations, characters in columns of text, cells, and
    pixels of image files.
    """

    max_instances: int
    max_output_values: int
    max_operations: int
    max_text_characters: int
    max_cells: int
    max_image_pixels: int = 2**24
    max_explained_rows: int = 100

    def for_model(self, model: Model) -> RowLimit:
        """Return how many rows a request for `model` may have.

        A response repeats the labels for each row, so long ones count as several values. The encoded rows, in which a
        category takes a value for each of its labels, may have as many bytes as an array of a forward pass, and so
        may the outputs. A cell, the value of a column in a row, counts also if it is left out and filled in.
        """
        output = model.signature.output
        values = name_values(output)
        inference_rows = min(
            self.max_instances,
            model.network.row_cost.max_rows(self.max_operations),
            MAX_ARRAY_BYTES // model.row_bytes,
            self.max_cells // len(model.signature.inputs),
            max(MAX_ARRAY_BYTES // model.network.dtype.itemsize, self.max_output_values) // len(values),
        )
        several = isinstance(output, MultiLabelOutput)  # the labels, beside their probabilities
        inputs = model.signature.inputs
        explained_rows, not_explained = self._explained_rows(model)
        return RowLimit(
            inference_rows,
            self.max_output_values,
            row_values=(1 + several) * sum(values),
            label_values=max(values),
            answer_values=sum(values) if several else max(values),
            text_columns=tuple((i, column.name) for i, column in enumerate(inputs) if isinstance(column, TextColumn)),
            parsed_columns=tuple((i, column) for i, column in enumerate(inputs) if column.parse_characters("a")),
            text_characters=self.max_text_characters,
            image_column=first if isinstance(first := inputs[0], ArrayColumn) and first.takes_files else None,
            image_pixels=self.max_image_pixels,
            explained_rows=explained_rows,
            not_explained=not_explained,
        )

    def _explained_rows(self, model: Model) -> tuple[int, str]:
        """Return how many answers of a request are explained, and why none are, else "".

        An explanation has a value for each column, or for each value of an array.
        """
        if not self.max_explained_rows:
            return 0, "SERVE_MAX_EXPLAINED_ROWS is 0"
        if not can_integrate(model.network):
            return 0, "its network keeps too many bytes for a backward pass"
        by_cost = max_explained_rows(model.network, self.max_operations)
        if not by_cost:
            return 0, "the explanation of one row takes more operations than SERVE_MAX_OPERATIONS"
        by_values = self.max_output_values // (sum(math.prod(column.shape) for column in model.signature.inputs) + 3)
        if not by_values:
            return 0, "the explanation of one row has more values than SERVE_MAX_OUTPUT_VALUES"
        return min(self.max_explained_rows, by_cost, by_values), ""


class RowLimitError(Exception):
    """A request has more rows than it may; `fault` says which limit it exceeds, and how many fit."""

    def __init__(self, location: str, problem: str, fix: str) -> None:
        self.fault = Fault(location, problem, fix)
        super().__init__(f"{location}: {problem}; {fix}")


class TooManyRowsError(RowLimitError):
    """A request has more rows than the model's limit."""

    def __init__(self, location: str, max_rows: int, found: int | str) -> None:
        problem = f"expected at most {_rows(max_rows)} in a request for this model, found {found}"
        super().__init__(location, problem, "send them in several requests")

    def with_receipt(self) -> RowLimitError:
        """Return this error for a request with a receipt."""
        fix = f"{self.fault.fix}; with receipt=true, a value of the response counts as {RECEIPT_VALUES}"
        return RowLimitError(self.fault.location, self.fault.problem, fix)


class TooManyCharactersError(RowLimitError):
    """The rows of a request have more characters in columns of text than the limit; the first `count` fit.

    With `parsed`, texts that are parsed count, too.
    """

    def __init__(self, location: str, most: int, count: int, *, parsed: bool = False) -> None:
        more = f", where another text of a date or number counts as {PLAIN_CHARACTERS} or more" if parsed else ""
        problem = f"expected at most {most} characters of text in a request{more}, found more"
        super().__init__(location, problem, f"send {_rows(count)} at a time")


class TooManyPixelsError(RowLimitError):
    """The image files of a request have more pixels than the limit; the first `count` fit."""

    def __init__(self, location: str, most: int, count: int) -> None:
        problem = f"expected image files of at most {most} pixels in a request, found more"
        fix = f"send {_rows(count)} at a time" if count else "send it smaller, as a baseline JPEG or PNG"
        super().__init__(location, problem, fix)


def _texts_of_tensor(tensor: Array | None) -> list[Any]:
    return tensor.ravel().tolist() if tensor is not None and tensor.dtype.kind in "Oiu" else []


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def check_row_count(location: str, found: int, max_rows: int) -> None:
    """Raise TooManyRowsError if `found` exceeds `max_rows`."""
    if found > max_rows:
        raise TooManyRowsError(location, max_rows, found)
