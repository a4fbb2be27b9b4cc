"""Names that climb, hide or are the manifest's own: a reader that unpacks the archive writes where they say."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, canonical, main


def hostile(whole: Whole) -> Variants:
    arrays = whole.manifest["arrays"]

    def with_array(name: str) -> bytes:
        specs = {**arrays, name: arrays["modules.0.bias"]}
        text = canonical({**whole.manifest, "arrays": specs})
        return whole.forged(text, specs, {**whole.arrays, name: whole.arrays["modules.0.bias"]})

    names = {
        "up": "..",
        "up and away": "../../x",
        "from the root": "/etc/passwd",
        "hidden": ".hidden",
        "the manifest": "__manifest__",
        "a null": "a\0b",
        "beyond ASCII": "\u00e4",
        "a newline at the end": "a\n",
        "nothing": "",
    }
    return {variant: with_array(name) for variant, name in names.items()}


if __name__ == "__main__":
    main(hostile)
