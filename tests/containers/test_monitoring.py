"""The profile monitoring: Prometheus scrapes the service with `docker compose --profile monitoring up`."""

import json
import shutil
import urllib.parse
import urllib.request

import pytest
import yaml

from tests.containers.conftest import ROOT
from tests.containers.stack import eventually

pytestmark = [pytest.mark.slow, pytest.mark.containers]

IMAGE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["image"]
STAND_IN = """
FROM python:3.11-slim
COPY prometheus /bin/prometheus
RUN mkdir /prometheus && chown 65534:65534 /prometheus
USER 65534
ENTRYPOINT ["/bin/prometheus"]
"""


@pytest.fixture(scope="module")
def ask(stack, tmp_path_factory):
    """Run Prometheus from its official image, or Debian's program in a similar image if none can be pulled."""
    made = stack.docker("pull", "--quiet", IMAGE, check=False).returncode != 0
    if made:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip(f"{IMAGE} cannot be pulled, and Debian's package prometheus is not there to stand in for it")
        folder = tmp_path_factory.mktemp("prometheus")
        shutil.copy(program, folder / "prometheus")
        (folder / "Dockerfile").write_text(STAND_IN)
        stack.docker("build", "--quiet", "--tag", IMAGE, str(folder))
    try:
        stack.compose("--profile", "monitoring", "up", "--wait", "prometheus")
        port = stack.compose("--profile", "monitoring", "port", "prometheus", "9090").strip()

        def ask(query: str) -> list[dict]:
            address = f"http://{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]["result"]

        yield ask
    finally:
        stack.compose("--profile", "monitoring", "rm", "--stop", "--force", "--volumes", "prometheus")
        if made:
            stack.docker("image", "rm", IMAGE, check=False)


def test_prometheus_scrapes_the_service(ask, stack):
    stack.post("/predict", {"model": "xor", "instances": [[0, 1]]})
    eventually(lambda: [found["value"][1] for found in ask('up{job="forward-pass"}')] == ["1"])
    assert {found["metric"]["model"] for found in ask("forward_pass_model_info")} == {"digits", "penguins", "xor"}
    eventually(lambda: bool(ask('forward_pass_rows_total{model="xor"} > 0')))
    assert ask("ALERTS") == []
