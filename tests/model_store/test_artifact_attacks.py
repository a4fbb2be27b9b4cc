"""Hostile files: whatever is wrong with one, its reader gets an ArtifactError, soon, and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store import artifact
from model_store.errors import ArtifactError


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def forged(text: bytes, specs: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """A file with a faultless frame around whatever manifest and arrays an attacker likes."""
    members = artifact._members(len(text), specs)
    contents = [text, *(arrays[member.name].tobytes() for member in members[1:])]
    crcs = [member.crc(data) for member, data in zip(members, contents, strict=True)]
    parts = [member.head(crc) + data for member, crc, data in zip(members, crcs, contents, strict=True)]
    return b"".join(parts) + artifact._directory(members, crcs)


def taken_apart(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("__manifest__").tobytes()), arrays


def refuse(path: Path, data: bytes, message: str | None = None) -> None:
    hostile = path.with_name("hostile.npz")
    hostile.write_bytes(data)
    with pytest.raises(ArtifactError, match=message) as caught:
        artifact.read(hostile)
    assert str(caught.value).startswith(str(hostile))


def test_the_forger_is_as_good_as_the_writer(written: Path) -> None:
    manifest, arrays = taken_apart(written)
    assert forged(canonical(manifest), manifest["arrays"], arrays) == written.read_bytes()


# The frame -------------------------------------------------------------------------------------------------------


def rezipped(data: bytes, **options: Any) -> bytes:
    """The same members, by somebody else's ZIP writer."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", **options) as target:
        for member in source.namelist():
            target.writestr(member, source.read(member))
    return out.getvalue()


def changed(data: bytes, offset: int, replacement: bytes) -> bytes:
    return data[:offset] + replacement + data[offset + len(replacement) :]


def second(data: bytes) -> int:
    return data.index(b"PK\x03\x04", 4)


def directory(data: bytes) -> int:
    return data.index(b"PK\x01\x02")


def end(data: bytes) -> int:
    return data.index(b"PK\x05\x06")


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "a few bytes": lambda data: data[:20],
    "text": lambda data: b"species,island\n" * 50,
    "zeros": lambda data: bytes(len(data)),
    "an empty archive": lambda data: data[end(data) :],
    "cut in the manifest": lambda data: data[:200],
    "cut in an array": lambda data: data[: second(data) + 100],
    "cut in the directory": lambda data: data[: directory(data) + 60],
    "cut by one byte": lambda data: data[:-1],
    "a trailing byte": lambda data: data + b"\0",
    "a leading byte": lambda data: b"\0" + data,
    "twice": lambda data: data + data,
    "a comment": lambda data: changed(data, len(data) - 2, b"\x03\x00") + b"hey",
    "a second end record": lambda data: data + data[end(data) :],
    "compressed": lambda data: rezipped(data, compression=zipfile.ZIP_DEFLATED),
    "another writer": rezipped,
    "an encrypted member": lambda data: changed(data, second(data) + 6, b"\x01\x00"),
    "a data descriptor": lambda data: changed(data, second(data) + 6, b"\x08\x00"),
    "another date": lambda data: changed(data, second(data) + 12, b"\x22\x00"),
    "another CRC": lambda data: changed(data, second(data) + 14, b"\0\0\0\0"),
    "another size": lambda data: changed(data, second(data) + 22, b"\xff\xff\0\0"),
    "the size that says ZIP64": lambda data: changed(data, 18, b"\xff" * 8),
    "a manifest of 4 GiB": lambda data: changed(data, 18, struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)),
    "a manifest of nothing": lambda data: changed(data, 18, struct.pack("<II", 128, 128)),
    "a name that climbs": lambda data: changed(data, second(data) + 30, b"../../"),
    "padding that is not zero": lambda data: changed(data, second(data) + 30 + 18 + 6, b"x"),
    "an object array": lambda data: data.replace(b"'descr': '<f4'", b"'descr': '|O' ", 1),
    "Fortran order": lambda data: data.replace(b"'fortran_order': False", b"'fortran_order': True ", 1),
    "another shape": lambda data: data.replace(b"'shape': (4, 3)", b"'shape': (3, 4)", 1),
    "another .npy version": lambda data: data.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x02"),
    "another name in the directory": lambda data: changed(data, directory(data) + 46, b"x"),
    "another offset in the directory": lambda data: changed(data, directory(data) + 42, b"\x01"),
    "an executable in the directory": lambda data: changed(data, directory(data) + 38, b"\xff\xff\xff\xff"),
    "another count": lambda data: changed(data, end(data) + 8, b"\x01\x00\x01\x00"),
    "another directory size": lambda data: changed(data, end(data) + 12, b"\0\0\0\0"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_that_is_not_the_writers_is_refused(name: str, written: Path) -> None:
    data = FRAMES[name](written.read_bytes())
    assert data != written.read_bytes()
    refuse(written, data)


def test_a_hole_between_members_is_refused(written: Path) -> None:
    data = written.read_bytes()
    refuse(written, data[: directory(data)] + bytes(64) + data[directory(data) :])


def test_members_out_of_order_twice_or_too_few_are_refused(written: Path) -> None:
    manifest, arrays = taken_apart(written)
    text, specs = canonical(manifest), manifest["arrays"]
    more = {**specs, "modules.3.weights": specs["modules.0.weights"]}
    refuse(written, forged(text, more, {**arrays, "modules.3.weights": arrays["modules.0.weights"]}))
    refuse(written, forged(text, {k: v for k, v in specs.items() if k != "modules.0.bias"}, arrays))
    data = written.read_bytes()
    first, last = second(data), data.rindex(b"PK\x03\x04")
    refuse(written, data[:first] + data[last : directory(data)] + data[first:last] + data[directory(data) :])


def test_only_a_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: a reader that waits hangs here
    (tmp_path / "loop").symlink_to("loop")
    for name in ("missing", "pipe", "loop", "."):
        with pytest.raises(ArtifactError, match="wanted a file"):
            artifact.read(tmp_path / name)
    with pytest.raises(ArtifactError, match="wanted a file"):
        artifact.read("/dev/zero")


# The manifest ----------------------------------------------------------------------------------------------------

TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "not JSON": lambda text: b"{" * len(text),
    "nested without end": lambda text: b"[" * 100_000,
    "not an object": lambda text: b"[]",
    "spaces": lambda text: text.replace(b":", b": "),
    "a key twice": lambda text: text[:-1] + b',"training":{}}',
    "keys out of order": lambda text: b'{"zzz":1,' + text[1:],
    "NaN": lambda text: text.replace(b"0.75", b"NaN"),
    "a number beyond float64": lambda text: text.replace(b"0.75", b"1e999"),
    "a number written otherwise": lambda text: text.replace(b"0.75", b"0.750"),
    "a number of a million digits": lambda text: text.replace(b"0.75", b"7" * 1_000_000),
    "an escape that is not needed": lambda text: text.replace(b"chess", b"\\u0063hess"),
    "half a surrogate pair": lambda text: text.replace(b"Who", b"\\ud800"),
    "a broken byte": lambda text: text.replace(b"Who", b"\xff\xfe\xfd"),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_manifest_that_is_not_canonical_json_is_refused(name: str, written: Path) -> None:
    manifest, arrays = taken_apart(written)
    text = TEXTS[name](canonical(manifest))
    assert text != canonical(manifest)
    refuse(written, forged(text, manifest["arrays"], arrays), "manifest")


def put(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        *above, last = place.split("/")
        inner: Any = manifest
        for key in above:
            inner = inner[int(key)] if isinstance(inner, list) else inner[key]
        inner[last] = value

    return change


FIELDS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another format": (put("format", 2), "manifest.format: wanted 1, found 2"),
    "format true": (put("format", True), "manifest.format"),
    "no producer": (lambda m: m.pop("producer"), "manifest.producer"),
    "one field more": (put("pickle", "x"), "manifest.pickle"),
    "description of a number": (put("description", 1), "manifest.description: wanted text, found int"),
    "another dtype": (put("dtype", "object"), "manifest.dtype: wanted one of float32, float64"),
    "an array's dtype": (put("arrays/modules.0.bias/dtype", "<f8"), "dtype: wanted '<f4', found '<f8'"),
    "a pickled array": (put("arrays/modules.0.bias/dtype", "|O"), "dtype"),
    "an empty shape": (put("arrays/modules.0.bias/shape", []), "shape"),
    "a shape with nothing in it": (put("arrays/modules.0.bias/shape", [0]), "shape"),
    "a negative shape": (put("arrays/modules.0.bias/shape", [-1, -4]), "shape"),
    "a shape of truth": (put("arrays/modules.0.bias/shape", [True]), "shape"),
    "a shape beyond any file": (put("arrays/modules.0.bias/shape", [2**32] * 8), "wanted .* bytes"),
    "a shape beyond this file": (put("arrays/modules.0.bias/shape", [5]), "wanted"),
    "another hash": (put("arrays/modules.0.bias/sha256", "0" * 64), "modules.0.bias: wanted SHA-256 000"),
    "a hash that is none": (put("arrays/modules.0.bias/sha256", "x"), "64 hexadecimal"),
    "an array that climbs": (put("arrays/..", {"dtype": "<f4", "shape": [1], "sha256": "0" * 64}), "arrays"),
    "a second manifest": (put("arrays/__manifest__", {"dtype": "<f4", "shape": [1], "sha256": "0" * 64}), "arrays"),
    "too many arrays": (put("arrays", {f"a{i}": {} for i in range(10_001)}), "arrays: wanted an object of 1 to"),
    "no arrays": (put("arrays", {}), "arrays: wanted an object of 1 to"),
    "no layers": (put("layers", []), "layers"),
    "a layer that is none": (put("layers/1/type", "os.system"), "modules.1.type: wanted one of"),
    "a layer too wide": (put("layers/0/output_size", 2**31), "modules"),
    "a layer of text": (put("layers/0/input_size", "3"), "modules.0.input_size"),
    "layers that are not objects": (put("layers", [1, None]), "modules.0"),
    "a signature of nothing": (put("signature", {}), "signature"),
    "a signature with other columns": (put("signature/inputs", []), "signature"),
    "golden rows without outputs": (lambda m: m["arrays"].pop("golden.outputs"), "golden"),
    "golden outputs without rows": (put("golden", None), "golden"),
    "millions of golden rows": (put("golden", {"instances": [0] * 2_000_000}), "golden.instances"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_out_of_order_is_named(name: str, written: Path) -> None:
    change, message = FIELDS[name]
    manifest, arrays = taken_apart(written)
    specs = json.loads(canonical(manifest["arrays"]))
    change(manifest)
    refuse(written, forged(canonical(manifest), specs, arrays), message)


def test_a_manifest_beyond_the_limit_is_refused(written: Path) -> None:
    manifest, arrays = taken_apart(written)
    manifest["training"] = {"notes": "x" * (8 << 20)}
    refuse(written, forged(canonical(manifest), manifest["arrays"], arrays), "wanted a manifest of 1 to 8388608 bytes")


# The arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, written: Path) -> None:
    manifest, arrays = taken_apart(written)
    arrays["modules.0.weights"][0, 0] = value
    hashed = hashlib.sha256(arrays["modules.0.weights"].tobytes()).hexdigest()
    manifest["arrays"]["modules.0.weights"]["sha256"] = hashed
    refuse(written, forged(canonical(manifest), manifest["arrays"], arrays), "modules.0.weights: wanted finite")


def test_a_crc_of_other_bytes_is_refused(written: Path) -> None:
    """Else NumPy would refuse a file that this reader takes."""
    data = written.read_bytes()
    local, entry = second(data), data.index(b"PK\x01\x02", directory(data) + 1)
    refuse(written, changed(changed(data, local + 14, b"abcd"), entry + 16, b"abcd"), "wanted its own CRC-32")


def test_a_changed_weight_is_found_by_verification_alone(written: Path) -> None:
    data = written.read_bytes()
    offset = artifact.read(written).network.arrays()["modules.0.weights"].tobytes()
    hostile = written.with_name("hostile.npz")
    hostile.write_bytes(data.replace(offset, b"\x01" + offset[1:]))
    artifact.read(hostile, verify=False)
    with pytest.raises(ArtifactError, match=r"modules\.0\.weights: wanted SHA-256"):
        artifact.read(hostile)


# Chance ----------------------------------------------------------------------------------------------------------


def mutants(data: bytes, rng: random.Random, count: int) -> list[bytes]:
    """Flipped bits, overwritten runs, cuts, splices, repeats and planted sizes."""

    def flip() -> bytes:
        out = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return bytes(out)

    def overwrite() -> bytes:
        at = rng.randrange(len(data))
        return changed(data, at, rng.randbytes(rng.randint(1, 16)))[: len(data)]

    def cut() -> bytes:
        return data[: rng.randrange(len(data))]

    def splice() -> bytes:
        a, b, c = sorted(rng.randrange(len(data)) for _ in range(3))
        return data[:b] + data[a:c] + data[b:]

    def drop() -> bytes:
        a, b = sorted(rng.randrange(len(data)) for _ in range(2))
        return data[:a] + data[b:]

    def plant() -> bytes:
        number = rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE, len(data)])
        return changed(data, rng.randrange(len(data) - 4), struct.pack("<I", number))

    return [rng.choice([flip, overwrite, cut, splice, drop, plant])() for _ in range(count)]


def test_no_mutant_gets_through_or_raises_anything_else(written: Path) -> None:
    data = written.read_bytes()
    hostile = written.with_name("mutant.npz")
    for mutant in mutants(data, random.Random(20), 3000):
        if mutant == data:
            continue
        hostile.write_bytes(mutant)
        with pytest.raises(ArtifactError):
            artifact.read(hostile)


def test_no_mutant_of_a_manifest_in_a_faultless_frame_raises_anything_else(written: Path) -> None:
    """Some of these are models, of other words or numbers; the others are refused by name."""
    manifest, arrays = taken_apart(written)
    text, rng = canonical(manifest), random.Random(21)
    hostile = written.with_name("mutant.npz")
    for mutant in mutants(text, rng, 1500):
        hostile.write_bytes(forged(mutant, manifest["arrays"], arrays))
        try:
            artifact.read(hostile).check_golden()
        except ArtifactError:
            continue
