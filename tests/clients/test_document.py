"""The program in docs/protocols.md, run against its example model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from model_store.registry.store import open_store
from tests.clients.conftest import Server

pytest.importorskip("tritonclient.http", reason="the clients of others are installed by make clients")
job = pytest.importorskip("training.pipeline.job")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_program_in_the_document_runs(tmp_path: Path) -> None:
    store = open_store(tmp_path / "models")
    job.run(job.load(ROOT / "examples" / "digits.toml", {"train.epochs": 1}), store)
    server = Server(store, tmp_path)
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    program, _over_grpc = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program.replace(":8000", f":{server.port}")], capture_output=True, text=True, check=False
    )
    assert server.stop() == 0
    assert re.fullmatch(r"\[\[\d\]\n \[\d\]\]\n", done.stdout), done.stderr
