"""The forger: a second writer of artifacts, written from docs/artifact-format.md alone, to build hostile files.

    artifact = valid_artifact()
    artifact.data                                 the bytes of a valid artifact
    artifact.forge(arrays=...)                    a valid frame around any content

Each script in the folders beside it, one for each section of the specification, breaks one rule.
`python -m tests.attacks.members.crcs_are_true FOLDER` writes its hostile files, to test any reader.
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


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def build_zip(parts: Parts) -> bytes:
    """Return a ZIP archive of (name, .npy header, array) in the given order."""
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
class ValidArtifact:
    """A valid artifact with its manifest and arrays."""

    data: bytes
    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def parts(self, text: bytes, specs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Parts:
        listed = [
            (name, npy_header(spec["dtype"], tuple(spec["shape"])), arrays[name].tobytes())
            for name, spec in sorted(specs.items())
        ]
        return [("__manifest__", npy_header("|u1", (len(text),)), text), *listed]

    def original_parts(self) -> Parts:
        return self.parts(canonical_json(self.manifest), self.manifest["arrays"], self.arrays)

    def forge(
        self,
        text: bytes | None = None,
        specs: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> bytes:
        """Return a valid frame around any manifest text, array list and arrays."""
        text = canonical_json(self.manifest) if text is None else text
        specs, arrays = self.manifest["arrays"] if specs is None else specs, self.arrays if arrays is None else arrays
        return build_zip(self.parts(text, specs, arrays))

    def with_manifest_value(self, location: str, value: Any) -> bytes:
        """Return the file with another value at a path such as `arrays/modules.0.bias/shape`; `...` removes it."""
        manifest = copy.deepcopy(self.manifest)
        *parents, last = (int(key) if key.isdecimal() else key for key in location.split("/"))
        inner: Any = manifest
        for key in parents:
            inner = inner[key]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
        return self.forge(canonical_json(manifest))

    def with_array(self, name: str, array: np.ndarray) -> bytes:
        """Return the file with another array under a name, with its correct shape and hash."""
        manifest = copy.deepcopy(self.manifest)
        sha256 = hashlib.sha256(array.tobytes()).hexdigest()
        manifest["arrays"][name] = {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": sha256}
        return self.forge(canonical_json(manifest), manifest["arrays"], {**self.arrays, name: array})

    def rezip(self, **options: Any) -> bytes:
        """Return the same members written by Python's ZIP writer."""
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.data)) as source, zipfile.ZipFile(out, "w", **options) as target:
            for member in source.namelist():
                target.writestr(member, source.read(member))
        return out.getvalue()

    def with_bytes(self, *changes: tuple[int, bytes]) -> bytes:
        """Return the file with other bytes at some offsets."""
        out = self.data
        for offset, replacement in changes:
            out = out[:offset] + replacement + out[offset + len(replacement) :]
        return out

    @property
    def second(self) -> int:
        """The offset of the second member's local header."""
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


def valid_artifact(model: npz.Model | None = None) -> ValidArtifact:
    with tempfile.TemporaryFile() as file:
        npz.write(file, model or chess())
        file.seek(0)
        data = file.read()
    with np.load(io.BytesIO(data)) as members:
        arrays = {name: members[name] for name in members.files}
    return ValidArtifact(data, json.loads(arrays.pop("__manifest__").tobytes()), arrays)


def main(hostile: Callable[[ValidArtifact], Variants]) -> None:
    """Write every hostile file into the folder named on the command line."""
    folder = Path(sys.argv[1])
    for variant, data in hostile(valid_artifact()).items():
        path = folder / f"{Path(sys.argv[0]).stem}-{variant.replace(' ', '-')}.npz"
        path.write_bytes(data)
        print(path)
