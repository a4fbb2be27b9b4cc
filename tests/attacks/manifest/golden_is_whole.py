"""Golden rows without outputs, or outputs without rows: the golden check would check nothing."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, canonical_json, main


def hostile(artifact: ValidArtifact) -> Variants:
    rest = {name: spec for name, spec in artifact.manifest["arrays"].items() if name != "golden.outputs"}
    without = {**artifact.manifest, "arrays": rest}
    return {
        "rows without outputs": artifact.forge(canonical_json(without), rest),
        "outputs without rows": artifact.with_manifest_value("golden", None),
    }


if __name__ == "__main__":
    main(hostile)
