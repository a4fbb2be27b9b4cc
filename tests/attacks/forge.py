"""The forger: a second writer of artifacts, made from docs/artifact-format.md alone, for whoever has no good in mind.

    whole = faultless()
    whole.data                                    the bytes of a good artifact
    whole.forged(arrays=...)                      a faultless frame around whatever an attacker likes

Every script beside this one breaks one rule of the format. `python -m tests.attacks.crcs_are_true FOLDER` writes its
hostile files, for any reader to be tried on.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_store.artifact import npz
from tests.model_store.conftest import chess

Variants = dict[str, bytes]
Parts = list[tuple[str, bytes, bytes]]


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def zipped(parts: Parts) -> bytes:
    """An archive of (name, .npy header, array), in that order."""
    out = directory = b""
    for name, header, data in parts:
        file_name, content = f"{name}.npy".encode(), header + data
        padding = -(len(out) + 30 + len(file_name) + 6) % 64
        facts = struct.pack("<5H3I", 20, 0, 0, 0, 0x21, zlib.crc32(content), len(content), len(content))
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + facts
        directory += struct.pack("<5H2I", len(file_name), 0, 0, 0, 0, 0, len(out)) + file_name
        out += b"PK\x03\x04" + facts + struct.pack("<2H", len(file_name), 6 + padding) + file_name
        out += struct.pack("<3H", 0xD935, 2 + padding, 64) + bytes(padding) + content
    end = struct.pack("<4H2IH", 0, 0, len(parts), len(parts), len(directory), len(out), 0)
    return out + directory + b"PK\x05\x06" + end


@dataclass(frozen=True)
class Whole:
    """A faultless artifact, taken apart."""

    data: bytes
    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def parts(self, text: bytes, specs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Parts:
        listed = [
            (name, npy_header(spec["dtype"], tuple(spec["shape"])), arrays[name].tobytes())
            for name, spec in sorted(specs.items())
        ]
        return [("__manifest__", npy_header("|u1", (len(text),)), text), *listed]

    def own_parts(self) -> Parts:
        return self.parts(canonical(self.manifest), self.manifest["arrays"], self.arrays)

    def forged(
        self,
        text: bytes | None = None,
        specs: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> bytes:
        """A faultless frame around any manifest, any list of arrays, any arrays."""
        text = canonical(self.manifest) if text is None else text
        specs, arrays = self.manifest["arrays"] if specs is None else specs, self.arrays if arrays is None else arrays
        return zipped(self.parts(text, specs, arrays))

    def saying(self, location: str, value: Any) -> bytes:
        """With another value at a place of the manifest such as `arrays/modules.0.bias/shape`; `...` takes it out."""
        manifest = copy.deepcopy(self.manifest)
        *above, last = (int(key) if key.isdecimal() else key for key in location.split("/"))
        inner: Any = manifest
        for key in above:
            inner = inner[key]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
        return self.forged(canonical(manifest))

    def holding(self, name: str, array: np.ndarray) -> bytes:
        """With another array under a name, its shape and hash in order."""
        manifest = copy.deepcopy(self.manifest)
        sha256 = hashlib.sha256(array.tobytes()).hexdigest()
        manifest["arrays"][name] = {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": sha256}
        return self.forged(canonical(manifest), manifest["arrays"], {**self.arrays, name: array})

    def rezipped(self, **options: Any) -> bytes:
        """The same members, by Python's ZIP writer."""
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.data)) as source, zipfile.ZipFile(out, "w", **options) as target:
            for member in source.namelist():
                target.writestr(member, source.read(member))
        return out.getvalue()

    def changed(self, *changes: tuple[int, bytes]) -> bytes:
        """With other bytes at some offsets."""
        out = self.data
        for offset, replacement in changes:
            out = out[:offset] + replacement + out[offset + len(replacement) :]
        return out

    @property
    def second(self) -> int:
        """Where the second member's local header begins; its entry and the end record are below."""
        return self.data.index(b"PK\x03\x04", 4)

    @property
    def directory(self) -> int:
        return self.data.index(b"PK\x01\x02")

    @property
    def second_entry(self) -> int:
        return self.data.index(b"PK\x01\x02", self.directory + 1)

    @property
    def end(self) -> int:
        return self.data.index(b"PK\x05\x06")


def faultless(model: npz.Model | None = None) -> Whole:
    with tempfile.TemporaryFile() as file:
        npz.write(file, model or chess())
        file.seek(0)
        data = file.read()
    with np.load(io.BytesIO(data)) as members:
        arrays = {name: members[name] for name in members.files}
    return Whole(data, json.loads(arrays.pop("__manifest__").tobytes()), arrays)


def main(hostile: Callable[[Whole], Variants]) -> None:
    """Writes every hostile file into the folder that the command line names."""
    folder = Path(sys.argv[1])
    for variant, data in hostile(faultless()).items():
        path = folder / f"{Path(sys.argv[0]).stem}-{variant.replace(' ', '-')}.npz"
        path.write_bytes(data)
        print(path)
