"""A CRC-32 of other bytes, in header and directory alike: this reader has its own hashes, but NumPy would refuse
the file.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    local, entry = whole.second, whole.second_entry
    return {
        "of an array": whole.changed((local + 14, b"abcd"), (entry + 16, b"abcd")),
        "of the manifest": whole.changed((14, b"abcd"), (whole.directory + 16, b"abcd")),
        "in the header alone": whole.changed((local + 14, b"abcd")),
    }


if __name__ == "__main__":
    main(hostile)
