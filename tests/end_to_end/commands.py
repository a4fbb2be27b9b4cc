"""What the end-to-end tests run: `train` and `serve` in processes of their own, and questions over HTTP."""

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
    words = [sys.executable, "-m", "training", f"examples/{name}.toml", "--store", store, "--quiet"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Served:
    store: Path
    address: str

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def predict(self, name: str, instances: list[Any]) -> list[Any]:
        return self.ask(f"/models/{name}/predict", {"instances": instances})["predictions"]
