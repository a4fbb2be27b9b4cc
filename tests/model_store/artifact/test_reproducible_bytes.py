"""Artifacts are reproducible: every version of Python and NumPy writes the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from model_store.artifact import npz
from tests.model_store.fixed_model import fixed_model

ROOT = Path(__file__).parents[3]
PINNED = "0eece6a3"


def interpreter(expected: str) -> str:
    """Return a Python of that version, from the PATH or from pyenv."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*map(str, sorted(versions.glob(f"{expected}.*/bin/python"))), shutil.which(f"python{expected}")]
    for python in filter(None, found):
        result = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.startswith(f"Python {expected}."):
            return python
    pytest.skip(f"Python {expected} is not installed")


def write_fixed_model(python: str, packages: Path, *paths: Path) -> dict[str, Any]:
    environ = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}", "PYTHONNOUSERSITE": "1"}
    words = [python, str(ROOT / "tests" / "model_store" / "fixed_model.py"), *map(str, paths)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_fixed_model_has_the_pinned_bytes(tmp_path: Path) -> None:
    """The producer is left out: it contains the package's version."""
    npz.write(tmp_path / "model.npz", fixed_model())
    manifest = npz.read_manifest(tmp_path / "model.npz")
    assert manifest.pop("producer").startswith("forward-pass ")
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest().startswith(PINNED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "numpy"), [("3.11", "2.2.0"), ("3.12", "2.2.0"), ("3.12", "2.5.5"), ("3.13", "2.2.0"), ("3.13", "2.5.5")]
)
def test_every_python_and_numpy_write_the_same_bytes(python: str, numpy: str, tmp_path: Path) -> None:
    here = tmp_path / "here.npz"
    npz.write(here, fixed_model())
    expected = hashlib.sha256(here.read_bytes()).hexdigest()
    other, packages = interpreter(python), tmp_path / "packages"
    install = [other, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
    install += ["--target", str(packages), f"numpy=={numpy}", f"marshmallow=={version('marshmallow')}"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NumPy {numpy} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    found = write_fixed_model(other, packages, tmp_path / "there.npz", here)
    assert found["python"].startswith(f"{python}.")
    assert found["numpy"] == numpy
    assert found["sha256"] == [expected, expected]
    assert write_fixed_model(sys.executable, ROOT, tmp_path / "back.npz", tmp_path / "there.npz")["sha256"] == [
        expected,
        expected,
    ]
