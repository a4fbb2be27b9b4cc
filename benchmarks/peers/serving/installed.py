"""Installed size: bytes of packages and their dependencies, compiled files included, in this interpreter.

python installed.py PACKAGE ...
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def required(names: Iterable[str]) -> dict[str, Distribution]:
    """Return the packages and their installed dependencies, transitively. Extras are named with the package."""
    found: dict[str, Distribution] = {}
    waiting, seen = list(names), set()
    while waiting:
        requirement = waiting.pop()
        name = re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]
        extras = set(re.findall(r"[\w-]+", (re.match(r"[\w.-]+\[([^]]*)]", requirement) or ["", ""])[1]))
        key = re.sub(r"[-_.]+", "-", name).lower()
        if (key, frozenset(extras)) in seen:
            continue
        seen.add((key, frozenset(extras)))
        try:
            found[key] = distribution(name)
        except PackageNotFoundError:  # for another system, or another Python
            continue
        for line in found[key].requires or []:
            expected, _, condition = line.partition(";")
            extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", condition)
            if extra is None or extra[1] in extras:
                waiting.append(expected.strip())
    return found


def size(found: Iterable[Distribution]) -> int:
    files = (Path(file.locate()) for one in found for file in one.files or [])
    return sum(file.stat().st_size for file in set(files) if file.is_file())


if __name__ == "__main__":
    packages = required(sys.argv[1:])
    print(size(packages.values()), *sorted(packages))
