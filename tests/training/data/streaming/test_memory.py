"""Memory and disk: peak memory does not grow with the file, and a full disk is reported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
# The command with its own peak memory; a parent's figure for its child would include the parent's.
PROGRAM = """
import sys
from pathlib import Path
from training.cli.main import main
try:
    main(sys.argv[1:])
finally:
    status = Path("/proc/self/status").read_text()
    print("peak", next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""
FEW, MANY = 1_200_000, 4_000_000
HELD_OUT_ROWS = 20_000  # held-out rows of both, so that both keep the same number in memory
MAX_GROWTH_KIB = 48 * 1024  # the rows between them have 65 MB as records, and 120 MB as text


def job(path: Path, rows: int) -> Path:
    """Write a job on so many rows of CSV: the same ten thousand rows, repeated."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10_000, 2)).round(6)
    lines = "".join(f"{a},{b},{'ab'[a > b]}{'xyz'[i % 3]}\n" for i, (a, b) in enumerate(x.tolist()))
    with path.with_suffix(".csv").open("w") as file:
        file.write("first,second,kind\n")
        for _ in range(rows // 10_000):
            file.write(lines)
    path.write_text(
        f'[model]\nname = "m"\n[data]\npath = "{path.stem}.csv"\ntarget = "kind"\nstream = true\n'
        f"[split]\ntest = {HELD_OUT_ROWS / rows}\nvalidation = 0\n[network]\nlayers = [8, 'tanh']\n"
        "[train]\nepochs = 2\nbatch_size = 512\n"
    )
    return path


def trained(path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(path), "--no-publish", "--checkpoint-seconds", "0.5"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read memory from")
def test_peak_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    peaks = []
    for rows in (FEW, MANY):
        path = job(tmp_path / f"t{rows}.toml", rows)
        found = []
        for _ in range(2):  # pyarrow's read-ahead varies with the load of the machine
            done = trained(path)
            assert done.returncode == 0, done.stderr
            assert f"{rows:,} rows (" in done.stdout
            found.append(int(re.findall(r"^peak (\d+)$", done.stdout, re.MULTILINE)[0]))
        peaks.append(min(found))
    assert peaks[1] < peaks[0] + MAX_GROWTH_KIB
    assert peaks[1] < 600 * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read memory from")
@pytest.mark.parametrize("by", ["group", "time"])
def test_peak_memory_does_not_grow_with_different_texts(tmp_path: Path, by: str) -> None:
    """Each row has a text and a time of its own; 75,000 texts are more than memory keeps."""
    peaks = []
    for rows in (75_000, 300_000):
        path = tmp_path / f"t{rows}.toml"
        with path.with_suffix(".csv").open("w") as file:
            file.write("text,group,time,kind\n")
            for i in range(rows):
                file.write(f"{'the red rose of row ' * 8}{i * 7919 % rows},g{i % 500},{i},{'ab'[i % 3 == 0]}\n")
        column = {"group": "group", "time": "time"}[by]
        path.write_text(
            f'[model]\nname = "m"\n[data]\npath = "{path.stem}.csv"\ntarget = "kind"\n'
            'columns = ["text"]\nstream = true\n'
            f'[split]\nby = "{by}"\ncolumn = "{column}"\ntest = {2000 / rows}\nvalidation = 0\n'
            "[network]\nlayers = []\n[train]\nepochs = 1\nbatch_size = 512\n"
        )
        done = trained(path)
        assert done.returncode == 0, done.stderr
        peaks.append(int(re.findall(r"^peak (\d+)$", done.stdout, re.MULTILINE)[0]))
    assert peaks[1] < peaks[0] + MAX_GROWTH_KIB  # the rows between them have 38 MB as text, and 230 MB as features


def test_a_disk_too_small_for_the_rows_is_reported(tmp_path: Path, small_disk: Path) -> None:
    done = trained(job(tmp_path / "t.toml", 100_000), TMPDIR=str(small_disk))
    assert done.returncode == 3
    assert (
        f"cannot write its rows to {small_disk}: No space left on device (set TMPDIR to a directory with more space)"
        in done.stderr
    )
    assert not list(small_disk.iterdir())
