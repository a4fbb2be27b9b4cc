"""Millions of arrays, layers or golden rows: a reader that parses each before it checks their number is busy for
seconds.
"""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    return {
        "arrays": artifact.with_manifest_value("arrays", {f"a{i}": {} for i in range(10_001)}),
        "layers": artifact.with_manifest_value("layers", [{"type": "Tanh"}] * 10_001),
        "golden rows": artifact.with_manifest_value("golden", {"instances": [0] * 2_000_000}),
        "no layers": artifact.with_manifest_value("layers", []),
        "no golden rows": artifact.with_manifest_value("golden", {"instances": []}),
    }


if __name__ == "__main__":
    main(hostile)
