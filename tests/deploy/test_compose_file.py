"""Claims about docker-compose.yml that need no containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
CLIENTS = {"bucket": {"training-s3", "service-s3", "replica-1", "replica-2", "replica-3"}, "studies": {"sweep"}}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("server", CLIENTS)
def test_a_server_without_credentials_shares_a_network_with_its_clients_only(
    project: dict[str, Any], server: str
) -> None:
    services = project["services"]
    assert services[server]["networks"] == [server]
    assert "ports" not in services[server]
    assert project["networks"][server] == {"internal": True}
    members = {name for name, one in services.items() if server in one.get("networks", ["default"])}
    assert members == CLIENTS[server] | {server}
