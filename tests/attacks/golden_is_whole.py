"""Golden rows without their outputs, or outputs without rows: a check that checks nothing."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, canonical, main


def hostile(whole: Whole) -> Variants:
    rest = {name: spec for name, spec in whole.manifest["arrays"].items() if name != "golden.outputs"}
    without = {**whole.manifest, "arrays": rest}
    return {
        "rows without outputs": whole.forged(canonical(without), rest),
        "outputs without rows": whole.saying("golden", None),
    }


if __name__ == "__main__":
    main(hostile)
