"""Weights that differ from the manifest's hashes, with correct CRCs: a changed model under a known digest."""

from __future__ import annotations

import numpy as np

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    weights = artifact.arrays["modules.0.weights"]
    return {
        "one bit": artifact.forge(arrays={**artifact.arrays, "modules.0.weights": np.nextafter(weights, np.inf)}),
        "exchanged": artifact.forge(arrays={**artifact.arrays, "modules.0.weights": weights[::-1].copy()}),
        "another hash": artifact.with_manifest_value("arrays/modules.0.bias/sha256", "0" * 64),
        "no hash": artifact.with_manifest_value("arrays/modules.0.bias/sha256", ""),
        "capitals": artifact.with_manifest_value("arrays/modules.0.bias/sha256", "AB" * 32),
    }


if __name__ == "__main__":
    main(hostile)
