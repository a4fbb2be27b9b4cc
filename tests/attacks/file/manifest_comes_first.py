"""Other content in place of the manifest: a reader would trust bytes that nothing describes."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, build_zip, main


def hostile(artifact: ValidArtifact) -> Variants:
    parts = artifact.original_parts()
    return {
        "text": b"species,island\n" * 50,
        "zeros": bytes(len(artifact.data)),
        "an array first": build_zip([parts[1], parts[0], *parts[2:]]),
        "the manifest last": build_zip([*parts[1:], parts[0]]),
        "no manifest": build_zip(parts[1:]),
    }


if __name__ == "__main__":
    main(hostile)
