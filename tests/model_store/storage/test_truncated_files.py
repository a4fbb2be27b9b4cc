"""A file that another process truncates while it is read is an error. A map of it would end the reader by SIGBUS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model_store.artifact import npz
from model_store.artifact.model import Model

# Runs an operation on the file; another process truncates the file at the given call of a function within it.
READER = """
import subprocess, sys
from pathlib import Path
from model_store.artifact import npz
from model_store.errors import ArtifactError
from model_store.registry.store import open_store
from model_store.storage.artifact_cache import cache_file

path, operation, function, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
inner, calls = getattr(npz, function), []

def truncating(*arguments):
    calls.append(1)
    if len(calls) == moment:
        subprocess.run([sys.executable, "-S", "-c", "import os, sys; os.truncate(sys.argv[1], 0)", path], check=True)
    return inner(*arguments)

setattr(npz, function, truncating)
try:
    {
        "read": lambda: npz.read(path),
        "read manifest": lambda: npz.read_manifest(path),
        "load from a store": lambda: open_store(path.parent.parent).load("chess"),
        "copy to the cache": lambda: cache_file(path, path.parent.parent.parent / "cache"),
    }[operation]()
    print("read")
except ArtifactError as e:
    print(e)
assert len(calls) >= moment
"""


@pytest.mark.parametrize("moment", ["_manifest_bytes 1", "_verify_zip_structure 1", "_verify_array_data 1"])
@pytest.mark.parametrize("operation", ["read", "read manifest", "load from a store", "copy to the cache"])
def test_truncation_by_another_process_is_an_error(operation: str, moment: str, tmp_path: Path, model: Model) -> None:
    function, call = moment.split()
    if function == "_verify_array_data" and operation == "read manifest":
        return  # it reads no array
    path = tmp_path / "models" / "chess" / "1.npz"
    path.parent.mkdir(parents=True)
    npz.write(path, model)
    command = [sys.executable, "-c", READER, path, operation, function, call]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, (found.returncode, found.stderr)
    if function == "_verify_array_data" or (operation, function) == ("copy to the cache", "_verify_zip_structure"):
        assert found.stdout == "read\n"  # from the verified copy
    else:
        assert str(path) in found.stdout
    assert path.stat().st_size == 0
