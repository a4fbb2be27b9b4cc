"""The markers of ZIP64, whose 64-bit sizes a reader may follow to where nothing is."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    local, entry = whole.second, whole.second_entry
    full = b"\xff" * 8
    return {
        "sizes": whole.changed((local + 18, full), (entry + 20, full)),
        "sizes of the manifest": whole.changed((18, full)),
        "the directory's place": whole.changed((whole.end + 12, full)),
        "a record": whole.changed((local + 30 + 21, b"\x01\0")),
        "another writer's": whole.data[: whole.end] + b"PK\x06\x06" + bytes(52) + whole.data[whole.end :],
    }


if __name__ == "__main__":
    main(hostile)
