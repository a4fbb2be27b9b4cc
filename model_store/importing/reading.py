"""The kinds of files that can be imported, by their suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_store.errors import ModelImportError
from model_store.importing.imported_model import ImportedModel

SUFFIXES = (".onnx", ".pt", ".pth", ".safetensors", ".keras", ".skops", ".joblib", ".pkl")


def read_model(
    path: Path, *, job: Path | None = None, shape: Sequence[int] | None = None, trust: bool = False
) -> ImportedModel:
    """Return the model in a file. ModelImportError if it cannot be one of ours, or if a package is missing.

    job: the job file with the layers of a file of weights, and `shape` that of its images. trust: True to read a
    pickle, which may run any code.
    """
    suffix = path.suffix.lower()
    if suffix in {".skops", ".joblib", ".pkl"}:
        from model_store.importing.sklearn.pipeline import read_sklearn  # noqa: PLC0415 - each kind needs other packages

        return read_sklearn(path, trust=trust)
    if suffix == ".onnx":
        from model_store.importing.onnx.graph import read_onnx  # noqa: PLC0415

        return read_onnx(path)
    if suffix == ".keras":
        from model_store.importing.keras_file import read_keras  # noqa: PLC0415

        return read_keras(path)
    if suffix in {".pt", ".pth", ".safetensors"}:
        from model_store.importing.pytorch_weights import read_pytorch  # noqa: PLC0415

        return read_pytorch(path, job, shape)
    raise ModelImportError(f"{path}: expected a file named {', '.join(SUFFIXES)}; found {suffix or 'no suffix'!r}")
