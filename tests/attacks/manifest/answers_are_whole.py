"""Arrays that `answers` does not mention, that are missing, or that do not fit: a baseline, conformal scores."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import numpy as np

from tests.attacks.forge import ValidArtifact, Variants, canonical_json, main


def hostile(artifact: ValidArtifact) -> Variants:
    def with_answers(answers: dict[str, Any], **arrays: np.ndarray) -> bytes:
        """Return an artifact with these answers, and arrays named `answers.<name>`; `_` is a dot."""
        manifest = copy.deepcopy(artifact.manifest) | {"answers": answers}
        named = {f"answers.{name.replace('_', '.')}": array for name, array in arrays.items()}
        for name, array in named.items():
            sha256 = hashlib.sha256(array.tobytes()).hexdigest()
            manifest["arrays"][name] = {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": sha256}
        return artifact.forge(canonical_json(manifest), manifest["arrays"], artifact.arrays | named)

    def with_baseline(baseline: np.ndarray) -> bytes:
        return with_answers({"baseline": "mean"}, baseline=baseline)

    def with_scores(scores: Any, **about: Any) -> bytes:
        about = {"method": "aps"} | about
        return with_answers({"conformal": about}, conformal_scores=np.array(scores, np.float32))

    return {
        "a baseline without answers": artifact.with_array("answers.baseline", np.zeros(3, np.float32)),
        "answers without a baseline": artifact.with_manifest_value("answers", {"baseline": "mean"}),
        "answers of nothing": artifact.with_manifest_value("answers", {}),
        "another kind of baseline": artifact.with_manifest_value("answers", {"baseline": "median"}),
        "null": artifact.with_manifest_value("answers", None),
        "another width": with_baseline(np.zeros(4, np.float32)),
        "another shape": with_baseline(np.zeros((1, 3), np.float32)),
        "scores without answers": artifact.with_array("answers.conformal.scores", np.zeros((1, 3), np.float32)),
        "answers without scores": artifact.with_manifest_value("answers", {"conformal": {"method": "aps"}}),
        "scores of another method": with_scores([[0.1, 0.2]], method="absolute"),
        "scores of an unknown method": with_scores([[0.1, 0.2]], method="eval"),
        "scores of two targets": with_scores([[0.1, 0.2], [0.1, 0.2]]),
        "scores that descend": with_scores([[0.2, 0.1]]),
        "scores below 0": with_scores([[-0.2, 0.1]]),
        "scores without an axis": with_scores([0.1, 0.2]),
        "10001 scores": with_scores([[0.5] * 10_001]),
        "a penalty of aps": with_scores([[0.1, 0.2]], penalty=0.1, rank=2),
        "raps without a penalty": with_scores([[0.1, 0.2]], method="raps"),
        "a penalty of a million": with_scores([[0.1, 0.2]], method="raps", penalty=1e6, rank=2),
        "a rank below 0": with_scores([[0.1, 0.2]], method="raps", penalty=0.1, rank=-1),
        "a local scale of labels": with_answers(
            {"conformal": {"method": "normalized"}},
            conformal_scores=np.array([[0.1]], np.float32),
            conformal_knots=np.zeros((1, 1), np.float32),
            conformal_scales=np.zeros((1, 1), np.float32),
        ),
        "another array of the answers": artifact.with_array("answers.scores", np.zeros(3, np.float32)),
    }


if __name__ == "__main__":
    main(hostile)
