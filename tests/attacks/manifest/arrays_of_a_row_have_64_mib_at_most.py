"""Few bytes that need hundreds of megabytes for a row: a pixel with a wide padding in float64."""

from __future__ import annotations

import numpy as np

from model_store.artifact.model import Model
from model_store.nn import Conv2D, Flatten, Linear, Mish, Sequential
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature
from tests.attacks.forge import ValidArtifact, Variants, main, valid_artifact


def hostile(artifact: ValidArtifact) -> Variants:
    del artifact
    return {f"a padding of {padding} pixels": _artifact(padding) for padding in (1500, 2047)}


def _artifact(padding: int) -> bytes:
    """Return a valid file but for the padding of its first layer."""
    signature = Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,)))
    rest = [Flatten((2, 2, 1)), Linear(4, 1, dtype=np.float64)]
    valid = valid_artifact(Model(Sequential([_first(1), Mish(), *rest]), signature))
    return valid.with_manifest_value("layers", Sequential([_first(padding), Mish(), *rest]).config())


def _first(padding: int) -> Conv2D:
    return Conv2D((1, 1, 1), 1, 1, 2 * padding, padding, dtype=np.float64)


if __name__ == "__main__":
    main(hostile)
