"""Truncated files: a reader that seeks to an offset in a header reads beyond the end. Pipes and devices, which cannot
be written here, are in the test.
"""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    data = artifact.data
    return {
        "empty": b"",
        "a few bytes": data[:20],
        "an empty archive": data[artifact.end :],
        "cut in the manifest": data[:200],
        "cut in an array": data[: artifact.second + 100],
        "cut in the directory": data[: artifact.directory + 60],
        "cut by one byte": data[:-1],
    }


if __name__ == "__main__":
    main(hostile)
