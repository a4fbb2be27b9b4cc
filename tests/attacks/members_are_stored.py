"""A compressed member: 2 MB that inflate to 2 GB, and nothing that could be mapped."""

from __future__ import annotations

import zipfile

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    return {
        "deflated": whole.rezipped(compression=zipfile.ZIP_DEFLATED),
        "by bzip2": whole.rezipped(compression=zipfile.ZIP_BZIP2),
        "by lzma": whole.rezipped(compression=zipfile.ZIP_LZMA),
        "said to be deflated": whole.changed((whole.second + 8, b"\x08\0"), (whole.second_entry + 10, b"\x08\0")),
    }


if __name__ == "__main__":
    main(hostile)
