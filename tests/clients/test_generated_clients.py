"""Clients that generators make of the service's OpenAPI document: without a warning, and they call the service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Server

pytestmark = pytest.mark.slow

TYPESCRIPT = Path(__file__).parent / "typescript"
ROW = {"island": "Biscoe", "mass": 4200.5, "sex": "MALE"}
PROGRAM = """
import json, sys
from generated_client import Client
from generated_client.api.general import get_model
from generated_client.api.models import predict_penguins
from generated_client.api.open_inference import post_v2_models_name_infer
from generated_client.api.tensorflow_serving import v1_price
from generated_client.models import PenguinsRequest, PriceV1Columns, V2InferRequest

client = Client(base_url=sys.argv[1])
row = {"island": "Biscoe", "mass": 4200.5, "sex": "MALE"}
answer = predict_penguins.sync(client=client, body=PenguinsRequest.from_dict({"instances": [row]}))
columns = PriceV1Columns.from_dict({"inputs": {"rooms": [3], "area": [80]}})
tensor = {"name": "instances", "shape": [1, 2], "datatype": "FP64", "data": [3, 80]}
inferred = post_v2_models_name_infer.sync("price", client=client, body=V2InferRequest.from_dict({"inputs": [tensor]}))
wrong = PenguinsRequest.from_dict({"instances": [["Biscoe", 4200.5]]})
refused = predict_penguins.sync_detailed(client=client, body=wrong)
prediction = answer.predictions[0]
print(json.dumps({
    "label": prediction.label,
    "probability": prediction.probabilities.gentoo,
    "columnar": v1_price.sync(client=client, body=columns).outputs,
    "inferred": inferred.outputs[0].data,
    "columns": [column.name for column in get_model.sync("penguins", client=client).inputs],
    "fix": refused.parsed.error.faults[0].fix,
}))
"""


def run(*words: object, folder: Path, **environ: str) -> str:
    """Return what a program prints; AssertionError with all of its output if it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*map(str, words)],
        cwd=folder,
        env={**os.environ, "PATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_document(server: Server, folder: Path) -> Path:
    path = folder / "openapi.json"
    path.write_text(json.dumps(server.ask("GET", "/openapi.json")[1]))
    return path


def expected(server: Server, fix: str) -> dict[str, Any]:
    (penguin,) = server.store.load("penguins")[1].predict([ROW])
    price = server.store.load("price")[1].predict([[3, 80]])
    return {
        "label": penguin["label"],
        "probability": penguin["probabilities"]["Gentoo"],
        "columnar": price,
        "inferred": price,
        "columns": ["island", "mass", "sex"],
        "fix": fix,
    }


def test_openapi_python_client_generates_a_client_that_works(server, tmp_path):
    pytest.importorskip("openapi_python_client", reason="generators of clients are installed by make clients")
    (tmp_path / "config.yaml").write_text("package_name_override: generated_client\n")
    written = write_document(server, tmp_path)
    output = run(
        *("openapi-python-client", "generate", "--fail-on-warning", "--meta", "none", "--path", written),
        *("--config", tmp_path / "config.yaml", "--output-path", tmp_path / "generated_client"),
        folder=tmp_path,
    )
    assert "arning" not in output
    url = f"http://127.0.0.1:{server.port}"
    answers = json.loads(run(sys.executable, "-c", PROGRAM, url, folder=tmp_path, PYTHONPATH=str(tmp_path)))
    assert answers == expected(server, "send them in this order: island, mass, sex")


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_openapi_typescript_generates_a_client_that_works(server, tmp_path):
    folder = shutil.copytree(TYPESCRIPT, tmp_path / "client")
    installed = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install the packages: {installed.stderr.strip()[-300:]}")
    tools = folder / "node_modules" / ".bin"
    output = run(
        tools / "openapi-typescript", write_document(server, tmp_path), "-o", folder / "schema.d.ts", folder=folder
    )
    assert "arning" not in output
    assert "⚠" not in output
    run(tools / "tsc", folder=folder)
    answers = json.loads(run("node", "client.js", f"http://127.0.0.1:{server.port}", folder=folder))
    assert answers == expected(server, "did you mean 'Biscoe'?")
