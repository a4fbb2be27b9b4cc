"""Sizes other than the members': a reader that believes them allocates gigabytes, or reads one member's end as
another's start.
"""

from __future__ import annotations

import struct

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    local, entry = whole.second, whole.second_entry
    size = int.from_bytes(whole.data[local + 22 : local + 26], "little")
    less, more = (struct.pack("<2I", size + by, size + by) for by in (-4, 4))
    return {
        "one smaller": whole.changed((local + 18, less), (entry + 20, less)),
        "one larger": whole.changed((local + 18, more), (entry + 20, more)),
        "two sizes": whole.changed((local + 22, b"\xff\xff\0\0")),
        "a manifest of nothing": whole.changed((18, struct.pack("<2I", 128, 128))),
        "a manifest of 4 GiB": whole.changed((18, struct.pack("<2I", 0xFFFFFFF0, 0xFFFFFFF0))),
        "a manifest up to the end": whole.changed((18, struct.pack("<2I", len(whole.data), len(whole.data)))),
    }


if __name__ == "__main__":
    main(hostile)
