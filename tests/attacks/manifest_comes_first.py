"""Something else where the manifest belongs: the reader is to trust what nothing has described."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main, zipped


def hostile(whole: Whole) -> Variants:
    parts = whole.own_parts()
    return {
        "text": b"species,island\n" * 50,
        "zeros": bytes(len(whole.data)),
        "an array first": zipped([parts[1], parts[0], *parts[2:]]),
        "the manifest last": zipped([*parts[1:], parts[0]]),
        "no manifest": zipped(parts[1:]),
    }


if __name__ == "__main__":
    main(hostile)
