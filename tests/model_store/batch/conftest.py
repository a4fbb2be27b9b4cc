"""The command `models` for tests of batch jobs, with a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model_store.cli.conftest import models

__all__ = ["models"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
