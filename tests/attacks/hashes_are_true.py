"""Weights other than those the manifest vouches for, with CRCs in order: a changed model under a known digest."""

from __future__ import annotations

import numpy as np

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    weights = whole.arrays["modules.0.weights"]
    return {
        "one bit": whole.forged(arrays={**whole.arrays, "modules.0.weights": np.nextafter(weights, np.inf)}),
        "exchanged": whole.forged(arrays={**whole.arrays, "modules.0.weights": weights[::-1].copy()}),
        "another hash": whole.saying("arrays/modules.0.bias/sha256", "0" * 64),
        "no hash": whole.saying("arrays/modules.0.bias/sha256", ""),
        "capitals": whole.saying("arrays/modules.0.bias/sha256", "AB" * 32),
    }


if __name__ == "__main__":
    main(hostile)
