"""Columns and labels that do not fit the network: rows would be encoded with another width, or labels be missing."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    number = artifact.manifest["signature"]["inputs"][0]
    return {
        "nothing": artifact.with_manifest_value("signature", {}),
        "no columns": artifact.with_manifest_value("signature/inputs", []),
        "a column more": artifact.with_manifest_value(
            "signature/inputs", [*artifact.manifest["signature"]["inputs"], {**number, "name": "x"}]
        ),
        "a column twice": artifact.with_manifest_value("signature/inputs", [number, number, number]),
        "an unknown kind": artifact.with_manifest_value("signature/inputs/0/kind", "pickle"),
        "a zero scale": artifact.with_manifest_value("signature/inputs/0/scale", 0),
        "a label more": artifact.with_manifest_value("signature/output/labels", ["no", "yes", "maybe"]),
        "a label twice": artifact.with_manifest_value("signature/output/labels", ["no", "no"]),
    }


if __name__ == "__main__":
    main(hostile)
