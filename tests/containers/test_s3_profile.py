"""The profile s3: models in a bucket, and a service that syncs with it and survives its loss."""

import json

import pytest

from tests.containers.stack import Stack, eventually

pytestmark = [pytest.mark.slow, pytest.mark.containers]

JOB = ("run", "--rm", "--no-deps", "-T", "training-s3")


def version(stack: Stack) -> int:
    return stack.post("/predict", {"model": "xor", "instances": [[0, 1]]})["version"]


def test_the_examples_are_published_in_the_bucket_and_served_from_there(s3_stack):
    assert sorted(model["name"] for model in s3_stack.get("/models")["models"]) == ["digits", "penguins", "xor"]
    assert version(s3_stack) == 1
    listed = json.loads(s3_stack.compose(*JOB, "models", "list", "--json"))
    assert {model["name"]: model["versions"] for model in listed} == {"digits": [1], "penguins": [1], "xor": [1]}


def test_the_other_service_has_its_own_models(s3_stack):
    found = s3_stack.compose("exec", "-T", "service", "models", "list", "--json")
    assert sorted(model["name"] for model in json.loads(found)) == ["digits", "penguins", "xor"]
    assert s3_stack.inside("sh", "-c", "ls /models 2>/dev/null || true").stdout == ""


def test_the_bucket_is_not_reachable_from_outside(s3_stack):
    bucket = s3_stack.compose("ps", "--quiet", "bucket").strip()
    assert json.loads(s3_stack.docker("inspect", bucket).stdout)[0]["HostConfig"]["PortBindings"] == {}


def test_a_version_published_into_the_bucket_is_served_without_a_restart(s3_stack):
    started, before = s3_stack.inspect()["State"]["StartedAt"], version(s3_stack)
    s3_stack.compose(*JOB, "train", "examples/xor.toml", "--quiet")
    eventually(lambda: version(s3_stack) == before + 1)
    assert s3_stack.inspect()["State"]["StartedAt"] == started


def test_the_service_serves_while_the_bucket_is_away_and_syncs_again(s3_stack):
    before = version(s3_stack)
    s3_stack.compose("kill", "bucket")
    eventually(lambda: s3_stack.get("/readyz")["status"] == "degraded")
    assert "cannot be read" in s3_stack.get("/readyz")["problems"][0]["problem"]
    assert version(s3_stack) == before
    s3_stack.compose("up", "--detach", "--wait", "bucket")
    eventually(lambda: s3_stack.get("/readyz")["status"] == "ready")
    s3_stack.compose(*JOB, "train", "examples/xor.toml", "--quiet")
    eventually(lambda: version(s3_stack) == before + 1)
