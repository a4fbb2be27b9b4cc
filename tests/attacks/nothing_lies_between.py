"""Bytes that belong to nothing, before, between and after the members: a place to hide another file, which ZIP
readers that begin at the end or at the start see differently.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    data, at = whole.data, whole.directory
    return {
        "a leading byte": b"\0" + data,
        "a script in front": b"#!/bin/sh\nexit\n" + data,
        "a hole before a member": data[: whole.second] + bytes(64) + data[whole.second :],
        "a hole before the directory": data[:at] + bytes(64) + data[at:],
        "a hole before the end record": data[: whole.end] + bytes(64) + data[whole.end :],
    }


if __name__ == "__main__":
    main(hostile)
