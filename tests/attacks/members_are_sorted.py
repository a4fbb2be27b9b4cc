"""The same members in another order: two files would be one model, and one digest two files."""

from __future__ import annotations

from tests.attacks.forge import Variants, Whole, main, zipped


def hostile(whole: Whole) -> Variants:
    first, *rest = whole.own_parts()
    return {"backwards": zipped([first, *rest[::-1]]), "two exchanged": zipped([first, rest[1], rest[0], *rest[2:]])}


if __name__ == "__main__":
    main(hostile)
