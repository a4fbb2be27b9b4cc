"""A field too many, too few or of another kind: room for what the next reader may believe."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    return {
        "not an object": whole.forged(b"[]"),
        "one more": whole.saying("pickle", "x"),
        "one more in an array": whole.saying("arrays/modules.0.bias/offset", 0),
        "one more beside golden rows": whole.saying("golden/outputs", []),
        "no producer": whole.saying("producer", ...),
        "an empty producer": whole.saying("producer", ""),
        "a description of a number": whole.saying("description", 1),
        "a description of a book": whole.saying("description", "x" * 10_001),
        "training of a list": whole.saying("training", []),
        "no arrays": whole.saying("arrays", {}),
    }


if __name__ == "__main__":
    main(hostile)
