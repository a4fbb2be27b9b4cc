"""An additional, missing or mistyped field: other readers might interpret it."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    return {
        "not an object": artifact.forge(b"[]"),
        "one more": artifact.with_manifest_value("pickle", "x"),
        "one more in an array": artifact.with_manifest_value("arrays/modules.0.bias/offset", 0),
        "one more next to golden rows": artifact.with_manifest_value("golden/outputs", []),
        "one more of the answers": artifact.with_manifest_value("answers", {"baseline": "mean", "code": "x"}),
        "no producer": artifact.with_manifest_value("producer", ...),
        "an empty producer": artifact.with_manifest_value("producer", ""),
        "a number as description": artifact.with_manifest_value("description", 1),
        "too long a description": artifact.with_manifest_value("description", "x" * 10_001),
        "a list as training": artifact.with_manifest_value("training", []),
        "no arrays": artifact.with_manifest_value("arrays", {}),
    }


if __name__ == "__main__":
    main(hostile)
