"""A compressed member: 2 MB that inflate to 2 GB, and that cannot be memory-mapped."""

from __future__ import annotations

import zipfile

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    return {
        "deflated": artifact.rezip(compression=zipfile.ZIP_DEFLATED),
        "by bzip2": artifact.rezip(compression=zipfile.ZIP_BZIP2),
        "by lzma": artifact.rezip(compression=zipfile.ZIP_LZMA),
        "marked as deflated": artifact.with_bytes(
            (artifact.second + 8, b"\x08\0"), (artifact.second_entry + 10, b"\x08\0")
        ),
    }


if __name__ == "__main__":
    main(hostile)
