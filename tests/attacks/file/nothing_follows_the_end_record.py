"""Data after the end record: a comment, or a second archive. Some readers see the first archive, others the last."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    data = artifact.data
    return {
        "a trailing byte": data + b"\0",
        "a comment": artifact.with_bytes((len(data) - 2, b"\x03\x00")) + b"hey",
        "a second end record": data + data[artifact.end :],
        "the whole file twice": data + data,
    }


if __name__ == "__main__":
    main(hostile)
