"""Wrong CRC-32 values in header and directory. This reader has its own hashes, but NumPy would reject the file."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    local, entry = artifact.second, artifact.second_entry
    return {
        "of an array": artifact.with_bytes((local + 14, b"abcd"), (entry + 16, b"abcd")),
        "of the manifest": artifact.with_bytes((14, b"abcd"), (artifact.directory + 16, b"abcd")),
        "in the header alone": artifact.with_bytes((local + 14, b"abcd")),
    }


if __name__ == "__main__":
    main(hostile)
