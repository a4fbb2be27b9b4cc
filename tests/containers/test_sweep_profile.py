"""The profile sweep: four containers search in one study, one of them is killed, and one publishes the model."""

import json
import re
import uuid
from collections.abc import Iterator

import pytest

from tests.containers.conftest import ROOT
from tests.containers.stack import Stack, eventually

pytestmark = [pytest.mark.slow, pytest.mark.containers]

TRIALS = 20  # of examples/penguins-sweep.toml


@pytest.fixture(scope="module")
def project(engine: dict[str, str]) -> Iterator[Stack]:
    stack = Stack(ROOT, f"sweep-{uuid.uuid4().hex[:8]}", "127.0.0.1:0", engine)
    try:
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--rmi", "local", "--timeout", "5")


def containers(stack: Stack) -> list[dict]:
    found = stack.compose("--profile", "sweep", "ps", "--all", "--quiet", "sweep").split()
    return json.loads(stack.docker("inspect", *found).stdout) if found else []


def log(stack: Stack, container: dict) -> str:
    done = stack.docker("logs", container["Id"])
    return done.stdout + done.stderr


def test_four_containers_share_a_study_and_one_that_is_killed_is_replaced(project: Stack) -> None:
    project.compose("--profile", "sweep", "up", "--build", "--detach", "--quiet-pull", "--scale", "sweep=4", "sweep")
    started = containers(project)
    assert len(started) == 4
    eventually(lambda: any("trial 3/" in log(project, one) for one in started), 300)
    project.docker("kill", "--signal", "KILL", started[0]["Id"])  # not restarted: compose takes it as asked for
    eventually(lambda: not any(one["State"]["Running"] for one in containers(project)), 600)
    ended = {one["Id"]: one["State"]["ExitCode"] for one in containers(project)}
    logs = {one["Id"]: log(project, one) for one in started}
    assert ended.pop(started[0]["Id"]) == 137
    assert set(ended.values()) == {0}, logs
    numbers = [int(found) for text in logs.values() for found in re.findall(r"^trial (\d+)/20: ", text, re.MULTILINE)]
    assert sorted(numbers) == list(range(1, TRIALS + 1))
    published = [key for key, text in logs.items() if "Published penguins-sweep, version 1" in text]
    assert len(published) == 1
    assert all("Published before: penguins-sweep, version 1." in logs[key] for key in ended if key not in published)


def test_the_published_model_records_the_search(project: Stack) -> None:
    shown = project.compose(
        *("--profile", "sweep", "run", "--rm", "--no-deps", "-T", "sweep"),
        *("models", "show", "penguins-sweep", "--json"),
    )
    search = json.loads(shown)["manifest"]["training"]["search"]
    assert search["complete"] + search["pruned"] + search["failed"] == TRIALS
