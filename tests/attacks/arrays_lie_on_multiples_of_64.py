"""Padding of another length or content: arrays that no map can use in place, or bytes that nobody looks at."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    name = len("golden.outputs.npy")
    at = whole.second + 30 + name
    end = whole.data.index(b"\x93NUMPY", at)
    return {
        "none": whole.changed((whole.second + 28, b"\0\0"))[:at] + whole.data[end:],
        "a byte more": whole.data[:end] + b"\0" + whole.data[end:],
        "not zeros": whole.changed((at + 6, b"x")),
        "another alignment": whole.changed((at + 4, b"\x20\0")),
        "another record": whole.changed((at, b"\x34\xd9")),
    }


if __name__ == "__main__":
    main(hostile)
