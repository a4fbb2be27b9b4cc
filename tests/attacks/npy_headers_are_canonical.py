"""The same facts in other words, or other facts: a .npy header is a Python expression, and readers have evaluated
it.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    data, at = whole.data, whole.data.index(b"\x93NUMPY", whole.second)
    return {
        "version 2": whole.changed((at + 6, b"\x02")),
        "Fortran order": data.replace(b"'fortran_order': False", b"'fortran_order': True ", 1),
        "another shape": data.replace(b"'shape': (4, 3)", b"'shape': (3, 4)", 1),
        "another dtype": data.replace(b"'descr': '<f4'", b"'descr': '<i4'", 1),
        "big-endian": data.replace(b"'descr': '<f4'", b"'descr': '>f4'", 1),
        "another quote": data.replace(b"'descr': '<f4'", b"'descr': \"<f4\"", 1),
        "a tab": data.replace(b"}   ", b"}\t  ", 1),
        "an expression": data.replace(b"'fortran_order': False", b"'fortran_order': not 1", 1),
        "no newline": whole.changed((data.index(b"\n", at), b" ")),
    }


if __name__ == "__main__":
    main(hostile)
