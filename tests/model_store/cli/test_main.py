"""What all commands of `models` share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from model_store.cli import main
from model_store.registry.store import Store


def test_every_command_has_the_common_options() -> None:
    for command in main.main.commands.values():
        flags = {flag for option in command.params for flag in option.opts}
        assert {"--json", "-v", "-q"} <= flags
        assert "--store" in flags or command.name == "keygen"


def test_python_m_model_store_is_models(models, store: Store) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "model_store", "list", "--json", "--store", str(store.root)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env=os.environ,
    )
    assert json.loads(result.stdout)[0]["name"] == "chess"
    assert result.stderr == ""
