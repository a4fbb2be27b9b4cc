"""The Kubernetes Job and the compose profile for shares of a job fit the command. No test runs them in a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.model_store.batch.batch_inputs import ROOT, part_digests, write_files

JOB, POLICY = yaml.safe_load_all((ROOT / "deploy" / "batch-job.yaml").read_text(encoding="utf-8"))
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def scored_in_shares(models, tmp_path: Path, commands: list[list[str]]) -> None:
    """Run the commands of all shares with other paths, and compare the output with that of one process."""
    inputs = write_files(tmp_path / "in", files=1, groups=10, rows=5)
    for words in commands:
        assert words[:2] == ["models", "predict"]
        assert words[4] == "--output"
        models("predict", "chess/2", f"{inputs}/*.parquet", "--output", f"{tmp_path}/shares/", *words[6:])
    models("predict", "chess/2", f"{inputs}/*.parquet", "--output", f"{tmp_path}/one/")
    assert (tmp_path / "shares" / "_SUCCESS").exists()
    assert part_digests(tmp_path / "shares") == part_digests(tmp_path / "one")


def test_the_pods_of_the_job_score_all_parts(models, tmp_path: Path) -> None:
    shares = JOB["spec"]["completions"]
    indexed = [
        [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in CONTAINER["args"]] for index in range(shares)
    ]
    scored_in_shares(models, tmp_path, indexed)


def test_the_pods_of_the_job_receive_nothing() -> None:
    assert POLICY["kind"] == "NetworkPolicy"
    assert POLICY["spec"]["podSelector"]["matchLabels"].items() <= JOB["spec"]["template"]["metadata"]["labels"].items()
    assert POLICY["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert POLICY["spec"]["ingress"] == []
    assert [port["port"] for rule in POLICY["spec"]["egress"] for port in rule["ports"]] == [53, 53, 443]


def test_the_services_of_the_compose_profile_score_all_parts(models, tmp_path: Path) -> None:
    commands = []
    for name in ("batch-0", "batch-1"):
        service = COMPOSE[name]
        environ = {key: str(value) for key, value in service["environment"].items()}
        words = service["command"][2].removeprefix("exec ").split()
        commands.append([environ.get(word.strip('"').removeprefix("$$"), word) for word in words])
    assert commands[0][5].removesuffix(":-/predictions/}") == "${BATCH_OUTPUT"
    scored_in_shares(models, tmp_path, commands)


def test_the_pods_are_as_hardened_as_the_compose_project() -> None:
    confined, context = COMPOSE["batch-0"], CONTAINER["securityContext"]
    assert context["readOnlyRootFilesystem"] == confined["read_only"]
    assert context["capabilities"]["drop"] == confined["cap_drop"]
    assert not context["allowPrivilegeEscalation"]
    assert POD["securityContext"]["runAsNonRoot"]


def test_a_retry_is_left_to_failures_that_may_pass(models, tmp_path: Path) -> None:
    """Invalid rows end a share with exit code 3, a usage error with 2; a storage that fails with 5 is tried again."""
    (rule, _) = JOB["spec"]["podFailurePolicy"]["rules"]
    assert POD["restartPolicy"] == "Never"  # a pod failure policy needs it
    assert rule["onExitCodes"]["containerName"] == CONTAINER["name"]
    assert rule["onExitCodes"]["values"] == [2, 3]
    (tmp_path / "rows.csv").write_text("age,town\nold,Bath\n")
    words = ("chess/2", f"{tmp_path}/rows.csv", "--output", f"{tmp_path}/out/")
    models("predict", *words, code=3)
    models("predict", *words, "--part", "8/8", code=2)


@pytest.mark.parametrize("name", ["batch-0", "batch-1"])
def test_the_services_of_the_profile_have_what_scoring_reads_and_writes(name: str) -> None:
    volumes = [volume.rsplit(":", 2) for volume in COMPOSE[name]["volumes"]]
    assert COMPOSE[name]["profiles"] == ["batch"]
    assert any(volume == ["models", "/models", "ro"] for volume in volumes)
    assert "predictions:/predictions" in COMPOSE[name]["volumes"]
    assert "FROM base AS batch" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
