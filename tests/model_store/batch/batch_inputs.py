"""Inputs of batch jobs for the tests, the command in a process of its own, and what it wrote."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

ROOT = Path(__file__).parents[3]


def make_table(rows: int, seed: int = 0) -> Any:
    """Return rows of the model `chess`, some with a missing age."""
    rng = np.random.default_rng(seed)
    ages = pa.array(rng.normal(40, 12, rows).round(2), mask=rng.random(rows) < 0.1)
    return pa.table({"id": range(rows), "age": ages, "town": rng.choice(["Bath", "York"], rows)})


def write_files(folder: Path, files: int, groups: int, rows: int) -> Path:
    """Write Parquet files of `groups` row groups of `rows` rows each."""
    folder.mkdir()
    for i in range(files):
        parquet.write_table(make_table(groups * rows, i), folder / f"{i:03}.parquet", row_group_size=rows)
    return folder


def start(store: Path, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `models predict` on a store. Its cache and its log are in `folder`."""
    environ = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "DASK_TEMPORARY_DIRECTORY": str(folder)}
    command = [sys.executable, "-m", "model_store", "predict", *arguments, "--store", str(store)]
    with (folder / "predict.log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)


def part_digests(folder: Path) -> dict[str, str]:
    """Return the hash of each part in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("part-*"))}
