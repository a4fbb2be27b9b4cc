"""Padding of another length or content: arrays that cannot be mapped in place, or unchecked bytes."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    name = len("golden.outputs.npy")
    at = artifact.second + 30 + name
    end = artifact.data.index(b"\x93NUMPY", at)
    return {
        "none": artifact.with_bytes((artifact.second + 28, b"\0\0"))[:at] + artifact.data[end:],
        "a byte more": artifact.data[:end] + b"\0" + artifact.data[end:],
        "not zeros": artifact.with_bytes((at + 6, b"x")),
        "another alignment": artifact.with_bytes((at + 4, b"\x20\0")),
        "another record": artifact.with_bytes((at, b"\x34\xd9")),
    }


if __name__ == "__main__":
    main(hostile)
