"""A running compose project, and requests to it."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 60
PUBLISHED = {
    "service": "SERVE_PUBLISH",
    "service-s3": "SERVE_S3_PUBLISH",
    "service-grpc": "SERVE_GRPC_PUBLISH",
    "balancer": "REPLICAS_PUBLISH",
}
PROFILES = {"service-s3": "s3", "service-grpc": "grpc", "balancer": "replicas"}
OTHERS = ("EDGE_PUBLISH", "EDGE_MUTUAL_PUBLISH", "PROMETHEUS_PUBLISH", "GRAFANA_PUBLISH")


@dataclass(frozen=True)
class Stack:
    """Requests go to `service` at `address`, and its profile is started too."""

    root: Path
    name: str
    address: str
    environ: dict[str, str]
    service: str = "service"

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        free = "127.0.0.1:0"  # a free port
        published = dict.fromkeys([*OTHERS, *PUBLISHED.values()], free)
        environ = self.environ | published | {PUBLISHED[self.service]: self.address}
        done = subprocess.run(
            ["docker", *words], cwd=self.root, env=environ, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"docker {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done

    def compose(self, *words: str) -> str:
        return self.docker("compose", *self._project(), *words).stdout

    def inside(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the service's container."""
        return self.docker("compose", *self._project(), "exec", "-T", self.service, *words, check=check)

    def inspect(self) -> dict[str, Any]:
        container = self.compose("ps", "--all", "--quiet", self.service).strip()
        return json.loads(self.docker("inspect", container).stdout)[0]

    def _project(self) -> list[str]:
        profile = ["--profile", PROFILES[self.service]] if self.service in PROFILES else []
        return ["--project-name", self.name, *profile]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://{self.address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def eventually(claim: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Repeat until the condition holds."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.2)
