"""Flags, dates, versions, attributes and comments other than the fixed ones, such as encryption, data descriptors and
executable bits.
"""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    local, entry = artifact.second, artifact.second_entry
    return {
        "another writer": artifact.rezip(),
        "another version": artifact.with_bytes((local + 4, b"\x2d\0"), (entry + 6, b"\x2d\0")),
        "an encrypted member": artifact.with_bytes((local + 6, b"\x01\0"), (entry + 8, b"\x01\0")),
        "a data descriptor": artifact.with_bytes((local + 6, b"\x08\0"), (entry + 8, b"\x08\0")),
        "another date": artifact.with_bytes((local + 12, b"\x22\0"), (entry + 14, b"\x22\0")),
        "made on Unix": artifact.with_bytes((entry + 5, b"\x03")),
        "a comment": artifact.with_bytes((entry + 32, b"\x01\0")),
        "an executable": artifact.with_bytes((entry + 38, b"\xff\xff\xff\xff")),
    }


if __name__ == "__main__":
    main(hostile)
