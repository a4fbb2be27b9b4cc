"""Array names that traverse paths, are hidden, or equal the manifest's: unpacking the archive would write there."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, canonical_json, main


def hostile(artifact: ValidArtifact) -> Variants:
    arrays = artifact.manifest["arrays"]

    def with_array(name: str) -> bytes:
        specs = {**arrays, name: arrays["modules.0.bias"]}
        text = canonical_json({**artifact.manifest, "arrays": specs})
        return artifact.forge(text, specs, {**artifact.arrays, name: artifact.arrays["modules.0.bias"]})

    names = {
        "parent directory": "..",
        "path traversal": "../../x",
        "absolute path": "/etc/passwd",
        "hidden": ".hidden",
        "the manifest": "__manifest__",
        "a null": "a\0b",
        "beyond ASCII": "\u00e4",
        "a newline at the end": "a\n",
        "nothing": "",
    }
    return {variant: with_array(name) for variant, name in names.items()}


if __name__ == "__main__":
    main(hostile)
