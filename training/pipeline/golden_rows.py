"""The golden rows of a model: rows made up from statistics, or rows of the data if the job says so.

They prove on every machine that the model predicts what it predicted in training. The first one is the example that the
service shows to its callers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_store.artifact.golden_rows import golden_count, make_up_rows
from model_store.artifact.model import Golden
from model_store.nn import Sequential
from model_store.schema.signature import Signature


def make_golden(
    examples: str,
    network: Sequential,
    signature: Signature,
    evaluated: Callable[[int], Golden],
    rng: np.random.Generator,
) -> Golden | None:
    """Return the golden rows for `[model] examples`: "synthetic", "rows" or "none".

    Synthetic rows are drawn column by column from the statistics in the signature, which the model has anyway.
    evaluated: returns so many evaluation rows with their outputs.
    """
    if examples == "none":
        return None
    if examples == "rows":
        return evaluated(golden_count(signature.width))
    rows = make_up_rows(signature, rng)
    return Golden(rows, network(signature.encode(rows, dtype=network.dtype)))
