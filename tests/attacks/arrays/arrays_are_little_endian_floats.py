"""Arrays of another type than the manifest's dtype."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    bias = artifact.arrays["modules.0.bias"]
    return {
        "twice as wide": artifact.with_array("modules.0.bias", bias.astype("<f8")),
        "integers": artifact.with_array("modules.0.bias", bias.astype("<i4")),
        "big-endian": artifact.with_array("modules.0.bias", bias.astype(">f4")),
        "half as wide": artifact.with_manifest_value("dtype", "float16"),
        "the other width": artifact.with_manifest_value("dtype", "float64"),
        "a number as dtype": artifact.with_manifest_value("dtype", 4),
    }


if __name__ == "__main__":
    main(hostile)
