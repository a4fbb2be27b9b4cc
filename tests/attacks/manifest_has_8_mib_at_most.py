"""A manifest that is larger than all it could have to say."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    notes = {"notes": "x" * (8 << 20)}
    return {"too long": whole.saying("training", notes), "too deep": whole.forged(b"[" * ((8 << 20) + 1))}


if __name__ == "__main__":
    main(hostile)
