"""A disk that records every write and flush, and can be restored as it is after a power cut at any of them.

A file of a FUSE file system, served by a thread of this process, backs a loop device. The kernel's file system on that
device writes to it and flushes it. Like a drive, the disk guarantees that data written before a flush survive a power
cut. Later writes may survive or not, sector by sector and in any order.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import shutil
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECTOR = 512
_LARGEST_WRITE = 1 << 20
_IN, _OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_TRANSFER = struct.Struct("<QQIIQII")  # of a read or a write: handle, offset, size, flags
_FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _RELEASE, _FSYNC, _FLUSH = 2, 3, 4, 14, 15, 16, 18, 20, 25
_INIT, _INTERRUPT = 26, 36
_libc = ctypes.CDLL(None, use_errno=True)


class RecordingDisk:
    """A disk with the initial content of `image`; `log` holds its writes as (offset, bytes), and None for a flush."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.size = image.stat().st_size
        self.log: list[tuple[int, bytes] | None] = []
        self._data = mmap.mmap(-1, self.size)
        for offset, chunk in _chunks(image):
            self._data[offset : offset + len(chunk)] = chunk

    def write_image_after_power_cut(self, log_length: int, to: Path, rng: random.Random | None) -> None:
        """Write the disk's image after a power cut at `log_length` entries of `log`.

        `rng` chooses which writes since the last flush survive; without it none do.
        """
        flushed = max((i for i in range(log_length) if self.log[i] is None), default=0)
        subprocess.run(["cp", "--sparse=always", self.image, to], check=True)
        with to.open("r+b") as file:
            for i, write in enumerate(self.log[:log_length]):
                if write is None:
                    continue
                offset, data = write
                fate = "all" if i < flushed else "none" if rng is None else rng.choice(["all", "none", "torn"])
                for start in range(0, len(data), SECTOR if fate == "torn" else len(data)):
                    if fate == "all" or (fate == "torn" and rng is not None and rng.random() < 0.5):
                        file.seek(offset + start)
                        file.write(data[start : start + SECTOR] if fate == "torn" else data)

    def serve(self, fuse: int) -> None:
        """Serve the kernel's requests until the file system is unmounted."""
        while True:
            try:
                request = os.read(fuse, _LARGEST_WRITE + 4096)
            except OSError as e:
                if e.errno == errno.ENODEV:
                    return
                if e.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:  # an interrupted request
                    continue
                raise
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode in {_FORGET, _INTERRUPT}:
                continue
            answer = self._answer(opcode, memoryview(request)[_IN.size :])
            error, body = (-answer, b"") if isinstance(answer, int) else (0, answer)
            os.write(fuse, _OUT.pack(_OUT.size + len(body), error, unique) + body)

    def _answer(self, opcode: int, body: memoryview) -> bytes | int:
        if opcode == _READ:
            _, offset, size, *_ = _TRANSFER.unpack_from(body)
            return self._data[offset : offset + size]
        if opcode == _WRITE:
            _, offset, size, *_ = _TRANSFER.unpack_from(body)
            data = bytes(body[_TRANSFER.size : _TRANSFER.size + size])
            self._data[offset : offset + size] = data
            self.log.append((offset, data))
            return struct.pack("<II", size, 0)
        if opcode == _FSYNC:
            self.log.append(None)
            return b""
        if opcode == _INIT:
            return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 16, 12, _LARGEST_WRITE, 1, 256, 0, *[0] * 8)
        if opcode in {_GETATTR, _SETATTR}:
            size = (self.size, self.size // SECTOR)
            return struct.pack(
                "<QII6Q10I", 60, 0, 0, 1, *size, 0, 0, 0, 0, 0, 0, stat.S_IFREG | 0o600, 1, *[0] * 3, 4096, 0
            )
        if opcode == _OPEN:
            return struct.pack("<QII", 0, 1, 0)  # 1: no caching
        return b"" if opcode in {_RELEASE, _FLUSH} else errno.ENOSYS


@contextmanager
def recording_disk(image: Path, folder: Path) -> Iterator[tuple[RecordingDisk, Path]]:
    """Yield a recording disk with the content of `image`, and its mounted file system."""
    disk, backing = RecordingDisk(image), folder / "backing"
    backing.touch()
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=100600,user_id=0,group_id=0".encode()
    server = threading.Thread(target=disk.serve, args=(fuse,))
    if _libc.mount(b"disk", os.fsencode(backing), b"fuse", 0, options) != 0:
        os.close(fuse)
        raise OSError(ctypes.get_errno(), "cannot mount a FUSE file")
    server.start()
    try:
        with mounted(backing, folder / "recorded") as point:
            yield disk, point
    finally:
        subprocess.run(["umount", backing], check=True)
        server.join()
        os.close(fuse)


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    """Mount the file system of an image, which replays its journal."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True, capture_output=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def make_image(kind: str, path: Path) -> None:
    """Create an empty file system, "ext4" or "xfs", of the smallest size."""
    with path.open("xb") as file:
        file.truncate({"ext4": 32 << 20, "xfs": 300 << 20}[kind])
    subprocess.run([f"mkfs.{kind}", "-q", path], check=True, capture_output=True)


def missing_requirement(kind: str) -> str:
    """Return what this machine lacks for a power cut test, or an empty string."""
    if os.geteuid() != 0:
        return "only root can mount"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"mkfs.{kind} is not on the PATH"
    lacking = [device for device in ("/dev/fuse", "/dev/loop-control") if not Path(device).exists()]
    return f"{lacking[0]} does not exist" if lacking else ""


def _chunks(image: Path) -> Iterator[tuple[int, bytes]]:
    empty = bytes(1 << 20)
    with image.open("rb") as file:
        offset = 0
        while chunk := file.read(1 << 20):
            if chunk != empty:
                yield offset, chunk
            offset += len(chunk)
