"""Metadata and repository calls of the Open Inference Protocol as plain data, for HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from model_store.artifact.manifest import PRODUCER
from model_store.errors import Fault, InputError
from service.protocols import model_metadata as models
from service.protocols import tensors
from service.protocols.tensors import TensorSpec
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.registry.snapshot import Snapshot

PLATFORM, RELEASE = PRODUCER.split()


def server_metadata(extensions: Sequence[str], *, repository: bool) -> dict[str, Any]:
    """Return the server's name, release and extensions; `repository`: whether models can be loaded and unloaded."""
    return {
        "name": PLATFORM,
        "version": RELEASE,
        "extensions": [*extensions, "model_repository"] if repository else [*extensions],
    }


def model_metadata(snapshot: Snapshot, served: LoadedVersion) -> dict[str, Any]:
    """Return the numbers of all versions of a model, and the tensors of one."""
    return {
        "name": served.name,
        "versions": [str(number) for number in snapshot.entries[served.name].versions],
        "platform": PLATFORM,
        "inputs": [_tensor_metadata(tensor) for tensor in tensors.input_specs(served.model.signature)],
        "outputs": [_tensor_metadata(tensor) for tensor in tensors.output_specs(served.model)],
    }


def repository_index(registry: ModelRegistry, *, only_ready: bool) -> list[dict[str, str]]:
    """Return the state of each version that is or should be in memory."""
    snapshot = registry.snapshot
    return [
        {"name": name, "version": str(number), "state": "UNAVAILABLE" if reason else "READY", "reason": reason}
        for name in snapshot.entries
        for number, reason in models.version_states(registry, name, snapshot).items()
        if not (only_ready and reason)
    ]


def check_loads_no_file(parameters: Iterable[str]) -> None:
    """Raise InputError if a call that loads a model brings its files."""
    for key in parameters:
        if key.startswith("file:"):
            fix = "publish a version to the store; the service loads it"
            problem = "expected no file: models are loaded from the store"
            raise InputError([Fault(f"parameters.{key[:60]}", problem, fix)])


def _tensor_metadata(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
