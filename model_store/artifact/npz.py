"""The artifact: one .npz file that is a model.

docs/artifact-format.md is the specification of format 1, rule by rule. In short: manifest and arrays determine every
byte of the file, and a reader rebuilds all other bytes and compares them. The file is also a plain ZIP archive of .npy
files, so `numpy.load(path)` reads it without pickle.

    member 1      `__manifest__.npy`: the manifest (manifest.py), canonical JSON as one-dimensional uint8
    members 2...  `<array name>.npy`, sorted by name: exactly the arrays that the manifest lists
    directory     ZIP's central directory, then its end record; the file ends there

- Numbers are little-endian. Arrays are C-contiguous `<f4` or `<f8`, of 1 to 8 dimensions and at least one
  element; every element is finite.
- A member is a local header and its data; members and directory follow each other without gaps.
  Members are STORED. Headers say version 20, no flags, 1980-01-01 00:00, the true CRC-32 and size; no comments, no
  data descriptors. Directory entries say "made by 20", attributes 0, and have no extra field.
- A local header's extra field is one record of type 0xD935, the ZIP alignment record: the number 64 in 16 bits, then
  the fewest zeros that align the member's data to a multiple of 64 bytes.
- A member's data is a version 1.0 .npy header, padded with spaces to a multiple of 64 bytes, and the array. So the
  array itself is aligned to 64 bytes and can be used in a memory map without a copy.
- The manifest has at most 8 MiB and lists at most 10,000 arrays. The file is shorter than 4 GiB - 1: there is no
  ZIP64 form, and larger models are rejected.
- The model's digest is the SHA-256 of the manifest's bytes. The manifest holds the SHA-256 of every array, so
  the digest covers the whole file.

The reader does not trust the file: any defect raises ArtifactError, before memory is allocated for what the file only
claims to hold. Arrays are read-only views of a copy of the file in memory, or of a map of it. Truncating a mapped file
kills the process that mapped it, and rewriting it changes the weights: map only files that nothing writes to
(storage/artifact_cache.py). A file that changes while it is read is an error, or one of its states.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from model_store.artifact import manifest as manifests
from model_store.artifact.answers import MEMBERS as ANSWERS_MEMBERS
from model_store.artifact.answers import Answers
from model_store.artifact.file_access import FileBytes, open_artifact
from model_store.artifact.model import Golden, Model
from model_store.errors import ArtifactError
from model_store.nn import LAYERS, Array, Average, Sequential, build
from model_store.schema.signature_json import read_signature
from model_store.utils.atomic_write import atomic_write
from model_store.utils.printable import printable

if TYPE_CHECKING:
    from typing_extensions import Buffer

ALIGNMENT = 64
MAX_FILE_BYTES = 0xFFFFFFFE  # in ZIP, 0xFFFFFFFF means ZIP64
MANIFEST_MEMBER = "__manifest__"
GOLDEN_MEMBER = "golden.outputs"

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3I5H2I")
_END_RECORD = struct.Struct("<4s4H2IH")
_MIN_FILE_BYTES = _END_RECORD.size + _LOCAL_HEADER.size + 1
_CRC_OFFSET = 14
_SIZE_OFFSET = 18
_ZIP_VERSION = 20
_ZIP_DATE = 1 << 5 | 1  # 1 January 1980, ZIP's year 0
_ALIGNMENT_RECORD = 0xD935
_MAX_MESSAGE_CHARACTERS = 1000  # messages may contain text from the file
_MANIFEST_NPY_HEADER_BYTES = (
    128  # of the manifest: the length of a one-dimensional array has too few digits to need more
)


class ByteReader(Protocol):
    """A stream of bytes, not necessarily from a file."""

    def read(self, size: int, /) -> Buffer: ...


@dataclass(frozen=True)
class _Member:
    """The layout of one array: predictable header bytes from `start` to `data_offset`, then the array to `end`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int

    @cached_property
    def file_name(self) -> bytes:
        return f"{self.name}.npy".encode("ascii")

    @cached_property
    def npy_header(self) -> bytes:
        text = f"{{'descr': '{self.dtype}', 'fortran_order': False, 'shape': {self.shape!r}, }}".encode("ascii")
        padding = -(10 + len(text) + 1) % ALIGNMENT
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + padding + 1) + text + b" " * padding + b"\n"

    @cached_property
    def extra(self) -> bytes:
        padding = -(self.start + _LOCAL_HEADER.size + len(self.file_name) + 6) % ALIGNMENT
        return struct.pack("<3H", _ALIGNMENT_RECORD, 2 + padding, ALIGNMENT) + bytes(padding)

    @cached_property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @cached_property
    def size(self) -> int:
        """Bytes of the ZIP member: .npy header and array."""
        return len(self.npy_header) + self.nbytes

    @cached_property
    def data_offset(self) -> int:
        return self.start + _LOCAL_HEADER.size + len(self.file_name) + len(self.extra) + len(self.npy_header)

    @cached_property
    def end(self) -> int:
        return self.data_offset + self.nbytes

    def crc(self, data: bytes | memoryview) -> int:
        return zlib.crc32(data, zlib.crc32(self.npy_header))

    def header(self, crc: int) -> bytes:
        """Return local header, name, extra field and .npy header: the bytes before the array."""
        name, extra = self.file_name, self.extra
        fixed = _LOCAL_HEADER.pack(
            b"PK\x03\x04", _ZIP_VERSION, 0, 0, 0, _ZIP_DATE, crc, self.size, self.size, len(name), len(extra)
        )
        return fixed + name + extra + self.npy_header

    def directory_entry(self, crc: int) -> bytes:
        """Return the entry in the central directory."""
        name = self.file_name
        fixed = (b"PK\x01\x02", _ZIP_VERSION, _ZIP_VERSION, 0, 0, 0, _ZIP_DATE, crc, self.size, self.size)
        return _DIRECTORY_ENTRY.pack(*fixed, len(name), 0, 0, 0, 0, 0, self.start) + name


def _layout_members(manifest_size: int, arrays: Mapping[str, Mapping[str, Any]]) -> list[_Member]:
    """Return the members of a file with a manifest of that size that lists those arrays."""
    members = [_Member(MANIFEST_MEMBER, "|u1", (manifest_size,), 0)]
    for name, array in sorted(arrays.items()):
        members.append(_Member(name, array["dtype"], tuple(array["shape"]), members[-1].end))
    return members


def _directory_bytes(members: Sequence[_Member], crcs: Sequence[int]) -> bytes:
    """Return central directory and end record: the bytes after the last array."""
    entries = b"".join(member.directory_entry(crc) for member, crc in zip(members, crcs, strict=True))
    count = len(members)
    return entries + _END_RECORD.pack(b"PK\x05\x06", 0, 0, count, count, len(entries), members[-1].end, 0)


def write(target: IO[bytes] | str | os.PathLike[str], model: Model) -> str:
    """Write `model` and return its digest. At a path the file appears complete or not at all.

    ArtifactError if `read` would reject the model.
    """
    if isinstance(target, (str, os.PathLike)):
        path = Path(target)
        with atomic_write(path) as file:
            return write(file, model)
    arrays, manifest = _arrays_and_manifest(model)
    text = manifests.to_bytes(manifest)
    try:
        _assemble_model(manifest, dict(arrays), "")
    except ValueError as e:
        raise ArtifactError(str(e)) from e
    members = _layout_members(len(text), manifest["arrays"])
    contents: list[bytes | memoryview] = [text, *(_byte_view(arrays[member.name]) for member in members[1:])]
    crcs = [member.crc(data) for member, data in zip(members, contents, strict=True)]
    directory = _directory_bytes(members, crcs) if members[-1].end <= MAX_FILE_BYTES else b""
    if not directory or members[-1].end + len(directory) > MAX_FILE_BYTES:
        raise ArtifactError(f"file: expected {MAX_FILE_BYTES} bytes at most, found a model of {members[-1].end}")
    for member, crc, data in zip(members, crcs, contents, strict=True):
        target.write(member.header(crc))
        target.write(data)
    target.write(directory)
    return hashlib.sha256(text).hexdigest()


def read(path: str | os.PathLike[str], *, verify: bool = True, mapped: bool = False) -> Model:
    """Return the model in the file at `path`, with read-only arrays.

    `verify` hashes every array and rejects numbers that are not finite; without it only the frame is checked. `mapped`
    maps the file in place of a copy, which is only safe for a file that nothing writes to, and marks it as in use
    (`utils/file_lock.py`) as long as an array exists.
    """
    with _as_artifact_error(os.fspath(path)), open_artifact(path, _MIN_FILE_BYTES, MAX_FILE_BYTES) as file:
        if not mapped:
            _check_frame(file)  # before memory is allocated for the copy
        content = file.map() if mapped else file.copy()
        frame = _check_frame(content)
        buffer = memoryview(content).toreadonly()
        arrays = {
            member.name: np.frombuffer(
                buffer, np.dtype(member.dtype), math.prod(member.shape), member.data_offset
            ).reshape(member.shape)
            for member in frame.members[1:]
        }
        if verify:
            for member, crc in zip(frame.members[1:], frame.crcs[1:], strict=True):
                _verify_array_data(member, arrays[member.name], crc, frame.manifest["arrays"][member.name]["sha256"])
        return _assemble_model(frame.manifest, arrays, frame.digest)


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest. The file's frame is checked; its arrays are not read."""
    return _read_frame(path).manifest


def read_manifest_and_digest(path: str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """Return the manifest and the digest of the same bytes, with the checks of `read_manifest`."""
    frame = _read_frame(path)
    return frame.manifest, frame.digest


def read_digest(path: str | os.PathLike[str]) -> str:
    """Return the digest, with the checks of `read_manifest`."""
    return _read_frame(path).digest


def read_claimed_digest(path: str | os.PathLike[str]) -> str:
    """Return the digest that a file claims: the hash of its manifest, which is neither parsed nor checked.

    It says which verified copy to use, or which digest the verified content must have.
    """
    with _as_artifact_error(os.fspath(path)), open_artifact(path, _MIN_FILE_BYTES, MAX_FILE_BYTES) as file:
        return hashlib.sha256(_manifest_bytes(file)).hexdigest()


def read_claimed_digest_from_stream(stream: ByteReader, location: str) -> str:
    """Return what `read_claimed_digest` does, from the first bytes of a remote file."""
    with _as_artifact_error(location):
        return hashlib.sha256(_manifest_bytes(_read_head(stream))).hexdigest()


def read_manifest_from_stream(stream: ByteReader, location: str) -> tuple[dict[str, Any], str]:
    """Return manifest and digest from the first bytes of a remote file. The rest of the file is not checked."""
    with _as_artifact_error(location):
        text = _manifest_bytes(_read_head(stream))
        return manifests.from_bytes(text), hashlib.sha256(text).hexdigest()


def _read_head(stream: ByteReader) -> bytes:
    """Return the first bytes of a remote file, up to the end of the manifest at least."""
    head = bytes(stream.read(_SIZE_OFFSET + 4))
    if len(head) < _SIZE_OFFSET + 4:
        raise ArtifactError(f"expected an artifact, found {len(head)} bytes")
    size = int.from_bytes(head[_SIZE_OFFSET:], "little")
    return head + bytes(stream.read(min(size, manifests.MAX_BYTES + _MANIFEST_NPY_HEADER_BYTES) + 2 * ALIGNMENT))


def _arrays_and_manifest(model: Model) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays in the file's form, and the manifest."""
    dtype = str(model.network.dtype)
    if dtype not in manifests.DTYPES:
        raise ArtifactError(f"dtype: expected one of {', '.join(manifests.DTYPES)}, found {dtype}")
    _check_layers(model.network)
    found = dict(model.network.arrays())
    for name, array in found.items():
        if array.dtype != dtype:
            raise ArtifactError(f"{name}: expected {dtype}, like the first array; found {array.dtype}")
    if model.golden is not None:
        found[GOLDEN_MEMBER] = model.golden.outputs
    if model.answers is not None:
        found |= model.answers.arrays()
    arrays = {name: np.ascontiguousarray(array, manifests.DTYPES[dtype]) for name, array in found.items()}
    for name, array in arrays.items():
        _check_finite(name, array)
    return arrays, {
        "format": manifests.FORMAT,
        "producer": manifests.PRODUCER,
        "description": model.description,
        "dtype": dtype,
        "layers": model.network.config(),
        "signature": model.signature.config(),
        "training": dict(model.training),
        "golden": None if model.golden is None else {"instances": model.golden.instances},
        **({} if model.answers is None else {"answers": model.answers.config()}),
        "arrays": {
            name: {
                "dtype": array.dtype.newbyteorder("<").str,
                "shape": list(array.shape),
                "sha256": hashlib.sha256(_byte_view(array)).hexdigest(),
            }
            for name, array in arrays.items()
        },
    }


def _check_layers(network: Sequential, location: str = "modules") -> None:
    """Raise ArtifactError for a layer of another class than those of the closed table."""
    for i, module in enumerate(network.modules):
        kind = type(module)
        if LAYERS.get(kind.__name__) is not kind:
            class_found = f"{kind.__qualname__} of {kind.__module__}"
            raise ArtifactError(f"{location}.{i}: expected one of {', '.join(LAYERS)}; found {class_found}")
        if isinstance(module, Average):
            for j, member in enumerate(module.members):
                _check_layers(member, f"{location}.{i}.members.{j}.modules")


def network_without_weights(manifest: Mapping[str, Any]) -> Sequential:
    """Build the manifest's network with zeros that take no memory. ValueError if its parts do not fit."""
    zero = np.zeros((), manifest["dtype"])
    arrays = {name: np.broadcast_to(zero, array["shape"]) for name, array in manifest["arrays"].items()}
    for name in (GOLDEN_MEMBER, *ANSWERS_MEMBERS):
        arrays.pop(name, None)
    return build(manifest["layers"], manifest["dtype"], arrays=arrays)


def _assemble_model(manifest: dict[str, Any], arrays: dict[str, Array], digest: str) -> Model:
    golden = None
    if manifest["golden"] is not None:
        golden = Golden(manifest["golden"]["instances"], arrays.pop(GOLDEN_MEMBER))
    known = {name: arrays.pop(name) for name in ANSWERS_MEMBERS if name in arrays}
    answers = Answers.read(manifest["answers"], known) if "answers" in manifest else None
    network = build(manifest["layers"], manifest["dtype"], arrays=arrays)
    signature = read_signature(manifest["signature"])
    training = signature.restore_label_order(manifest["training"])
    return Model(network, signature, manifest["description"], training, golden, digest, answers)


class _Frame(NamedTuple):
    """All of a file but its arrays: their layout, the CRCs of the members, the manifest and the digest."""

    members: list[_Member]
    crcs: list[int]
    manifest: dict[str, Any]
    digest: str


def _read_frame(path: str | os.PathLike[str]) -> _Frame:
    with _as_artifact_error(os.fspath(path)), open_artifact(path, _MIN_FILE_BYTES, MAX_FILE_BYTES) as file:
        return _check_frame(file)


def _check_frame(content: FileBytes) -> _Frame:
    text = _manifest_bytes(content)
    manifest = manifests.from_bytes(text)
    members = _layout_members(len(text), manifest["arrays"])
    return _Frame(members, _verify_zip_structure(content, members), manifest, hashlib.sha256(text).hexdigest())


@contextmanager
def _as_artifact_error(location: str) -> Iterator[None]:
    """Raise any error as an ArtifactError that names the location."""
    try:
        yield
    except OSError as e:
        raise ArtifactError(f"{location}: expected a readable file; {e.strerror or e}") from e
    except Exception as e:
        # A hostile file must not choose the exception that its reader sees, nor put control characters into a log.
        raise ArtifactError(f"{location}: {printable(str(e), max_length=_MAX_MESSAGE_CHARACTERS)}") from e


def _manifest_bytes(content: FileBytes) -> bytes:
    """Return the first member's array. Its length is the only one that the file itself must supply."""
    size = int.from_bytes(content[_SIZE_OFFSET : _SIZE_OFFSET + 4], "little")
    count = size - _MANIFEST_NPY_HEADER_BYTES
    if not 0 < count <= manifests.MAX_BYTES:
        raise ArtifactError(f"expected a manifest of 1 to {manifests.MAX_BYTES} bytes first, found {count}")
    member = _Member(MANIFEST_MEMBER, "|u1", (count,), 0)
    if member.end > len(content):
        raise ArtifactError(f"{MANIFEST_MEMBER}: expected {count} bytes, found the end of the file")
    text = content[member.data_offset : member.end]
    if content[: member.data_offset] != member.header(member.crc(text)):
        raise ArtifactError("expected an artifact, found another kind of file or a damaged one")
    return text


def _verify_zip_structure(content: FileBytes, members: Sequence[_Member]) -> list[int]:
    """Return the CRCs of the members, after comparing all bytes but manifest and arrays with what a writer writes."""
    if members[-1].end > len(content):
        raise ArtifactError(f"expected {members[-1].end} bytes and a directory, found a file of {len(content)}")
    crcs = [int.from_bytes(content[m.start + _CRC_OFFSET : m.start + _CRC_OFFSET + 4], "little") for m in members]
    for member, crc in zip(members, crcs, strict=True):
        if content[member.start : member.data_offset] != member.header(crc):
            raise ArtifactError(f"{member.name}: expected the header that follows from the manifest, found another")
    directory = _directory_bytes(members, crcs)
    if len(content) != members[-1].end + len(directory):
        raise ArtifactError(f"expected {members[-1].end + len(directory)} bytes, found {len(content)}")
    if content[members[-1].end :] != directory:
        raise ArtifactError("directory: expected the one that follows from the manifest, found another")
    return crcs


def _verify_array_data(member: _Member, array: Array, crc: int, sha256: str) -> None:
    if hashlib.sha256(_byte_view(array)).hexdigest() != sha256:
        raise ArtifactError(f"{member.name}: expected SHA-256 {sha256[:12]}..., found other bytes")
    if member.crc(_byte_view(array)) != crc:
        raise ArtifactError(f"{member.name}: expected the CRC-32 of its data, found another")
    _check_finite(member.name, array)


def _byte_view(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _check_finite(name: str, array: Array) -> None:
    """Raise ArtifactError unless all elements are finite. Minimum and maximum suffice, without a temporary array."""
    with np.errstate(invalid="ignore"):
        finite = array.size and np.isfinite(array.min()) and np.isfinite(array.max())
    if not finite:
        raise ArtifactError(f"{name}: expected finite numbers, found NaN, infinity or no elements")
