"""A fuzzer: random mutants of a valid artifact, each either rejected or a valid model with another digest.

    python -m tests.attacks.mutants SEED COUNT

COUNT mutants of a classifier of rows, and a quarter as many of a regression of images through layers of every kind. A
quarter each mutate the file's bytes; the manifest's text, and its JSON tree, in a valid frame; and an array, with its
correct hash. An alarm kills a reader that hangs, a limit on memory fails one that allocates too much, and any exception
but ArtifactError ends the run.
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
from tests.attacks.forge import ValidArtifact, canonical_json, valid_artifact
from tests.model_store.conftest import pictures

SECONDS = 5
MEGABYTES = 256
NUMBERS = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *("", "x", "Linear", "number", "<f8", "..", "\0", "\U0001f427", [], {}, [[]], {"": {}}, [0] * 100),
)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, or overwrite, truncate, repeat or delete a range, or insert a size."""
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


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Change one node of a JSON tree: remove it, repeat it, or replace it by another node or value."""
    value = copy.deepcopy(value)
    nodes: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        inner = stack.pop()
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        nodes += [(inner, key) for key in keys]
        stack += [inner[key] for key in keys if isinstance(inner[key], (dict, list))]
    inner, key = rng.choice(nodes)
    other, other_key = rng.choice(nodes)
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


def make_mutant(artifact: ValidArtifact, rng: random.Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return mutate_bytes(artifact.data, rng)
        case 1:
            return artifact.forge(mutate_bytes(canonical_json(artifact.manifest), rng) or b" ")
        case 2:
            manifest = mutate_json(artifact.manifest, rng)
            text = canonical_json(manifest)
            try:
                return artifact.forge(text, manifest["arrays"])
            except (KeyError, TypeError, AttributeError, struct.error):  # the list of arrays has no valid frame
                return artifact.forge(text)
        case _:
            name = rng.choice(list(artifact.arrays))
            array = artifact.arrays[name].copy()
            raw = array.view(np.uint8).reshape(-1)
            raw[rng.randrange(raw.size)] ^= 1 << rng.randrange(8)
            return artifact.with_array(name, array)


def equals_forged_file(data: bytes) -> bool:
    """Return True if plain NumPy reads the file and the forger writes the same bytes from its manifest and arrays."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    text = arrays.pop("__manifest__").tobytes()
    manifest = json.loads(text)
    return canonical_json(manifest) == text and ValidArtifact(data, manifest, arrays).forge() == data


def run_mutants(
    artifact: ValidArtifact, seed: int, count: int, path: Path, before: Callable[[], object] = lambda: None
) -> dict[str, int]:
    """Count the mutants that were accepted, each a valid model with another digest, and those that were rejected."""
    rng = random.Random(seed)
    path.write_bytes(artifact.data)
    digest = npz.read_digest(path)
    found = {"accepted": 0, "rejected": 0}
    while sum(found.values()) < count:
        data = make_mutant(artifact, rng)
        if data == artifact.data:
            continue
        path.unlink()  # a new file: ext4 writes a truncated and rewritten file to disk at once
        path.write_bytes(data)
        before()
        try:
            model = npz.read(path)
            with np.errstate(all="ignore"):  # weights may be huge
                model.check_golden()
        except ArtifactError:
            found["rejected"] += 1
            continue
        assert model.digest != digest, f"accepted with the original's digest: {path}"
        assert equals_forged_file(data), f"accepted, although a writer writes other bytes: {path}"
        found["accepted"] += 1
    return found


if __name__ == "__main__":
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    rows, images = valid_artifact(), valid_artifact(pictures())
    resource.setrlimit(resource.RLIMIT_AS, (used + (MEGABYTES << 20),) * 2)
    seed, count = map(int, sys.argv[1:])
    counts = [(rows, count), (images, count // 4)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.npz"
        results = [run_mutants(artifact, seed, each, path, lambda: signal.alarm(SECONDS)) for artifact, each in counts]
    print(json.dumps(results))
