"""Members that are unlisted, missing or duplicate: readers disagree about which of two equal names counts."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, build_zip, main


def hostile(artifact: ValidArtifact) -> Variants:
    parts = artifact.original_parts()
    unlisted = ("modules.9.weights", *parts[-1][1:])
    return {
        "one more": build_zip([*parts, unlisted]),
        "one less": build_zip(parts[:-1]),
        "one twice": build_zip([*parts, parts[-1]]),
        "the manifest twice": build_zip([parts[0], *parts]),
        "one under another name": build_zip([*parts[:-1], unlisted]),
        "path traversal": build_zip([*parts[:-1], ("../../" + parts[-1][0], *parts[-1][1:])]),
        "listed and missing": artifact.with_manifest_value("arrays/zzz", artifact.manifest["arrays"]["modules.0.bias"]),
        "present and not listed": artifact.with_manifest_value("arrays/modules.0.bias", ...),
    }


if __name__ == "__main__":
    main(hostile)
