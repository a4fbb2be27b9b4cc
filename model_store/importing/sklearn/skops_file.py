"""Reading a skops file after a check of what its schema makes: skops itself has no limit of sizes.

The schema is a tree of nodes, each with the loader that makes an object of it. A node whose `__id__` an earlier one has
is that object again, so a few nodes could stand for a list of a billion: nodes of one id must have one size.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import ModelImportError
from model_store.importing.budget import FEATURE_VALUES, Budget, BudgetError, shape_values
from model_store.importing.files import max_unpacked, missing_package, open_zip, read_member
from model_store.utils.values import list_names

MAX_SCHEMA_BYTES = 4 << 20
# What loading makes of these has the size that it has in the file. Others, such as the loaders of random generators,
# trees and sparse matrices, make arrays of a size that one number names.
_LOADERS = {
    *("DefaultDictNode", "DictNode", "DTypeNode", "FunctionNode", "JsonNode", "ListNode", "NdArrayNode", "ObjectNode"),
    *("RandomStateNode", "SetNode", "SliceNode", "TupleNode", "TypeNode"),
}
_SIZED_BY_A_NUMBER = {"bytes_", "void"}  # NumPy makes as many bytes as a number says
# Parts of every fitted MLP that skops does not list: plain data without methods that loading calls.
_TRUSTED_TYPES = {
    "numpy.dtype",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
}


def load_skops(path: Path, data: bytes, budget: Budget) -> Any:
    """Return the object in a skops file. ModelImportError for other types than skops trusts, and for a costly file."""
    try:
        from skops import io  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing_package(path, "skops and scikit-learn", "sklearn") from error
    try:
        with open_zip(path, data) as archive:
            _Schema(path, archive, max_unpacked(len(data)), budget).check()
        needed = io.get_untrusted_types(data=data)
        untrusted = sorted(set(needed) - _TRUSTED_TYPES)
        if not untrusted:
            return io.loads(data, trusted=needed)
    except ModelImportError:
        raise
    except BudgetError as error:
        raise ModelImportError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file raises whatever its nodes do
        raise ModelImportError(f"{path}: expected a skops file that this version can read; {error}") from error
    fix = "import what scikit-learn has by itself"
    raise ModelImportError(f"{path}: expected types that skops trusts, found {list_names(untrusted, 5)}; {fix}")


class _Schema:
    """The schema of a file, and the cost of its nodes."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, limit: int, budget: Budget) -> None:
        self.path = path
        self.archive = archive
        self.limit = limit  # of the bytes that all nodes read
        self.budget = budget
        self.sizes = {member.filename: member.file_size for member in archive.infolist()}
        self.costs: dict[str, int] = {}  # of the members that are arrays
        self.by_id: dict[Any, tuple[Any, int, int]] = {}  # loader, values and bytes of each id

    def check(self) -> None:
        """Raise ModelImportError or BudgetError if loading may make more than a file of this size may have."""
        schema = json.loads(read_member(self.path, self.archive, "schema.json", MAX_SCHEMA_BYTES))
        _, found = self._measure(schema, in_objects=False)
        if found > self.limit:  # nodes may read one member again and again
            raise ModelImportError(f"{self.path}: expected nodes that read at most {self.limit} bytes, found {found}")

    def _measure(self, node: Any, *, in_objects: bool) -> tuple[int, int]:
        """Return the values and characters of a part of the schema, and the bytes of the members that it reads."""
        if isinstance(node, str):
            return 1 + len(node), 0
        if not isinstance(node, dict | list):
            return 1, 0
        loader = node.get("__loader__") if isinstance(node, dict) else None
        in_objects |= isinstance(node, dict) and loader == "NdArrayNode" and node.get("type") == "json"
        children = [child for key, child in node.items() if key != "file"] if isinstance(node, dict) else node
        measured = [self._measure(child, in_objects=in_objects) for child in children]
        size, read = 1 + sum(one for one, _ in measured), sum(one for _, one in measured)
        if isinstance(node, dict):
            if loader is not None and loader not in _LOADERS:
                found = f"found {loader!r} of {node.get('__class__')!r}"
                fix = "convert the pipeline to ONNX with skl2onnx"
                raise ModelImportError(f"{self.path}: expected data and plain estimators, {found}; {fix}")
            read += self._read(node, in_objects=in_objects)
            if "__id__" in node and self.by_id.setdefault(node["__id__"], (loader, size, read)) != (loader, size, read):
                raise ModelImportError(f"{self.path}: expected one object of each id, found others of {node['__id__']}")
        return size, read

    def _read(self, node: dict[str, Any], *, in_objects: bool) -> int:
        """Take the array that a node reads from the budget, and return its bytes."""
        name = node.get("file")
        if not isinstance(name, str) or name not in self.sizes:
            return 0
        if node.get("__class__") in _SIZED_BY_A_NUMBER:
            raise ModelImportError(f"{self.path}: {name}: expected numbers or texts, found {node['__class__']!r}")
        if name not in self.costs:
            self.costs[name] = self._array_cost(name)
        self.budget.spend(self.costs[name] * (FEATURE_VALUES if in_objects else 1))
        return self.sizes[name]

    def _array_cost(self, name: str) -> int:
        """Return the values of an array from its header, before it is read. ModelImportError if it is none."""
        try:
            with self.archive.open(name) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
        except Exception as error:  # of NumPy, zipfile and zlib
            raise ModelImportError(f"{self.path}: {name}: expected an array of NumPy; {error}") from error
        if (needed := shape_values(shape) * dtype.itemsize) > max(self.sizes[name], dtype.itemsize):
            found = f"found {self.sizes[name]} for shape {shape} of {dtype}"
            raise ModelImportError(f"{self.path}: {name}: expected {needed} bytes, {found}")
        return shape_values(shape) * (1 if dtype.kind in "biuf" else FEATURE_VALUES)
