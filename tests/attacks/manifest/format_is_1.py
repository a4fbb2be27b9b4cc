"""A format number that this reader does not know: it must not guess."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    values = {"another": 2, "none": 0, "true": True, "text": "1", "not whole": 1.0}
    return {name: artifact.with_manifest_value("format", value) for name, value in values.items()}


if __name__ == "__main__":
    main(hostile)
