"""Columns and answers that are not the network's: rows would be encoded into another width, or labels be missing."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main


def hostile(whole: Whole) -> Variants:
    number = whole.manifest["signature"]["inputs"][0]
    return {
        "nothing": whole.saying("signature", {}),
        "no columns": whole.saying("signature/inputs", []),
        "a column more": whole.saying(
            "signature/inputs", [*whole.manifest["signature"]["inputs"], {**number, "name": "x"}]
        ),
        "a column twice": whole.saying("signature/inputs", [number, number, number]),
        "a kind that is none": whole.saying("signature/inputs/0/kind", "pickle"),
        "a scale of nothing": whole.saying("signature/inputs/0/scale", 0),
        "a label more": whole.saying("signature/output/labels", ["no", "yes", "maybe"]),
        "a label twice": whole.saying("signature/output/labels", ["no", "no"]),
    }


if __name__ == "__main__":
    main(hostile)
