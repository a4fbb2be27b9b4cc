"""Numbers of another kind than the manifest's one dtype."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    bias = whole.arrays["modules.0.bias"]
    return {
        "twice as wide": whole.holding("modules.0.bias", bias.astype("<f8")),
        "integers": whole.holding("modules.0.bias", bias.astype("<i4")),
        "big-endian": whole.holding("modules.0.bias", bias.astype(">f4")),
        "half as wide": whole.saying("dtype", "float16"),
        "the other width": whole.saying("dtype", "float64"),
        "a width of no text": whole.saying("dtype", 4),
    }


if __name__ == "__main__":
    main(hostile)
