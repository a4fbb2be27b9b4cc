"""The Kubernetes example fits the service. No test runs it in a cluster."""

from __future__ import annotations

import re

import pytest
import yaml

from service.config import Settings, unknown_variables
from tests.service.server.server_process import ROOT

DEPLOYMENT, SERVICE = yaml.safe_load_all((ROOT / "examples" / "kubernetes.yaml").read_text(encoding="utf-8"))
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
VARIABLES = {each["name"]: each["value"] for each in CONTAINER["env"]}
PORTS = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}


def test_variables_are_settings_and_ports_match():
    assert unknown_variables(VARIABLES) == []
    settings = Settings.from_environ(VARIABLES)
    assert (settings.port, settings.admin_port) == (PORTS["http"], PORTS["admin"])
    assert [port["targetPort"] for port in SERVICE["spec"]["ports"]] == ["http"]


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_need_no_key(client, probe):
    probed = CONTAINER[probe]["httpGet"]
    assert probed["port"] == "http"
    assert client.get(probed["path"]).status_code == 200


def test_termination_grace_period_covers_pause_and_drain():
    pause = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] > pause + Settings.from_environ(VARIABLES).drain_seconds


def test_pod_is_as_hardened_as_the_compose_project():
    confined = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["service"]
    context = CONTAINER["securityContext"]
    assert context["readOnlyRootFilesystem"] == confined["read_only"]
    assert context["capabilities"]["drop"] == confined["cap_drop"]
    assert not context["allowPrivilegeEscalation"]
    assert POD["securityContext"]["runAsNonRoot"]
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in CONTAINER["volumeMounts"]}
    assert mounts == {"/models": True, "/tmp": False}  # noqa: S108


def test_every_setting_that_a_deployment_names_exists():
    """The chart named SERVE_API_KEYS_FILE, which is none: the service asked nobody for a key."""
    paths = [ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
    paths += [path for folder in ("deploy", "examples") for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in paths if path.suffix not in {".npz", ".csv"}]
    found = {name for text in texts for name in re.findall(r"\bSERVE_[A-Z0-9_]+\b", text)}
    of_compose = {name for name in found if name.endswith("_PUBLISH")}
    assert {"SERVE_KEYS_FILE", "SERVE_DRAIN_SECONDS"} <= found
    assert unknown_variables(dict.fromkeys(found - of_compose - {"SERVE_PUBLISH"}, "")) == []
