"""A service that requires keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from model_store.registry.store import Store
from service.security import api_keys
from tests.service.conftest import MakeClient
from tests.service.security.keys import KEY_OF, line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key for each scope."""
    path = tmp_path / "keys"
    path.write_text("# clients\n\n" + "".join(line(f"of-{scope}", scope, KEY_OF[scope]) for scope in api_keys.SCOPES))
    return path


@pytest.fixture
def guarded(store: Store, make_client: MakeClient, file: Path) -> FlaskClient:
    return make_client(store, keys_file=str(file), admin=True)
