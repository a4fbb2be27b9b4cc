"""schemathesis: valid and invalid requests generated from the service's OpenAPI document."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.registry.store import open_store
from tests.service.conftest import image, penguins, price
from tests.service.routes.test_explain import with_baseline
from tests.service.server.server_process import Server, free_port

pytest.importorskip("schemathesis", reason="the clients of others are installed by make clients")

pytestmark = pytest.mark.slow

# All checks are enabled. Data that match the document must be accepted only by the typed endpoints of each model; for
# others only the models define which names and rows are valid. With admin, models are unloaded, which gives 503, as
# the header X-Model-Version-At-Least does for a version that this replica lacks. Unknown headers are ignored.
CONFIG = """
[generation]
allow-extra-parameters = false

[checks]
enabled = true
positive_data_acceptance.enabled = false
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
# 413 says that a request has more rows than the schema's maxItems.
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "406", "413", "415", "422", "5xx"]

[[operations]]
include-path-regex = '^/models/(penguins|image|price)/predict$'
# The body may name a version that does not exist, or ask for explanations of more rows than are explained.
checks.positive_data_acceptance.expected-statuses = ["200", "404", "413", "503"]
checks.positive_data_acceptance.enabled = true
"""


@pytest.fixture(params=["false", "true"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Run a server for this test, without and with the repository API."""
    store = open_store(tmp_path / "models")
    # A number column accepts any number of the network's dtype; JSON Schema cannot express the range of float32.
    models = {"penguins": with_baseline(penguins(dtype="float64")), "image": image(), "price": price(dtype="float64")}
    for name, model in models.items():
        store.publish(name, model)
    second = free_port()
    server = Server(store, tmp_path, SERVE_WORKERS="1", SERVE_ADMIN=request.param, SERVE_ADMIN_PORT=str(second))
    server.port = second  # it serves all endpoints
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def test_the_service_conforms_to_its_openapi_document(own_server, tmp_path):
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [
        *(Path(sys.executable).with_name("st"), "--config-file", str(config)),
        *("run", f"http://127.0.0.1:{own_server.port}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1"),
        *("--generation-database", "none"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    unavailable = [line for line in own_server.log.splitlines() if re.search(r" 503 [\d.]+ms", line)]
    if own_server.ask("POST", "/v2/repository/index")[0] != 200:  # without admin nothing is unloaded
        assert all("error=older_version" in line for line in unavailable), unavailable
    status, tried = own_server.ask("GET", "/models")
    assert (status, len(tried["models"])) == (200, 3)
