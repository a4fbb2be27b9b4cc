"""Chance as an attacker: mutants of a good artifact, each a valid model of another digest or refused.

    python -m tests.attacks.mutants SEED COUNT

So many of a classifier of rows, and a quarter of that of a regression of images through layers of every kind. A quarter
each are mutants of the file's bytes; of the manifest's text, and of the tree it stands for, in a faultless frame; and
of an array, under its true hash. A reader that hangs is killed by an alarm, one that takes memory fails for want of it,
one that raises anything but an ArtifactError ends the run.
"""

from __future__ import annotations

import copy
import io
import json
import random
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_store.artifact import npz
from model_store.errors import ArtifactError
from tests.attacks.forge import Whole, canonical, faultless
from tests.model_store.conftest import pictures

SECONDS = 5
MEGABYTES = 256
NUMBERS = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *("", "x", "Linear", "number", "<f8", "..", "\0", "\U0001f427", [], {}, [[]], {"": {}}, [0] * 100),
)


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped bits, overwritten runs, cuts, splices, repeats and planted sizes."""
    a, b, c = sorted(rng.randrange(len(data)) for _ in range(3))
    match rng.randrange(6):
        case 0:
            out = bytearray(data)
            for _ in range(rng.choice([1, 1, 2, 8])):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
            return bytes(out)
        case 1:
            return data[:a] + rng.randbytes(rng.randint(1, 16)) + data[a + 16 :]
        case 2:
            return data[:a]
        case 3:
            return data[:b] + data[a:c] + data[b:]
        case 4:
            return data[:a] + data[b:]
        case _:
            return data[:a] + struct.pack("<I", rng.choice([*NUMBERS, len(data)])) + data[a + 4 :]


def of_tree(value: Any, rng: random.Random) -> Any:
    """One place of a tree changed: taken out, doubled, exchanged for a neighbour or for something else."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        inner = stack.pop()
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        places += [(inner, key) for key in keys]
        stack += [inner[key] for key in keys if isinstance(inner[key], (dict, list))]
    inner, key = rng.choice(places)
    other, other_key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del inner[key]
        case 1 if isinstance(inner, list):
            inner.insert(key, copy.deepcopy(inner[key]))
        case 1:
            inner[f"{key}x"] = copy.deepcopy(inner[key])
        case 2:
            inner[key] = copy.deepcopy(other[other_key])
        case _:
            inner[key] = rng.choice(VALUES)
    return value


def mutant(whole: Whole, rng: random.Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return of_bytes(whole.data, rng)
        case 1:
            return whole.forged(of_bytes(canonical(whole.manifest), rng) or b" ")
        case 2:
            manifest = of_tree(whole.manifest, rng)
            text = canonical(manifest)
            try:
                return whole.forged(text, manifest["arrays"])
            except (KeyError, TypeError, AttributeError, struct.error):  # no frame can be made of this list of arrays
                return whole.forged(text)
        case _:
            name = rng.choice(list(whole.arrays))
            array = whole.arrays[name].copy()
            raw = array.view(np.uint8).reshape(-1)
            raw[rng.randrange(raw.size)] ^= 1 << rng.randrange(8)
            return whole.holding(name, array)


def is_the_writers(data: bytes) -> bool:
    """Whether a file is what the specification makes of its manifest and arrays, and plain NumPy reads it."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    text = arrays.pop("__manifest__").tobytes()
    manifest = json.loads(text)
    return canonical(manifest) == text and Whole(data, manifest, arrays).forged() == data


def survey(
    whole: Whole, seed: int, count: int, path: Path, before: Callable[[], object] = lambda: None
) -> dict[str, int]:
    """How many mutants were accepted, each a valid model of another digest, and how many refused."""
    rng = random.Random(seed)
    path.write_bytes(whole.data)
    digest = npz.read_digest(path)
    found = {"accepted": 0, "refused": 0}
    while sum(found.values()) < count:
        data = mutant(whole, rng)
        if data == whole.data:
            continue
        path.unlink()  # a new file: ext4 writes one that is cut and written anew to disk at once
        path.write_bytes(data)
        before()
        try:
            model = npz.read(path)
            with np.errstate(all="ignore"):  # weights may be as large as they like
                model.check_golden()
        except ArtifactError:
            found["refused"] += 1
            continue
        assert model.digest != digest, f"accepted under the digest of another: {path}"
        assert is_the_writers(data), f"accepted, though not what a writer writes: {path}"
        found["accepted"] += 1
    return found


if __name__ == "__main__":
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    rows, images = faultless(), faultless(pictures())
    resource.setrlimit(resource.RLIMIT_AS, (used + (MEGABYTES << 20),) * 2)
    seed, count = map(int, sys.argv[1:])
    counts = [(rows, count), (images, count // 4)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.npz"
        told = [survey(whole, seed, each, path, lambda: signal.alarm(SECONDS)) for whole, each in counts]
    print(json.dumps(told))
