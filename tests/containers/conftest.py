"""A Docker engine for the tests of images: the running one, otherwise one that a script next to the checkout starts.

CONTAINER_ENGINE_SCRIPT names that script (default: ../shared/container-engine.sh, from the root of the project). It
is asked for `up`, for `base 3.11` where no image can be pulled, and for `env`, the variables of its engine. Without
either, these tests are skipped. An engine that was started keeps running, as engines do.
"""

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.containers.stack import Stack

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / os.environ.get("CONTAINER_ENGINE_SCRIPT", "../shared/container-engine.sh")).resolve()


def answers(environ: dict[str, str]) -> bool:
    """True if an engine with compose is reachable with these variables."""
    if not shutil.which("docker", path=environ.get("PATH")):
        return False
    asked = (["docker", "version"], ["docker", "compose", "version"])
    return all(subprocess.run(words, env=environ, capture_output=True, check=False).returncode == 0 for words in asked)


def started_by_script() -> dict[str, str]:
    for words in (["up"], ["base", "3.11"]):
        done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{SCRIPT.name} {words[0]} could not start a Docker engine: {done.stderr.strip()[-300:]}")
    printed = subprocess.run(
        ["bash", "-c", 'eval "$(bash "$0" env)" && env -0', SCRIPT], capture_output=True, text=True, check=True
    ).stdout
    return dict(pair.split("=", 1) for pair in printed.split("\0") if pair)


@pytest.fixture(scope="session")
def engine() -> dict[str, str]:
    """The environment in which `docker` reaches an engine."""
    here = dict(os.environ)
    if answers(here):
        return here
    if not SCRIPT.is_file():
        pytest.skip("no Docker engine answers, and there is no script beside the checkout that could start one")
    return started_by_script()


@contextmanager
def up(engine: dict[str, str], service: str) -> Iterator[Stack]:
    """The compose project, built and running under its own name and port, removed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    stack = Stack(ROOT, f"forward-pass-test-{uuid.uuid4().hex[:8]}", address, engine, service)
    try:
        try:
            stack.compose("up", "--build", "--wait", "--quiet-pull")
        except AssertionError as e:
            pytest.fail(f"{e}\n{stack.compose('logs', '--no-color')}")
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--rmi", "local", "--timeout", "5")


@pytest.fixture(scope="session")
def stack(engine: dict[str, str]) -> Iterator[Stack]:
    with up(engine, "service") as stack:
        yield stack


@pytest.fixture(scope="module")
def s3_stack(engine: dict[str, str]) -> Iterator[Stack]:
    """The project with the profile s3; requests go to the service over the bucket."""
    with up(engine, "service-s3") as stack:
        yield stack
