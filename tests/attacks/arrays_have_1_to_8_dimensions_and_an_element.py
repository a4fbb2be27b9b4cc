"""Shapes of nothing, of truth, below zero, or of more than any file holds: NumPy takes 7 seconds and 2 GB to
refuse some of them.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    location = "arrays/modules.0.bias/shape"
    return {
        "no dimension": whole.saying(location, []),
        "nine dimensions": whole.saying(location, [1] * 8 + [4]),
        "no element": whole.saying(location, [0]),
        "below zero": whole.saying(location, [-1, -4]),
        "truth": whole.saying(location, [True]),
        "not whole": whole.saying(location, [4.0]),
        "text": whole.saying(location, "4"),
        "beyond this file": whole.saying(location, [5]),
        "beyond any file": whole.saying(location, [2**32] * 8),
        "beyond 64 bits": whole.saying(location, [2**64]),
    }


if __name__ == "__main__":
    main(hostile)
