"""schemathesis: requests made from the service's own OpenAPI document, right ones and wrong ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.registry.store import open_store
from tests.service.conftest import image, penguins, price
from tests.service.server.server_process import Server, free_port

pytest.importorskip("schemathesis", reason="the clients of others are installed by make test")

pytestmark = pytest.mark.slow

# Every check there is. Whatever fits the document is to be accepted where it is typed for a model; elsewhere only the
# models know which names and rows there are. An admin takes models out of service, which is then told by 503.
CONFIG = """
[checks]
enabled = true
positive_data_acceptance.enabled = false
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx"{unavailable}]

[[operations]]
include-path-regex = '^/models/(penguins|image|price)/predict$'
checks.positive_data_acceptance.expected-statuses = ["200", "404"]  # the body may name a version that is not there
checks.positive_data_acceptance.enabled = true
"""


@pytest.fixture(params=["false", "true"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, without the repository's addresses and with them."""
    store = open_store(tmp_path / "models")
    # A column of numbers takes whatever the network can hold, which no schema says of float32.
    models = {"penguins": penguins(dtype="float64"), "image": image(), "price": price(dtype="float64")}
    for name, model in models.items():
        store.publish(name, model)
    second = free_port()
    server = Server(store, tmp_path, SERVE_WORKERS="1", SERVE_ADMIN=request.param, SERVE_ADMIN_PORT=str(second))
    server.port = second  # where all of it is answered
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def test_the_service_keeps_to_its_own_document(own_server, tmp_path):
    admin = own_server.ask("POST", "/v2/repository/index")[0] == 200
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.replace("{unavailable}", ', "503"' if admin else ""))
    command = [
        *(Path(sys.executable).with_name("st"), "--config-file", str(config)),
        *("run", f"http://127.0.0.1:{own_server.port}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1"),
        *("--generation-database", "none"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    status, tried = own_server.ask("GET", "/models")
    assert (status, len(tried["models"])) == (200, 3)
