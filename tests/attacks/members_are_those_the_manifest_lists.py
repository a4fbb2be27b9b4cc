"""Members that the manifest does not know, that it knows and the file has not, or that are there twice: which of
two members of one name counts is every reader's own choice.
"""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main, zipped


def hostile(whole: Whole) -> Variants:
    parts = whole.own_parts()
    stranger = ("modules.9.weights", *parts[-1][1:])
    return {
        "one more": zipped([*parts, stranger]),
        "one less": zipped(parts[:-1]),
        "one twice": zipped([*parts, parts[-1]]),
        "the manifest twice": zipped([parts[0], *parts]),
        "one under another name": zipped([*parts[:-1], stranger]),
        "a name that climbs": zipped([*parts[:-1], ("../../" + parts[-1][0], *parts[-1][1:])]),
        "listed and not there": whole.saying("arrays/zzz", whole.manifest["arrays"]["modules.0.bias"]),
        "there and not listed": whole.saying("arrays/modules.0.bias", ...),
    }


if __name__ == "__main__":
    main(hostile)
