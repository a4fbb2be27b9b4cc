"""A format that this reader does not know: it must not guess."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    values = {"another": 2, "none": 0, "true": True, "text": "1", "not whole": 1.0}
    return {name: whole.saying("format", value) for name, value in values.items()}


if __name__ == "__main__":
    main(hostile)
