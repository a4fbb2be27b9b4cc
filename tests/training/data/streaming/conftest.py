"""A table as a file, streamed in many small pieces."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from tests.training.streams import table
from training.data.streaming import record_file, source
from training.pipeline import streaming_loader


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make batches, chunks, blocks and pieces so small that a few thousand rows fill many of them."""
    monkeypatch.setattr(record_file, "CHUNK_ROWS", 32)
    monkeypatch.setattr(streaming_loader, "BLOCK_ROWS", 512)
    monkeypatch.setattr(streaming_loader, "PIECE_VALUES", 700)
    monkeypatch.setattr(source, "BATCH_BYTES", 1 << 14)
    monkeypatch.setattr(source, "BATCH_ROWS", 700)


@pytest.fixture(params=["csv", "parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The table as a CSV or a Parquet file."""
    found = tmp_path / f"t.{request.param}"
    (csv.write_csv if request.param == "csv" else parquet.write_table)(pa.table(table()), found)
    return found
