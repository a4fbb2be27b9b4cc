"""A file too short to be anything, or cut: a reader that seeks to what a header promises runs off its end. Pipes
and devices, which cannot be written here, are in the test.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    data = whole.data
    return {
        "empty": b"",
        "a few bytes": data[:20],
        "an empty archive": data[whole.end :],
        "cut in the manifest": data[:200],
        "cut in an array": data[: whole.second + 100],
        "cut in the directory": data[: whole.directory + 60],
        "cut by one byte": data[:-1],
    }


if __name__ == "__main__":
    main(hostile)
