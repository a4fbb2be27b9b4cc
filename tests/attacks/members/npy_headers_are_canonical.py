"""The same .npy header in other words, or with other facts. The header is a Python expression, and some readers have
evaluated it.
"""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    data, at = artifact.data, artifact.data.index(b"\x93NUMPY", artifact.second)
    return {
        "version 2": artifact.with_bytes((at + 6, b"\x02")),
        "Fortran order": data.replace(b"'fortran_order': False", b"'fortran_order': True ", 1),
        "another shape": data.replace(b"'shape': (4, 3)", b"'shape': (3, 4)", 1),
        "another dtype": data.replace(b"'descr': '<f4'", b"'descr': '<i4'", 1),
        "big-endian": data.replace(b"'descr': '<f4'", b"'descr': '>f4'", 1),
        "another quote": data.replace(b"'descr': '<f4'", b"'descr': \"<f4\"", 1),
        "a tab": data.replace(b"}   ", b"}\t  ", 1),
        "an expression": data.replace(b"'fortran_order': False", b"'fortran_order': not 1", 1),
        "no newline": artifact.with_bytes((data.index(b"\n", at), b" ")),
    }


if __name__ == "__main__":
    main(hostile)
