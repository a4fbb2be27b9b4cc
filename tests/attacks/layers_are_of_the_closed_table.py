"""Layers by the names of other things: a reader that looks them up in Python's own namespace runs them."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    return {
        "a function of Python": whole.saying("layers/1/type", "os.system"),
        "a private class": whole.saying("layers/1/type", "Module"),
        "a type of a list": whole.saying("layers/1/type", ["Tanh"]),
        "no type": whole.saying("layers/1", {}),
        "a parameter more": whole.saying("layers/1/slope", 1),
        "a size of text": whole.saying("layers/0/input_size", "3"),
        "a size of truth": whole.saying("layers/0/input_size", True),
        "a size below zero": whole.saying("layers/0/output_size", -4),
        "a window of millions of pixels": whole.saying(
            "layers/0", {"type": "MaxPool2D", "input_shape": [4096, 4096, 1], "size": 4096, "stride": 1}
        ),
        "not objects": whole.saying("layers", [1, None]),
    }


if __name__ == "__main__":
    main(hostile)
