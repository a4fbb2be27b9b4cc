"""A manifest above the size limit."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    notes = {"notes": "x" * (8 << 20)}
    return {
        "too long": artifact.with_manifest_value("training", notes),
        "too deep": artifact.forge(b"[" * ((8 << 20) + 1)),
    }


if __name__ == "__main__":
    main(hostile)
