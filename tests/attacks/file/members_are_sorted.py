"""The same members in another order: one model would have two files, and one digest, too."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, build_zip, main


def hostile(artifact: ValidArtifact) -> Variants:
    first, *rest = artifact.original_parts()
    return {
        "backwards": build_zip([first, *rest[::-1]]),
        "two exchanged": build_zip([first, rest[1], rest[0], *rest[2:]]),
    }


if __name__ == "__main__":
    main(hostile)
