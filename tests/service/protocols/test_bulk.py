"""`models predict` on files of any size, with the store and with a service, in bounded memory."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.registry.store import Store
from tests.service.server.server_process import Server

pytestmark = pytest.mark.slow

# Runs the command and prints its own peak memory; the figure that a parent gets includes the parent's memory.
PROGRAM = """
import sys
from pathlib import Path
from model_store.cli.main import main
try:
    main(sys.argv[1:])
finally:
    status = Path("/proc/self/status").read_text()
    print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""
FEW, MANY = 10_000, 1_000_000
TOLERANCE_KIB = 8 * 1024  # the file has 7 MB; its rows as Python objects would take about 200 MB


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[Server]:
    server = Server(store, tmp_path, SERVE_WORKERS="1")
    yield server
    assert server.stop() == 0, server.log


def table(path: Path, count: int) -> Path:
    with path.open("w") as file:
        file.write("rooms,area\n")
        file.writelines(f"{i % 9},{50 + i % 40}\n" for i in range(count))
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read memory from")
@pytest.mark.parametrize("remote", [False, True])
def test_predicting_a_million_rows_needs_the_memory_of_ten_thousand(server, store, tmp_path, remote):
    where = ["--url", f"http://127.0.0.1:{server.port}"] if remote else ["--store", str(store.root)]
    peaks = []
    for count in (FEW, MANY):
        source, output = table(tmp_path / f"{count}.csv", count), tmp_path / f"answers-{count}.csv"
        command = [sys.executable, "-c", PROGRAM, "predict", "price", str(source), "--output", str(output), *where]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        peaks.append(int(done.stdout.split()[-1]))
        assert f"Wrote the predictions of price/1 for {count} rows" in done.stderr
    assert peaks[1] < peaks[0] + TOLERANCE_KIB
    few, many = ((tmp_path / f"answers-{count}.csv").read_text().splitlines() for count in (FEW, MANY))
    assert len(many) == MANY + 1
    assert many[: len(few)] == few
    _, model = store.load("price")
    assert [float(answer) for answer in many[-9:]] == model.predict(
        [[i % 9, 50 + i % 40] for i in range(MANY - 9, MANY)]
    )


def test_a_terminal_shows_a_progress_bar(store, tmp_path):
    source = table(tmp_path / "rows.csv", 60_000)
    command = [sys.executable, "-m", "model_store", "predict", "price", str(source)]
    command += ["--output", str(tmp_path / "answers.csv"), "--store", str(store.root)]
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=environ)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # Linux raises it when the other side has closed
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
    assert "rows.csv" in text
    assert re.search(r"\b100%", text)
    assert "Wrote the predictions of price/1 for 60000 rows" in text
