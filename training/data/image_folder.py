"""Folders of images: a folder for each class, with PNG and JPEG files in it.

Every file is read once: the bytes that are decoded are those of the fingerprint.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_store.errors import Fault
from model_store.schema.columns.image_decoding import MissingPillowError, decode_image
from model_store.schema.columns.image_file import IMAGE_SUFFIXES, MAX_FILE_BYTES, ImageFileError, read_image_file
from model_store.utils.values import list_names
from training.available_memory import check_memory
from training.config.settings import ImageSection
from training.data.readers import Arrays, open_file
from training.errors import MAX_SHOWN_FAULTS, DataError

_IGNORED = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class ImageFolder:
    """Decoded images with their class names, the fingerprint of the files, and notes on them.

    `sha256` is that of the lines `<SHA-256 of a file>  <class>/<file>`, in the order of the rows, as sha256sum prints.
    """

    arrays: Arrays
    sha256: str
    notes: list[str]


def read_image_folder(path: Path, section: ImageSection) -> ImageFolder:
    """Read all images of a folder, ordered by class and file name. DataError lists those that cannot be decoded.

    A file that is a copy of an earlier one of its class is left out: both could be in different parts of a split.
    """
    files, notes = list_images(path)
    try:
        check_memory(len(files) * math.prod(section.shape))
    except MemoryError as error:
        problem = f"{len(files)} images of shape {section.shape} do not fit in memory: {error}"
        raise DataError(_name(path), [Fault("", problem, "lower data.image.size")]) from error
    pixels = np.empty((len(files), *section.shape), np.uint8)
    digest, classes, faults, total = hashlib.sha256(), list[str](), list[Fault](), 0
    seen: dict[bytes, list[str]] = {}
    copies = 0
    for file in files:
        label = file.parent.name
        try:
            content = read_file(file)
            found = hashlib.sha256(content)
            digest.update(f"{found.hexdigest()}  {label}/{file.name}\n".encode())
            others = seen.setdefault(found.digest(), [])
            if label in others:
                copies += 1
                continue
            pixels[len(classes)] = decode_image(read_image_file(content), section.shape, section.crop)
            others.append(label)
            classes.append(label)
        except MissingPillowError as error:
            raise DataError(_name(path), [Fault("", error.problem, error.fix)]) from error
        except ImageFileError as error:
            total += 1
            if len(faults) < MAX_SHOWN_FAULTS:
                faults.append(Fault(f"{label}/{file.name}", error.problem, error.fix))
    if faults:
        raise DataError(_name(path), faults, total)
    if copies:
        files_are = "1 file is a copy of another" if copies == 1 else f"{copies} files are copies of others"
        notes.append(f"{files_are} of the same class and left out")
    if ambiguous := sum(len(labels) > 1 for labels in seen.values()):
        images_are = "1 image is" if ambiguous == 1 else f"{ambiguous} images are"
        notes.append(f"{images_are} in several classes: remove the wrong copies")
    arrays = Arrays(_name(path), pixels[: len(classes)], np.array(classes, np.str_))
    return ImageFolder(arrays, digest.hexdigest(), notes)


def _name(path: Path) -> str:
    return f"{path.name or path}/"


def list_images(path: Path) -> tuple[list[Path], list[str]]:
    """Return the image files of all classes, in the order of their names, and notes on what is ignored."""
    if not path.is_dir():
        problem = "expected a folder of images, found a file" if path.exists() else "no such folder"
        fix = "name the folder that has a folder for each class; it is relative to the job file"
        raise DataError(_name(path), [Fault("", problem, fix)])
    try:
        folders = [entry for entry in _visible(path) if entry.is_dir()]
        entries = [entry for folder in folders for entry in _visible(folder)]
    except OSError as error:
        fault = Fault("", f"cannot be read: {error.strerror}", "name a folder that you may read")
        raise DataError(_name(path), [fault]) from error
    files = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        found = f"{len(folders)} folders without one" if folders else "no folder in it"
        problem = f"expected a folder for each class with files {', '.join(IMAGE_SUFFIXES)}; found {found}"
        raise DataError(_name(path), [Fault("", problem, "put the images of each class into a folder of its name")])
    others = [entry.name for entry in (*_visible(path), *entries) if entry not in {*folders, *files}]
    if not others:
        return files, []
    return files, [f"ignored, since they do not end in {', '.join(IMAGE_SUFFIXES)}: {list_names(others, 5)}"]


def _visible(folder: Path) -> Iterator[Path]:
    """Yield what a folder has, by name, without hidden files and those that file managers leave in it."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not entry.name.startswith(".") and entry.name.lower() not in _IGNORED:
            yield entry


def read_file(path: Path) -> bytes:
    """Return the bytes of a file. ImageFileError if it is no regular file that can be read, or too large."""
    try:
        with open_file(path) as file:
            content: bytes = file.read(MAX_FILE_BYTES + 1)  # one more: `read_image_file` rejects it
    except DataError as error:
        [fault] = error.faults
        raise ImageFileError(fault.problem, fault.fix) from error
    except OSError as error:
        raise ImageFileError(f"cannot be read: {error.strerror}", "copy the file again") from error
    return content
