"""Layers that want other arrays than there are: products of arrays that do not fit, or a layer without weights."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    return {
        "a layer too wide": whole.saying("layers/0/output_size", 2**31),
        "a layer too narrow": whole.saying("layers/0/output_size", 3),
        "a layer more": whole.saying("layers", [*whole.manifest["layers"], whole.manifest["layers"][2]]),
        "a layer less": whole.saying("layers", whole.manifest["layers"][:2]),
        "an array more": whole.holding("modules.7.weights", whole.arrays["modules.0.weights"]),
        "a turned array": whole.holding("modules.0.weights", whole.arrays["modules.0.weights"].T.copy()),
    }


if __name__ == "__main__":
    main(hostile)
