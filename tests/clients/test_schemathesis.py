"""schemathesis: requests made from the service's own OpenAPI document, right ones and wrong ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.store import open_store
from tests.clients.conftest import Server
from tests.service.conftest import image, penguins, price

pytest.importorskip("schemathesis", reason="the clients of others are installed by make test")

pytestmark = pytest.mark.slow

# Not that whatever fits the document is accepted: which names and rows there are, only the models know.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
)


@pytest.fixture
def quiet_server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, whose models nobody unloads."""
    store = open_store(tmp_path / "models")
    for name, model in {"penguins": penguins(), "image": image(), "price": price()}.items():
        store.publish(name, model)
    server = Server(store, tmp_path, SERVE_WORKERS="1")
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def test_the_service_keeps_to_its_own_document(quiet_server, tmp_path):
    command = [
        *(Path(sys.executable).with_name("st"), "run", f"http://127.0.0.1:{quiet_server.port}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("--max-examples", "20", "--seed", "1", "--generation-database", "none"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
