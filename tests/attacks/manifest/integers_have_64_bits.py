"""Integers beyond 64 bits: JSON writers of other languages reject or round them, so a page or a response would fail."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    numbers = {"a large": 2**64, "a small": -(2**63) - 1, "a huge": 10**4000}
    return {
        f"{word} {place}": artifact.with_manifest_value(location, value)
        for word, value in numbers.items()
        for place, location in (
            ("label", "signature/output/labels/0"),
            ("figure of the training", "training/seed"),
            ("golden value", "golden/instances/0"),
        )
    }


if __name__ == "__main__":
    main(hostile)
