"""The Helm chart: Helm renders it, and what it renders fits the schemas of Kubernetes and the service.

Runs in an environment of its own, `make chart`, which has Helm as a library and no package of the project.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

helm = pytest.importorskip("helm_python", reason="run `make chart`")
import jsonschema  # noqa: E402
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402
from cloudcoil.models.keda.v1alpha1 import ScaledObject  # noqa: E402
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor  # noqa: E402

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
VERSIONS = ("1.31", "1.34", "1.37")
CUSTOM_KINDS = {
    "ServiceMonitor": ServiceMonitor,
    "ScaledObject": ScaledObject,
}  # from their definitions

BUCKET = {"store": {"url": "s3://models/forward-pass", "secret": "bucket"}}
EVERYTHING: dict[str, Any] = {
    **BUCKET,
    "image": {"tag": "1.2.3", "pullSecrets": ["registry"]},
    "service": {
        "keysSecret": "keys",
        "env": {"SERVE_POLL_SECONDS": 0.5, "SERVE_MAX_BODY_BYTES": 16777216},
        "annotations": {"team": "risk"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "sticky": True,
        "grpcPort": 8002,
    },
    "autoscaling": {"enabled": True, "requestsInProgress": 8},
    "networkPolicy": {
        "clients": [{"podSelector": {"matchLabels": {"app": "shop"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "keySecret": "metrics-key"},
    "training": {"job": "/jobs/a.toml", "files": {"a.toml": '[model]\nname = "a"\n'}, "arguments": ["--seed", "1"]},
    "sweep": {"job": "/jobs/a.toml", "storageSecret": "study"},
}
VALUES = {
    "defaults": {},
    "bucket": BUCKET,
    "everything": EVERYTHING,
    "cron": {"training": {"job": "/jobs/a.toml", "files": {"a.toml": ""}, "schedule": "0 3 * * *"}},
    "keda": {"keda": {"enabled": True}},
    "bare": {"disruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}},
}


def render(values: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    chart = helm.Chart.load(str(CHART))
    chart.validate_schema(chart.merge_values(values))
    rendered = chart.render(values, name="fp", namespace="models", **options)
    manifests = (text for path, text in sorted(rendered.items()) if path.endswith(".yaml"))
    return [each for each in chain.from_iterable(map(yaml.safe_load_all, manifests)) if each]


def find(manifests: list[dict[str, Any]], kind: str, name: str = "fp-forward-pass") -> dict[str, Any]:
    (found,) = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VALUES)
def test_manifests_fit_the_schemas_of_kubernetes(values: str, version: str) -> None:
    manifests = render(VALUES[values])
    checked = [each for each in manifests if each["kind"] not in CUSTOM_KINDS]
    assert len(checked) >= 3
    for each in checked:
        kubernetes_validate.validate(each, version, strict=True)


@cache
def custom_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of a custom resource, strict: a key that it does not have is an error."""
    schema: dict[str, Any] = CUSTOM_KINDS[kind].model_json_schema()
    for each in (schema, *schema["$defs"].values()):
        if "properties" in each:
            each["additionalProperties"] = False
    return schema


@pytest.mark.parametrize("values", ["everything", "keda"])
def test_custom_resources_fit_the_schemas_of_keda_and_the_prometheus_operator(values: str) -> None:
    custom = [each for each in render(VALUES[values]) if each["kind"] in CUSTOM_KINDS]
    assert len(custom) == 1
    jsonschema.validate(custom[0], custom_schema(custom[0]["kind"]))


@pytest.mark.parametrize(
    ("values", "kind", "spoil"),
    [
        ("everything", "ServiceMonitor", lambda spec: spec["endpoints"][0].update(intervall="1s")),
        ("everything", "ServiceMonitor", lambda spec: spec["endpoints"][0].update(interval="30 seconds")),
        ("everything", "ServiceMonitor", lambda spec: spec["endpoints"][0].update(port=8001)),
        ("everything", "ServiceMonitor", lambda spec: spec.pop("selector")),
        ("keda", "ScaledObject", lambda spec: spec.update(minReplicas=2)),
        ("keda", "ScaledObject", lambda spec: spec["scaleTargetRef"].pop("name")),
        ("keda", "ScaledObject", lambda spec: spec["triggers"][0]["metadata"].update(threshold=100)),
        ("keda", "ScaledObject", lambda spec: spec["triggers"][0].update(metricType=1)),
    ],
)
def test_a_spoilt_custom_resource_is_refused(values: str, kind: str, spoil: Callable[[dict[str, Any]], Any]) -> None:
    manifest = find(render(VALUES[values]), kind)
    spoil(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, custom_schema(kind))


@pytest.mark.parametrize("version", VERSIONS)
def test_other_manifests_fit_the_schemas_of_kubernetes(version: str) -> None:
    paths = [ROOT / "examples" / "kubernetes.yaml", *sorted((ROOT / "deploy").glob("*.yaml"))]
    for path in paths:
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            kubernetes_validate.validate(each, version, strict=True)


def test_helm_finds_no_fault() -> None:
    found = helm.lint(str(CHART))
    assert found["errors"] == []
    assert [each["error"] for each in found["messages"] if each["severity"] > 1] == []


def test_every_value_has_a_schema() -> None:
    """A misspelt value is an error, not ignored."""
    chart = helm.Chart.load(str(CHART))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"]
    for section, values in chart.values().items() if callable(chart.values) else chart.values.items():
        assert set(values) <= set(schema[section]["properties"]), section
    with pytest.raises(helm.HelmError, match="replica"):
        render({"service": {"replica": 3}})
    with pytest.raises(helm.HelmError, match="url"):
        render({"store": {"url": "http://bucket"}})


def test_two_autoscalers_are_refused() -> None:
    with pytest.raises(helm.HelmError, match="two controllers would set the replicas"):
        render({"autoscaling": {"enabled": True}, "keda": {"enabled": True}})


def test_a_sweep_needs_a_database() -> None:
    with pytest.raises(helm.HelmError, match="processes on several machines need a database"):
        render({"sweep": {"job": "/jobs/a.toml"}})


@pytest.mark.parametrize("values", VALUES)
def test_every_pod_is_confined(values: str) -> None:
    for each in render(VALUES[values]):
        spec = each.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is None:
            continue
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_pods_of_services_monitors_and_policies_are_those_of_the_deployment() -> None:
    manifests = render(EVERYTHING)
    deployment = find(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        find(manifests, "Service")["spec"]["selector"],
        find(manifests, "Service", "fp-forward-pass-metrics")["spec"]["selector"],
        find(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
    training = find(manifests, "Job", "fp-forward-pass-training-1")["spec"]["template"]["metadata"]["labels"]
    assert not any(selector.items() <= training.items() for selector in selectors)  # a job receives no requests
    monitored = find(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= find(manifests, "Service", "fp-forward-pass-metrics")["metadata"]["labels"].items()
    assert not monitored.items() <= find(manifests, "Service")["metadata"]["labels"].items()


def test_jobs_receive_nothing_and_reach_the_store_and_the_study() -> None:
    manifests = render({**EVERYTHING, "networkPolicy": {}})
    policy = find(manifests, "NetworkPolicy", "fp-forward-pass-jobs")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[53, 53], [443], [5432]]
    (components,) = policy["podSelector"]["matchExpressions"]
    jobs = [each for each in manifests if each["kind"] == "Job"]
    assert len(jobs) == 2
    for job in jobs:
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        assert labels["app.kubernetes.io/component"] in components["values"]
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    own = find(render({**EVERYTHING, "networkPolicy": {"jobEgress": [rule]}}), "NetworkPolicy", "fp-forward-pass-jobs")
    assert own["spec"]["egress"][1:] == [rule]
    assert [each["metadata"]["name"] for each in render({}) if each["kind"] == "NetworkPolicy"] == ["fp-forward-pass"]


def test_the_pause_and_the_drain_end_before_the_pod_is_killed() -> None:
    pod = find(render({"service": {"pauseSeconds": 7, "drainSeconds": 60}}), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "7"]
    assert {"name": "SERVE_DRAIN_SECONDS", "value": "60"} in container["env"]
    assert pod["terminationGracePeriodSeconds"] == 77


def test_keys_and_settings_reach_the_service() -> None:
    """A misspelt setting asked nobody for a key; a number of a million was 1.6777216e+07."""
    manifests = render(EVERYTHING)
    (container,) = find(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "keys"]
    assert variables["SERVE_KEYS_FILE"].startswith(mount["mountPath"] + "/")
    assert (variables["SERVE_POLL_SECONDS"], variables["SERVE_MAX_BODY_BYTES"]) == ("0.5", "16777216")
    (endpoint,) = find(manifests, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "metrics-key", "key": "key"}
    with pytest.raises(helm.HelmError, match="/metrics needs a key"):
        render({**EVERYTHING, "serviceMonitor": {"enabled": True}})
    with pytest.raises(helm.HelmError, match="everyone could read /metrics"):
        render({"networkPolicy": {"monitoring": None}})


def test_the_port_of_grpc_is_open_only_if_it_is_set() -> None:
    manifests = render(EVERYTHING)
    (container,) = find(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"name": "SERVE_GRPC_PORT", "value": "8002"} in container["env"]
    assert {"name": "grpc", "containerPort": 8002} in container["ports"]
    assert [each["name"] for each in find(manifests, "Service")["spec"]["ports"]] == ["http", "grpc"]
    assert find(manifests, "NetworkPolicy")["spec"]["ingress"][0]["ports"] == [{"port": "http"}, {"port": "grpc"}]
    plain = render({})
    (container,) = find(plain, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in container["ports"]] == ["http", "admin"]
    assert find(plain, "NetworkPolicy")["spec"]["ingress"][0]["ports"] == [{"port": "http"}]


def test_an_autoscaler_owns_the_number_of_replicas() -> None:
    assert find(render({}), "Deployment")["spec"]["replicas"] == 3
    for scaler in ("autoscaling", "keda"):
        assert "replicas" not in find(render({scaler: {"enabled": True}}), "Deployment")["spec"]
    metrics = find(render(EVERYTHING), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [each.get("pods", {}).get("metric", {}).get("name") for each in metrics] == [
        None,
        "forward_pass_requests_in_progress",
    ]


def test_a_volume_is_read_only_for_the_service_and_writable_for_jobs() -> None:
    manifests = render({"training": {"job": "/jobs/a.toml"}})

    def mounts(pod: dict[str, Any]) -> dict[str, bool]:
        return {each["mountPath"]: not each.get("readOnly", False) for each in pod["containers"][0]["volumeMounts"]}

    service = find(manifests, "Deployment")["spec"]["template"]["spec"]
    training = find(manifests, "Job", "fp-forward-pass-training-1")["spec"]["template"]["spec"]
    assert mounts(service) == {"/tmp": True, "/models": False}  # noqa: S108
    assert mounts(training) == {"/tmp": True, "/models": True}  # noqa: S108


def test_a_training_of_each_release_is_a_new_job() -> None:
    """A Job cannot be changed: an upgrade with the same name would fail."""
    values = {"training": {"job": "/jobs/a.toml", "files": {"a.toml": ""}}}
    assert find(render(values, revision=2, is_upgrade=True), "Job", "fp-forward-pass-training-2")
    job = find(render(values), "Job", "fp-forward-pass-training-1")["spec"]["template"]["spec"]["containers"][0]
    assert job["command"] == ["train", "/jobs/a.toml", "--checkpoint", "/tmp"]  # noqa: S108


def test_the_chart_has_the_version_of_the_project() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_kserve_runs_the_service() -> None:
    runtime = yaml.safe_load((ROOT / "deploy" / "kserve" / "serving-runtime.yaml").read_text(encoding="utf-8"))
    service = yaml.safe_load((ROOT / "deploy" / "kserve" / "inference-service.yaml").read_text(encoding="utf-8"))
    model, (container,) = service["spec"]["predictor"]["model"], runtime["spec"]["containers"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
    assert container["name"] == "kserve-container"
    assert {"name": "SERVE_PORT", "value": str(container["ports"][0]["containerPort"])} in container["env"]
