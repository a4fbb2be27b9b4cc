"""A directory that tells another story than the headers: readers that begin at the end see other members than
those that begin at the start.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    entry, end = whole.second_entry, whole.end
    return {
        "another name": whole.changed((entry + 46, b"x")),
        "another offset": whole.changed((entry + 42, b"\x01")),
        "another CRC": whole.changed((entry + 16, b"abcd")),
        "another size": whole.changed((entry + 20, b"\x01\0\0\0")),
        "an extra field": whole.changed((entry + 30, b"\x04\0")),
        "another count": whole.changed((end + 8, b"\x01\0\x01\0")),
        "another size of the directory": whole.changed((end + 12, b"\0\0\0\0")),
        "another place of the directory": whole.changed((end + 16, b"\0\0\0\0")),
        "a second disk": whole.changed((end + 4, b"\x01\0")),
        "an entry twice": whole.data[:entry] + whole.data[whole.directory : entry] + whole.data[entry:],
    }


if __name__ == "__main__":
    main(hostile)
