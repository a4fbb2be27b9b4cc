"""Flags, dates, versions, attributes and comments other than the fixed ones: encryption, sizes that come later, an
executable.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    local, entry = whole.second, whole.second_entry
    return {
        "another writer": whole.rezipped(),
        "another version": whole.changed((local + 4, b"\x2d\0"), (entry + 6, b"\x2d\0")),
        "an encrypted member": whole.changed((local + 6, b"\x01\0"), (entry + 8, b"\x01\0")),
        "a data descriptor": whole.changed((local + 6, b"\x08\0"), (entry + 8, b"\x08\0")),
        "another date": whole.changed((local + 12, b"\x22\0"), (entry + 14, b"\x22\0")),
        "made on Unix": whole.changed((entry + 5, b"\x03")),
        "a comment": whole.changed((entry + 32, b"\x01\0")),
        "an executable": whole.changed((entry + 38, b"\xff\xff\xff\xff")),
    }


if __name__ == "__main__":
    main(hostile)
