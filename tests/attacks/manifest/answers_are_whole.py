"""A baseline that `answers` does not mention, one that is missing, or one of another width."""

from __future__ import annotations

import copy
import hashlib

import numpy as np

from tests.attacks.forge import ValidArtifact, Variants, canonical_json, main


def hostile(artifact: ValidArtifact) -> Variants:
    def with_baseline(baseline: np.ndarray) -> bytes:
        manifest = copy.deepcopy(artifact.manifest)
        sha256 = hashlib.sha256(baseline.tobytes()).hexdigest()
        spec = {"dtype": baseline.dtype.str, "shape": list(baseline.shape), "sha256": sha256}
        manifest |= {"answers": {"baseline": "mean"}}
        manifest["arrays"]["answers.baseline"] = spec
        return artifact.forge(
            canonical_json(manifest), manifest["arrays"], artifact.arrays | {"answers.baseline": baseline}
        )

    return {
        "a baseline without answers": artifact.with_array("answers.baseline", np.zeros(3, np.float32)),
        "answers without a baseline": artifact.with_manifest_value("answers", {"baseline": "mean"}),
        "answers of nothing": artifact.with_manifest_value("answers", {}),
        "another kind of baseline": artifact.with_manifest_value("answers", {"baseline": "median"}),
        "null": artifact.with_manifest_value("answers", None),
        "another width": with_baseline(np.zeros(4, np.float32)),
        "another shape": with_baseline(np.zeros((1, 3), np.float32)),
        "another array of the answers": artifact.with_array("answers.scores", np.zeros(3, np.float32)),
    }


if __name__ == "__main__":
    main(hostile)
