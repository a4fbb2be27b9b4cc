"""Shapes that are empty, booleans, negative, or larger than any file. NumPy takes 7 seconds and 2 GB to reject some
of them.
"""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    location = "arrays/modules.0.bias/shape"
    return {
        "no dimension": artifact.with_manifest_value(location, []),
        "nine dimensions": artifact.with_manifest_value(location, [1] * 8 + [4]),
        "no element": artifact.with_manifest_value(location, [0]),
        "negative": artifact.with_manifest_value(location, [-1, -4]),
        "boolean": artifact.with_manifest_value(location, [True]),
        "not whole": artifact.with_manifest_value(location, [4.0]),
        "text": artifact.with_manifest_value(location, "4"),
        "beyond this file": artifact.with_manifest_value(location, [5]),
        "beyond any file": artifact.with_manifest_value(location, [2**32] * 8),
        "beyond 64 bits": artifact.with_manifest_value(location, [2**64]),
    }


if __name__ == "__main__":
    main(hostile)
