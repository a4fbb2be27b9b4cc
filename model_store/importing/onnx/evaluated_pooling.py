"""MaxPool and AveragePool for onnx's reference evaluator, by their definition.

Those of onnx 1.22 take pads as top, bottom, left, right, where the operator has top, left, bottom, right; they fail for
rows with padding. Onnx's own tests of the operators have equal pads on all sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx.reference.op_run import OpRun

from model_store.importing.images import whole_windows
from model_store.importing.onnx.operators import window_settings
from model_store.nn import Array


def _pooled(x: Array, attributes: dict[str, Any], border: float, reduce: Callable[..., Array]) -> tuple[Array]:
    """Return what `reduce` makes of each window of images (batch, channels, sizes...) with a border."""
    given = {name: value for name, value in attributes.items() if value is not None}
    kind = str(given.get("auto_pad", "NOTSET")).encode()
    sizes, axes = given["kernel_shape"], x.ndim - 2
    spec = window_settings({**given, "auto_pad": kind}, sizes, x.shape[1:])
    whole = whole_windows(x.shape[2:], sizes, spec) if given.get("ceil_mode") else spec
    beyond = [(0, last - pad) for last, pad in zip(whole.pads[axes:], spec.pads[axes:], strict=True)]
    pads = zip(spec.pads[:axes], spec.pads[axes:], strict=True)
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=border)
    padded = np.pad(padded, [(0, 0), (0, 0), *beyond], constant_values=np.nan)  # what ceil_mode adds never counts
    extents = [1 + step * (size - 1) for step, size in zip(spec.dilations, sizes, strict=True)]
    windows = sliding_window_view(padded, extents, tuple(range(2, x.ndim)))
    places = tuple(slice(None, None, step) for step in (*spec.strides, *spec.dilations))
    chosen = windows[(slice(None), slice(None), *places)]
    return (reduce(chosen, axis=tuple(range(-axes, 0))).astype(x.dtype),)


class MaxPool(OpRun):  # type: ignore[misc,unused-ignore]
    """The operator MaxPool without the indices."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        return _pooled(x, attributes, np.nan, np.nanmax)


class AveragePool(OpRun):  # type: ignore[misc,unused-ignore]
    """The operator AveragePool."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        return _pooled(x, attributes, 0.0 if attributes.get("count_include_pad") else np.nan, np.nanmean)
