"""ZIP64 markers, whose 64-bit sizes can point beyond the file."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    local, entry = artifact.second, artifact.second_entry
    full = b"\xff" * 8
    return {
        "sizes": artifact.with_bytes((local + 18, full), (entry + 20, full)),
        "sizes of the manifest": artifact.with_bytes((18, full)),
        "the directory's place": artifact.with_bytes((artifact.end + 12, full)),
        "a record": artifact.with_bytes((local + 30 + 21, b"\x01\0")),
        "another writer's": artifact.data[: artifact.end] + b"PK\x06\x06" + bytes(52) + artifact.data[artifact.end :],
    }


if __name__ == "__main__":
    main(hostile)
