"""The fixture `models`, which runs the command in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from model_store.cli import alias, main
from model_store.registry.store import Store


@pytest.fixture
def models(store: Store, make_model, monkeypatch):
    """Return a function that runs `models ...` on a store that holds chess 1, 2 and 3."""
    for seed in range(3):
        store.publish("chess", make_model(seed))
    monkeypatch.setattr(alias, "current_user", lambda: "ada")

    def run(*arguments: str, code: int = 0, text: str | None = None) -> Any:
        result = CliRunner().invoke(main.main, arguments, input=text, env={"MODEL_STORE": str(store.root)})
        assert result.exit_code == code, result.output
        return result

    return run


def read_json(result: Any) -> Any:
    return json.loads(result.stdout)
