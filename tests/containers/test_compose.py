"""The images and the compose project, built and run."""

import json
import shutil
import subprocess
import urllib.error

import pytest

from tests.containers.conftest import ROOT
from tests.containers.stack import Stack, eventually

pytestmark = [pytest.mark.slow, pytest.mark.containers]

PENGUIN = {
    "island": "Biscoe",
    "bill_length_mm": 46.5,
    "bill_depth_mm": 13.9,
    "flipper_length_mm": 212,
    "body_mass_g": 4700,
    "sex": "FEMALE",
}


def predict(stack: Stack, name: str, instances: list) -> dict:
    return stack.post("/predict", {"model": name, "instances": instances})


def test_the_three_examples_are_trained_and_served(stack):
    assert sorted(model["name"] for model in stack.get("/models")["models"]) == ["digits", "penguins", "xor"]
    answer = predict(stack, "penguins", [PENGUIN])
    assert (answer["model"], answer["predictions"][0]["label"]) == ("penguins", "Gentoo")
    assert len(predict(stack, "digits", [[[0] * 8] * 8] * 3)["predictions"]) == 3
    assert len(predict(stack, "xor", [[0, 1], [1, 1]])["predictions"]) == 2


def test_the_service_runs_as_a_user_without_capabilities(stack):
    status = dict(line.split(":\t", 1) for line in stack.inside("cat", "/proc/1/status").stdout.splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert {key: int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0,
    }  # fmt: skip
    assert status["NoNewPrivs"] == "1"
    # compose drops them: the image alone would have more.
    lax = stack.docker("run", "--rm", f"{stack.name}-service", "cat", "/proc/self/status").stdout
    assert "NoNewPrivs:\t0" in lax
    assert f"CapBnd:\t{'0' * 16}" not in lax


@pytest.mark.parametrize("folder", ["/", "/app", "/opt/venv", "/models", "/models/penguins"])
def test_the_service_can_write_neither_its_code_nor_the_store(stack, folder):
    answer = stack.inside("touch", f"{folder}/written", check=False)
    assert answer.returncode != 0
    assert "Read-only file system" in answer.stderr
    # root could, if nothing were read-only
    words = ["run", "--rm", "--user", "0", f"{stack.name}-service", "touch", f"{folder}/written"]
    assert folder == "/models/penguins" or stack.docker(*words).returncode == 0


def test_the_service_is_healthy_by_its_images_own_check(stack):
    eventually(lambda: stack.inspect()["State"]["Health"]["Status"] == "healthy")


def test_an_image_has_200_megabytes_at_most(stack):
    for service in ("service", "training"):
        asked = stack.docker("image", "inspect", f"{stack.name}-{service}", "--format", "{{.Size}}")
        assert int(asked.stdout) <= 200_000_000


def test_images_have_no_setuid_programs(stack):
    image = f"{stack.name}-service"
    find = ["find", "/", "-xdev", "-type", "f", "-perm", "/6000"]
    assert stack.docker("run", "--rm", "--user", "0", "--entrypoint", "", image, *find).stdout == ""
    assert "/usr/bin/su" in stack.docker("run", "--rm", "python:3.11-slim", *find).stdout.splitlines()


def test_the_package_list_of_an_image_matches_its_content(stack):
    listed = stack.inside("dpkg-query", "--show", "--showformat", "${Package}\n").stdout.split()
    assert {"libc6", "libssl3"} <= set(listed) or {"libc6", "libssl3t64"} <= set(listed)
    assert set(listed) & {"apt", "perl-base", "login", "passwd", "mount", "util-linux"} == set()


def test_container_logs_are_bounded(stack):
    kept = stack.inspect()["HostConfig"]["LogConfig"]["Config"]
    assert kept == {"max-size": "20m", "max-file": "3"}
    assert "loaded xor/1" in stack.compose("logs", "--no-color", "service")


@pytest.mark.parametrize("absent", ["training", "pip", "setuptools", "pytest"])
def test_the_service_image_has_no_training_code_and_no_package_manager(stack, absent):
    answer = stack.inside("python", "-c", f"import {absent}", check=False)
    assert f"No module named '{absent}'" in answer.stderr


def test_an_image_runs_with_the_arguments_of_a_hosted_platform(stack):
    for service, word in (("service", "serve"), ("service", "models"), ("training", "train"), ("training", "models")):
        image = f"{stack.name}-{service}"
        run = ["run", "--rm", "--network", "none", image]
        assert "Usage" in stack.docker(*run, word, "--help").stdout
        assert f"Usage: forward-pass {word}" in stack.docker(*run, "forward-pass", word, "--help").stdout


def test_forward_pass_says_which_image_trains(stack):
    answer = stack.inside("forward-pass", "train", "examples/xor.toml", check=False)
    assert answer.returncode == 2
    assert "expected the package 'training', which is not installed here; use the image for training" in answer.stderr


def test_an_image_runs_whatever_the_permissions_of_its_checkout(engine, tmp_path):
    """The checkout is as after `umask 077; git clone`."""
    for name in ("Dockerfile", ".dockerignore", "forward_pass.py"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("requirements", "model_store", "training", "service", "examples", "clients"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "mnist"))
    for path in tmp_path.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for target, words in {"service": ["serve", "--help"], "training": ["train", "check", "examples/xor.toml"]}.items():
        build = ["docker", "build", "--quiet", "--target", target, tmp_path]
        image = subprocess.run(build, env=engine, capture_output=True, text=True, check=True).stdout.strip()
        run = ["docker", "run", "--rm", image, *words]
        done = subprocess.run(run, env=engine, capture_output=True, text=True, check=False)
        subprocess.run(["docker", "rmi", "--force", image], env=engine, capture_output=True, check=True)
        assert done.returncode == 0, done.stderr


def test_the_job_leaves_published_examples_alone(stack):
    assert stack.compose("run", "--rm", "--no-deps", "-T", "training").splitlines() == [
        "xor: already published",
        "penguins: already published",
        "digits: already published",
    ]


def test_a_new_version_is_served_without_a_restart(stack):
    before = stack.inspect()["State"]
    first = predict(stack, "penguins", [PENGUIN])["version"]
    stack.compose("run", "--rm", "-T", "training", "train", "examples/penguins.toml")
    eventually(lambda: predict(stack, "penguins", [PENGUIN])["version"] == first + 1)
    assert stack.inspect()["State"]["StartedAt"] == before["StartedAt"]


def test_a_killed_service_is_started_again(stack):
    before = stack.inspect()
    # Kill from outside, as the kernel would: no handler runs. Process ids are those of the engine's host.
    kill = f"import os; os.kill({before['State']['Pid']}, 9)"
    image = f"{stack.name}-service"
    stack.docker("run", "--rm", "--pid", "host", "--user", "0", image, "python", "-c", kill)
    eventually(lambda: stack.inspect()["RestartCount"] == before["RestartCount"] + 1)

    def answering() -> bool:
        try:
            return predict(stack, "penguins", [PENGUIN])["predictions"][0]["label"] == "Gentoo"
        except (urllib.error.URLError, ConnectionError, json.JSONDecodeError):
            return False

    eventually(answering)
