"""Pooling and gathering: padding, windows of any shape, and what a model file may say of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from model_store.nn import AveragePool2D, Conv2D, Gather, MaxPool2D, build
from training import check_gradients

SHAPE = (5, 6, 2)
# size, stride, padding, dilation
WINDOWS: list[tuple[Any, Any, Any, Any]] = [
    (3, 2, 1, 1), (2, 2, [0, 0, 1, 1], 1), ([3, 2], [2, 1], [2, 1, 1, 0], 1), ([2, 1], 1, 0, [3, 1]),
    ([3, 2], [1, 3], [3, 2, 4, 0], [2, 3]), (5, 1, 4, 1),
]  # fmt: skip


def windows(
    x: np.ndarray, layer: MaxPool2D | AveragePool2D, border: float
) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Return row, column, pixels (batch, places, channels) of each window, and which of them lie in the image."""
    top, left, bottom, right = layer.window.padding
    sides = ((top, bottom), (left, right))
    padded = np.pad(x, ((0, 0), *sides, (0, 0)), constant_values=border)
    inside = np.pad(np.ones(x.shape[1:3], bool), sides)
    found = []
    for i, j in product(range(layer.window.rows), range(layer.window.columns)):
        (height, width), (down, across), (below, beside) = layer.window.size, layer.window.stride, layer.window.dilation
        rows, columns = i * down + below * np.arange(height), j * across + beside * np.arange(width)
        pixels = padded[:, rows][:, :, columns].reshape(len(x), -1, x.shape[3])
        found.append((i, j, pixels, inside[rows][:, columns].ravel()))
    return found


@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), WINDOWS)
def test_the_largest_value_never_lies_in_the_padding(size: Any, stride: Any, padding: Any, dilation: Any) -> None:
    rng = np.random.default_rng(1)
    layer = MaxPool2D(SHAPE, size, stride, padding, dilation)
    x = rng.permutation(2 * np.prod(SHAPE)).reshape(2, *SHAPE) - 200.0  # below 0, no two within a finite difference
    expected = np.empty((2, *layer.output_shape(SHAPE)))
    for i, j, pixels, _ in windows(x, layer, -np.inf):
        expected[:, i, j] = pixels.max(axis=1)
    assert layer(x).tolist() == layer.forward(x).tolist() == expected.tolist()
    assert np.isfinite(expected).all()
    assert check_gradients(layer, x, rng=rng) < 1e-6


@pytest.mark.parametrize("include_padding", [False, True])
@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), WINDOWS)
def test_the_mean_counts_the_padding_only_if_it_is_included(
    size: Any, stride: Any, padding: Any, dilation: Any, include_padding: bool
) -> None:
    rng = np.random.default_rng(2)
    layer = AveragePool2D(SHAPE, size, stride, padding, dilation, include_padding=include_padding)
    x = rng.standard_normal((2, *SHAPE))
    expected = np.empty((2, *layer.output_shape(SHAPE)))
    for i, j, pixels, inside in windows(x, layer, 0):
        expected[:, i, j] = pixels.sum(axis=1) / (len(inside) if include_padding else inside.sum())
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(layer.forward(x), layer(x))
    assert check_gradients(layer, x, rng=rng) < 1e-6


def test_gathering_repeats_and_cuts_and_adds_the_gradients_of_repeated_values() -> None:
    layer = Gather(6, (2, 1, 2), dtype=np.float64)
    layer.index = [5, 0, 5, 3]
    x = np.random.default_rng(3).standard_normal((3, 2, 3, 1))
    assert layer(x).tolist() == x.reshape(3, 6)[:, [5, 0, 5, 3]].reshape(3, 2, 1, 2).tolist()
    assert check_gradients(layer, x, rng=np.random.default_rng(4)) < 1e-6


@pytest.mark.parametrize(("kernel", "stride", "padding"), [((2, 3), (2, 1), (1, 0, 0, 2)), ((1, 4), 3, 0)])
def test_the_derivatives_of_a_rectangular_convolution_are_the_finite_differences(
    kernel: Any, stride: Any, padding: Any
) -> None:
    rng = np.random.default_rng(5)
    layer = Conv2D(SHAPE, 3, kernel, stride, padding, dtype=np.float64, rng=rng)
    assert check_gradients(layer, rng.standard_normal((2, *SHAPE)), rng=rng) < 1e-6


def test_a_model_file_has_no_field_of_a_pooling_with_its_default() -> None:
    """Files of poolings without padding have the bytes that they had before there was padding."""
    plain = {"type": "MaxPool2D", "input_shape": [5, 6, 2], "size": 2, "stride": 2}
    assert MaxPool2D(SHAPE).config() == MaxPool2D(SHAPE, (2, 2), [2, 2], (0, 0, 0, 0), 1).config() == plain
    padded = AveragePool2D(SHAPE, (3, 2), np.int64(2), (1, 0, 1, 0), include_padding=True).config()
    assert padded == plain | {
        "type": "AveragePool2D", "size": [3, 2], "padding": [1, 0, 1, 0], "include_padding": True
    }  # fmt: skip
    rest = [{"type": "Flatten", "input_shape": [3, 3, 2]}, {"type": "Linear", "input_size": 18, "output_size": 1}]
    assert build([padded, *rest]).config()[0] == padded


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPool2D(SHAPE, 2, 2, 2), "MaxPool2D.padding: expected a pixel of the image in each window, found 2"),
        (
            lambda: AveragePool2D((1, 9, 1), [2, 1], 1, [1, 0, 1, 0], [2, 1]),
            "padding: expected a pixel of the image in each",
        ),
        (lambda: MaxPool2D(SHAPE, (1, 2, 3)), r"MaxPool2D.size: expected .* found \(1, 2, 3\)"),
        (lambda: MaxPool2D((2**12, 2**12, 1), 255, 255, 254), "padding: expected 16777216 values an image at most"),
        (lambda: AveragePool2D(SHAPE, include_padding=1), "include_padding: expected true or false, found 1"),
        (lambda: Gather(4, (2, 2)), "Gather.shape: expected a list of one size, or of height, width and channels"),
        (lambda: Gather(4, (2**25,)), "Gather.shape: expected .* 16777216 values at most"),
        (lambda: Gather(4, (2,)).output_shape((5,)), r"input_size: expected the number of values of \(5,\); found 4"),
    ],
)
def test_an_error_says_what_does_not_fit(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
