"""Layers that do not fit the arrays: matrix products of other shapes, or a layer without weights."""

from __future__ import annotations

import numpy as np

from model_store.artifact.model import Model
from model_store.nn import Gather, Linear, Sequential
from model_store.schema.signature import ArrayColumn, RegressionOutput, Signature
from tests.attacks.forge import ValidArtifact, Variants, main, valid_artifact


def hostile(artifact: ValidArtifact) -> Variants:
    return {
        "a layer too wide": artifact.with_manifest_value("layers/0/output_size", 2**31),
        "a layer too narrow": artifact.with_manifest_value("layers/0/output_size", 3),
        "a layer more": artifact.with_manifest_value(
            "layers", [*artifact.manifest["layers"], artifact.manifest["layers"][2]]
        ),
        "a layer less": artifact.with_manifest_value("layers", artifact.manifest["layers"][:2]),
        "an array more": artifact.with_array("modules.7.weights", artifact.arrays["modules.0.weights"]),
        "an array without its layer": artifact.with_manifest_value("layers/1", {"type": "ConstantInputs", "size": 3}),
        **{
            f"a place {place}": _gathering().with_array("modules.0.index", np.array([0, place], np.float32))
            for place in (3, -1, 0.5, 2**24)
        },
        "a transposed array": artifact.with_array("modules.0.weights", artifact.arrays["modules.0.weights"].T.copy()),
    }


def _gathering() -> ValidArtifact:
    """Return a valid file whose first layer takes two of three values."""
    signature = Signature((ArrayColumn("values", (3,)),), RegressionOutput(("y",), (0.0,), (1.0,)))
    return valid_artifact(Model(Sequential([Gather(3, (2,)), Linear(2, 1)]), signature))


if __name__ == "__main__":
    main(hostile)
