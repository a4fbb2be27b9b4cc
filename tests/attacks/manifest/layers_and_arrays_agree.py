"""Layers that do not fit the arrays: matrix products of other shapes, or a layer without weights."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


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
        "a transposed array": artifact.with_array("modules.0.weights", artifact.arrays["modules.0.weights"].T.copy()),
    }


if __name__ == "__main__":
    main(hostile)
