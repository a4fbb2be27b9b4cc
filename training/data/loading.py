"""Loading: the files of a job as a dataset in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from model_store.errors import Fault
from model_store.tables.formats import is_table
from training.config.settings import DataSection
from training.data import readers
from training.data.array_dataset import from_arrays
from training.data.dataset import Dataset
from training.data.fingerprint import Fingerprint
from training.data.image_folder import read_image_folder
from training.data.table_dataset import from_table
from training.data.tables import open_job_table, read_table
from training.errors import DataError


def load(
    section: DataSection,
    folder: Path,
    extra: Mapping[str, str] = MappingProxyType({}),
    labels: Sequence[str | int] | None = None,
    formats: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read the files of a job, relative to `folder`. DataError if one changes while it is read.

    extra: columns that are read besides inputs and targets, by the keys of the job that name them.
    labels: the known labels of a classification; by default those that the file has.
    formats: how the cells of columns are written; by default inferred.
    """
    if section.image is not None:
        folder_of_images = read_image_folder(folder / str(section.path), section.image)
        rows = from_arrays(
            folder_of_images.arrays, folder_of_images.sha256, replace(section, task="classification"), labels
        )
        return replace(rows, notes=rows.notes + folder_of_images.notes)
    names = (section.images, section.labels) if section.path is None else (section.path,)
    paths = [folder / str(name) for name in names]
    fingerprint = Fingerprint.of(*paths)
    if section.path is not None and is_table(section.path):
        table = read_table(open_job_table(paths[0], section))
        fingerprint.check_unchanged()
        return from_table(table, fingerprint.sha256, section, extra, labels, formats)
    arrays = readers.read_idx(*paths) if section.path is None else readers.read_npz(paths[0])
    fingerprint.check_unchanged()
    return from_arrays(arrays, fingerprint.sha256, section, labels)


def load_test_file(
    section: DataSection, folder: Path, path: str, training: Dataset, extra: Mapping[str, str] = MappingProxyType({})
) -> Dataset:
    """Read a file for testing, whose columns mean what they mean in the `training` file.

    DataError if it lacks a column, or has a class that no training row has.
    """
    own = replace(section, path=path, task=training.task)
    if "array" not in training.kinds.values():
        own = replace(own, columns=list(training.inputs), kinds=dict(training.kinds))
    found = load(own, folder, extra, training.labels or None, training.formats)
    wanted, other = (
        {name: values.shape[1:] for name, values in (*one.inputs.items(), ("y", one.targets))}
        for one in (training, found)
    )
    if wanted != other:
        name = next(name for name in wanted if wanted[name] != other.get(name))
        problem = f"expected rows of shape {wanted[name]}, as in {training.name}, found {other.get(name)}"
        raise DataError(found.name, [Fault(name, problem, "use arrays of the same shape")])
    return found
