"""Something behind the end: a comment, or a second archive, of which one reader sees the first and another the
last.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    data = whole.data
    return {
        "a trailing byte": data + b"\0",
        "a comment": whole.changed((len(data) - 2, b"\x03\x00")) + b"hey",
        "a second end record": data + data[whole.end :],
        "the whole file twice": data + data,
    }


if __name__ == "__main__":
    main(hostile)
