"""Bytes before, between and after the members: they can hide another file, which ZIP readers that start at the end or
at the beginning see differently.
"""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    data, at = artifact.data, artifact.directory
    return {
        "a leading byte": b"\0" + data,
        "a script before the archive": b"#!/bin/sh\nexit\n" + data,
        "a gap before a member": data[: artifact.second] + bytes(64) + data[artifact.second :],
        "a gap before the directory": data[:at] + bytes(64) + data[at:],
        "a gap before the end record": data[: artifact.end] + bytes(64) + data[artifact.end :],
    }


if __name__ == "__main__":
    main(hostile)
