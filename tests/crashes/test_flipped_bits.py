"""Every single-bit error of a published file is detected."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from model_store.cli import main
from model_store.errors import ArtifactError
from model_store.registry.store import open_store
from tests.crashes import operations
from tests.crashes.operations import NAME


@pytest.mark.slow
def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    operations.publish(store, 1)
    path = store.path(NAME, 1)
    path.chmod(0o644)
    content = path.read_bytes()
    undetected = []
    with path.open("r+b", buffering=0) as file:
        for bit in range(8 * len(content)):
            location, value = bit // 8, content[bit // 8]
            file.seek(location)
            file.write(bytes([value ^ 1 << bit % 8]))
            try:
                store.load(NAME, 1)
            except ArtifactError:
                pass
            else:
                undetected.append(bit)
            if bit % 997 == 0:  # running the command for each bit would take minutes
                assert CliRunner().invoke(main.main, ["verify", "--store", str(tmp_path)]).exit_code == 5
            file.seek(location)
            file.write(bytes([value]))
    assert undetected == []
    store.load(NAME, 1)[1].check_golden()
