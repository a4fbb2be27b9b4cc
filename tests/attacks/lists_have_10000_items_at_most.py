"""Millions of arrays, layers or golden rows: a reader that looks at each before it counts them is busy for
seconds.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    return {
        "arrays": whole.saying("arrays", {f"a{i}": {} for i in range(10_001)}),
        "layers": whole.saying("layers", [{"type": "Tanh"}] * 10_001),
        "golden rows": whole.saying("golden", {"instances": [0] * 2_000_000}),
        "no layers": whole.saying("layers", []),
        "no golden rows": whole.saying("golden", {"instances": []}),
    }


if __name__ == "__main__":
    main(hostile)
