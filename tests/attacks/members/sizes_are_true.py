"""Wrong member sizes: a reader that believes them allocates gigabytes, or reads the end of one member as the start of
another.
"""

from __future__ import annotations

import struct

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    local, entry = artifact.second, artifact.second_entry
    size = int.from_bytes(artifact.data[local + 22 : local + 26], "little")
    less, more = (struct.pack("<2I", size + by, size + by) for by in (-4, 4))
    return {
        "one smaller": artifact.with_bytes((local + 18, less), (entry + 20, less)),
        "one larger": artifact.with_bytes((local + 18, more), (entry + 20, more)),
        "two sizes": artifact.with_bytes((local + 22, b"\xff\xff\0\0")),
        "an empty manifest": artifact.with_bytes((18, struct.pack("<2I", 128, 128))),
        "a manifest of 4 GiB": artifact.with_bytes((18, struct.pack("<2I", 0xFFFFFFF0, 0xFFFFFFF0))),
        "a manifest up to the end": artifact.with_bytes(
            (18, struct.pack("<2I", len(artifact.data), len(artifact.data)))
        ),
    }


if __name__ == "__main__":
    main(hostile)
