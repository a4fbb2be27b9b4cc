"""A directory that differs from the headers: readers that start at the end see other members than those that start at
the beginning.
"""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    entry, end = artifact.second_entry, artifact.end
    return {
        "another name": artifact.with_bytes((entry + 46, b"x")),
        "another offset": artifact.with_bytes((entry + 42, b"\x01")),
        "another CRC": artifact.with_bytes((entry + 16, b"abcd")),
        "another size": artifact.with_bytes((entry + 20, b"\x01\0\0\0")),
        "an extra field": artifact.with_bytes((entry + 30, b"\x04\0")),
        "another count": artifact.with_bytes((end + 8, b"\x01\0\x01\0")),
        "another size of the directory": artifact.with_bytes((end + 12, b"\0\0\0\0")),
        "another offset of the directory": artifact.with_bytes((end + 16, b"\0\0\0\0")),
        "a second disk": artifact.with_bytes((end + 4, b"\x01\0")),
        "a duplicate entry": artifact.data[:entry] + artifact.data[artifact.directory : entry] + artifact.data[entry:],
    }


if __name__ == "__main__":
    main(hostile)
