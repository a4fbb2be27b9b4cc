"""Helpers of the end-to-end tests: run `train` in a process of its own, and send requests to `serve`."""

import json
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLES = ("xor", "penguins", "digits")


def run_training(name: str, store: Path) -> None:
    command = [sys.executable, "-m", "training", f"examples/{name}.toml", "--store", store, "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class RunningService:
    store: Path
    base_url: str

    def request(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        http_request = urllib.request.Request(self.base_url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(http_request, timeout=30) as response:
            return json.load(response)

    def predict(self, name: str, instances: list[Any]) -> list[Any]:
        return self.request(f"/models/{name}/predict", {"instances": instances})["predictions"]
