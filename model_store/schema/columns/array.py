"""Columns of arrays, such as images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, filterfalse
from typing import Any, Literal, Self

import numpy as np
from marshmallow import fields, validate

from model_store.nn import Array
from model_store.schema.columns.base import Bins, Column, FaultCollector, FormField, RowLocations
from model_store.schema.columns.image_decoding import (
    B64_KEY,
    CROPS,
    MAX_IMAGE_SIDE,
    CheckedFile,
    decode_image,
    is_encoded,
    is_image_shape,
    read_encoded,
)
from model_store.schema.columns.image_file import ImageFile, ImageFileError
from model_store.schema.columns.scaled_numbers import (
    check_scale,
    describe_range,
    describe_summary,
    finite_number_field,
    numbers_from_tensor,
    scaled_bins,
    scaled_range_limits,
    scaled_range_problem,
)
from model_store.utils.values import (
    describe_value,
    flatten_lists,
    integral_floats_to_ints,
    is_finite_number,
    parse_finite_number,
    round_to_digits,
)

MAX_NESTING = 8  # levels of lists that a repair flattens
_WHITE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="  # a PNG
_IMAGE_FORM = f'{{"{B64_KEY}": "..."}} with a PNG or JPEG file in base64'


@dataclass(frozen=True)
class ArrayColumn(Column):
    """One array for each row, such as an image, encoded as `(value - offset) / scale`, flattened in C order.

    Values outside `low` to `high`, if given, are rejected: they have another scale. With `image_crop`, one of `CROPS`,
    a value may also be a PNG or JPEG file: its bytes, or `{"b64": "..."}`, see `decode_image`.
    """

    name: str
    shape: tuple[int, ...]
    offset: float = 0.0
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["array"] = "array"
    image_crop: str | None = None
    is_whole_row = True
    tensor_datatype = "FP32"
    newer_attributes = ("image_crop",)

    @property
    def takes_files(self) -> bool:
        return self.image_crop is not None

    @property
    def width(self) -> int:
        return math.prod(self.shape)

    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted arrays, nested like `shape` or flat, as (n, width) float64; uint8 if all are image files."""
        if self.image_crop is not None and any(map(is_encoded, values)):
            return self._parse_images(values, locations, faults)
        parsed = self._stack(values)
        if parsed is None:
            parsed, rejected = np.zeros((len(values), self.width)), []
            for i, value in enumerate(values):
                one = self._stack([value])
                if one is None:
                    rejected.append(i)
                else:
                    parsed[i] = one[0]
            faults.add_rows(rejected, locations, "", lambda i: self._rejected(values[i]))
        return parsed

    def _parse_images(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return values of which some are image files. None is decoded if another one cannot be."""
        # A pixel is one byte: in float64, small files of many pixels would take eight times as much.
        parsed = np.zeros((len(values), self.width), np.uint8 if all(map(is_encoded, values)) else np.float64)
        files: list[tuple[int, ImageFile]] = []
        rejected: dict[int, tuple[str, str]] = {}
        for i, value in enumerate(values):
            if not is_encoded(value):
                if (one := self._stack([value])) is None:
                    rejected[i] = self._rejected(value)
                else:
                    parsed[i] = one[0]
                continue
            try:
                files.append((i, read_encoded(value)))
            except ImageFileError as e:
                rejected[i] = e.problem, e.fix
        for i, file in files if not rejected else []:
            try:
                parsed[i] = decode_image(file, self.shape, self.image_crop or "").ravel()
            except ImageFileError as e:
                rejected[i] = e.problem, e.fix
        faults.add_rows(sorted(rejected), locations, "", rejected.__getitem__)
        return parsed

    def check_file(self, value: Any) -> CheckedFile | None:
        """Return a value that `parse` takes instead, with as how many pixels it counts; None if it is no image file."""
        return CheckedFile(value) if self.image_crop is not None and is_encoded(value) else None

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, width)."""
        flat = np.asarray(values, np.float64).reshape(len(values), self.width)
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        if flat.size and not (flat.min() >= low and flat.max() <= high):
            outside = ~((flat >= low) & (flat <= high))  # also NaN
            for i in np.flatnonzero(outside.any(axis=1)):
                found = flat[i][outside[i]][0]
                if np.isnan(found):
                    fix = "an array has no missing values; replace them as in the training data"
                    faults.add(locations[int(i)], "expected finite numbers, found nan", fix)
                    continue
                expected = f"expected numbers from {low:g} to {high:g}, found {found:g}"
                faults.add(locations[int(i)], expected, "scale the values like the training data")
        if self.offset == 0 and self.scale == 1:
            return flat
        scaled = flat - self.offset
        scaled /= self.scale  # in place: small files become many values, eight bytes each
        return scaled

    def _stack(self, values: list[Any]) -> Array | None:
        """Return the batch as (n, width), None unless it consists of finite numbers in the right shape."""
        leaves: list[Any] = values
        for _ in self.shape if values and _nesting_depth(values[0]) > 1 else (1,):
            if not set(map(type, leaves)) <= {list, tuple}:
                return None
            leaves = list(chain.from_iterable(leaves))
        if not set(map(type, leaves)) <= {int, float} or len(leaves) != len(values) * self.width:
            return None
        try:
            stacked = np.array(values, np.float64)
        except (ValueError, OverflowError):  # ragged, or an integer beyond float64
            return None
        if stacked.shape[1:] not in {self.shape, (self.width,)} or not np.isfinite(stacked).all():
            return None
        return stacked.reshape(len(values), self.width)

    def _rejected(self, value: Any) -> tuple[str, str]:
        """Return problem and fix of a value that is no such array."""
        expected = f"expected an array of {self.width} finite numbers of shape {list(self.shape)}, or flat"
        sizes: list[int] = []
        inner: Any = value
        while isinstance(inner, (list, tuple)) and len(sizes) < 8:
            sizes.append(len(inner))
            inner = inner[0] if inner else None
        if not sizes:
            found = describe_value(value)
        elif sizes not in ([self.width], list(self.shape)):
            found = f"shape {sizes}"
        else:
            found = next(
                map(describe_value, filterfalse(is_finite_number, _leaves(value))), "rows of different lengths"
            )
        fix = "send the rows of the array as nested lists of numbers"
        return f"{expected}; found {found}", fix if self.image_crop is None else f"{fix}, or {_IMAGE_FORM}"

    def missing_values(self, count: int) -> Array:
        return np.full((count, self.width), np.nan)

    def count_missing(self, values: Array) -> int:
        del values
        return 0

    def _parse_text(self, text: str) -> Any:
        value = parse_finite_number(text)
        return text if value is None else value

    @classmethod
    def json_fields(cls) -> dict[str, fields.Field[Any]]:
        size = fields.Integer(strict=True, validate=validate.Range(1, 2**31))
        crops = f"expected one of {', '.join(CROPS)}"
        return {
            "shape": fields.List(size, required=True, validate=validate.Length(1, 8)),
            "offset": finite_number_field(required=True),
            "scale": finite_number_field(check_scale, required=True),
            "low": finite_number_field(required=True, allow_none=True),
            "high": finite_number_field(required=True, allow_none=True),
            "image_crop": fields.Raw(validate=validate.OneOf(CROPS, error=crops), error_messages={"null": crops}),
        }

    def find_problem(self) -> str | None:
        if self.image_crop is None:
            return None
        if not is_image_shape(self.shape):
            sides = f"of at most {MAX_IMAGE_SIDE} on a side"
            return f"shape: expected [height, width] or [height, width, 3] {sides}, as an image has"
        if (self.low, self.high) != (0, 255):
            return "high: expected pixels from 0 to 255, as an image has"
        return None

    def value_schemas(self) -> list[dict[str, Any]]:
        """Return the forms of an array: nested like its shape, and flat."""
        number: dict[str, Any] = {"type": "number"}
        if self.low is not None:
            number["minimum"] = self.low
        if self.high is not None:
            number["maximum"] = self.high
        nested = number
        for size in reversed(self.shape):
            nested = {"type": "array", "minItems": size, "maxItems": size, "items": nested}
        flat = {"type": "array", "minItems": self.width, "maxItems": self.width, "items": number}
        forms = [nested] if len(self.shape) == 1 else [nested, flat]
        if self.image_crop is not None:
            file = {"type": "string", "contentEncoding": "base64", "description": "A PNG or JPEG file"}
            forms.append(
                {"type": "object", "properties": {B64_KEY: file}, "required": [B64_KEY], "additionalProperties": False}
            )
        return forms

    def public_details(self) -> dict[str, Any]:
        bounds = {"low": self.low, "high": self.high}
        image = {} if self.image_crop is None else {"image_crop": self.image_crop}
        details = {"shape": list(self.shape), **bounds, **image, "seen": self.training_range()}
        return super().public_details() | details

    def form_field(self) -> FormField:
        known = self.training_range()
        text = f"shape {self._describe_shape()}"
        if self.low is not None and self.high is not None:
            text += f", numbers from {self.low:g} to {self.high:g}"
        if self.image_crop is not None:
            text += f"; or {_IMAGE_FORM}"
        seen = describe_range(known, "{:g}".format)
        is_drawable = len(self.shape) == 2 and known.get("min", 0) < known.get("max", 0)
        return FormField("drawing" if is_drawable else "json", text, f"{seen} in training" if seen else "")

    @classmethod
    def from_public_details(cls, details: Mapping[str, Any]) -> Self:
        return cls(details["name"], tuple(details["shape"]), image_crop=details.get("image_crop"))

    def describe(self, format_value: Callable[[Any], str]) -> str:
        return ", ".join(filter(None, [self._describe_shape(), describe_range(self.statistics, format_value)]))

    def describe_statistics(self, statistics: Mapping[str, Any], shorten: Callable[[str], str]) -> str:
        del shorten
        words = describe_summary(statistics)
        return ", ".join([self._describe_shape(), *words] if words else [])

    def describe_acceptance(self, other: Column | None) -> list[str]:
        del other
        limits = [f"{self.low} to {self.high}"] if (self.low, self.high) != (None, None) else []
        files = [] if self.image_crop is None else [f"image files, crop {self.image_crop}"]
        return [self._describe_shape(), *limits, *files]

    def _describe_shape(self) -> str:
        return " × ".join(map(str, self.shape))

    def summarize(self, format_number: Callable[[float], str]) -> str:
        low, high = (format_number(self.statistics[key]) for key in ("min", "max"))
        return f"{' x '.join(map(str, self.shape))}, {low} to {high}"

    @property
    def is_constant(self) -> bool:
        return bool(self.statistics["std"] == 0)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        return (-1, *self.shape)

    def tensor_shapes(self, count: int) -> list[tuple[int, ...]]:
        files = [] if self.image_crop is None else [(count,), (count, 1)]
        return [(count, self.width), (count, *self.shape), *files]

    def from_tensor(self, tensor: Array, datatype: str, location: str, faults: FaultCollector) -> Array | None:
        """Return a tensor of numbers, or of image files: bytes, or texts in base64."""
        if self.image_crop is not None and datatype == "BYTES" and tensor.size == len(tensor):
            files = self.tensor_values(tensor)
            return self._parse_images(files, RowLocations(location, range(len(files))), faults)
        if tensor.size != len(tensor) * self.width:
            problem = f"expected shape {list(self.tensor_shape)}, or BYTES [-1] of image files; found {datatype} "
            faults.add(location, f"{problem}{list(tensor.shape)}", "send pixels, or the bytes of a file for each row")
            return None
        return numbers_from_tensor(self, tensor, datatype, location, faults)

    def tensor_values(self, tensor: Array) -> list[Any]:
        """Return the image files of a BYTES tensor, bytes or texts in base64, as `parse` takes them."""
        values = tensor.ravel().tolist() if tensor.dtype == object else []
        return [value if isinstance(value, bytes | CheckedFile) else {B64_KEY: value} for value in values]

    def typical_value(self) -> Any:
        middle = self.offset if self.low is None or self.high is None else (self.low + self.high) / 2
        return np.full(self.shape, middle).tolist()

    def draw_values(self, count: int, rng: np.random.Generator) -> list[Any]:
        """Return arrays of random numbers with the mean, deviation and range of all values, integers like them."""
        mean, std, low, high = (float(self.statistics.get(key) or 0.0) for key in ("mean", "std", "min", "max"))
        drawn = mean + std * rng.standard_normal((count, *self.shape))
        short = round_to_digits(drawn, 3) if self.low is None else np.rint(drawn)
        values: list[Any] = np.clip(short, low, high).tolist()
        return values

    def repairs(self, value: Any) -> list[Any]:
        """Return the value, and its numbers clipped to the range; None if it has others or another count.

        An image file, which may take too long to decode, is not tried again: a white pixel replaces it.
        """
        return [{B64_KEY: _WHITE_PIXEL}] if is_encoded(value) else [value, self._clip(value)]

    def _clip(self, value: Any) -> Any:
        try:
            numbers = np.array(flatten_lists(value, MAX_NESTING), np.float64)
        except (TypeError, ValueError, OverflowError):
            return None
        if numbers.size != self.width:
            return None
        low = -np.inf if self.low is None else self.low
        clipped = np.clip(numbers, low, np.inf if self.high is None else self.high)
        return np.reshape(np.array(integral_floats_to_ints(clipped.tolist()), object), self.shape).tolist()

    def bins(self, dtype: Any) -> Bins | None:
        """Return bins of the mean of each array."""
        rounded, offset = float(np.finfo(dtype).eps), abs(self.offset) / self.scale * float(np.finfo(np.float64).eps)
        margin = 8 * (rounded + offset)  # the mean of scaled and rounded features is not that of the raw ones
        return scaled_bins(self, self.statistics.get("means"), dtype, margin)

    def range_limits(self) -> tuple[float, float]:
        return scaled_range_limits(self)

    def range_problem(self, feature: float) -> str:
        return scaled_range_problem(self, feature)


def _nesting_depth(value: Any) -> int:
    depth = 0
    while isinstance(value, (list, tuple)) and depth < 16:
        depth += 1
        value = value[0] if value else None
    return depth


def _leaves(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple)):
            stack.extend(item)
        else:
            yield item
