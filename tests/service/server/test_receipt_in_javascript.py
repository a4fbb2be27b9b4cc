"""A receipt of a running service is verified by examples/verify_receipt.mjs, a client that is not Python."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential
from model_store.registry.store import Store
from model_store.schema.signature import ClassificationOutput, NumberColumn, RegressionOutput, Signature
from tests.service.conftest import network
from tests.service.server.server_process import ROOT, Server

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")

EXTREMES = (1e21, 1e20, 5e-324, 2.0**53, 1e-7, 1e-6, 0.1, 123456789012345680000.0, -1.5e300)
LABELS: dict[str, tuple[Any, ...]] = {
    "words": ("Zürich", "\U0001f600", "\ufb33", "10", "9", 'a "quote" \\ \n', "__proto__", "\u2028\u007f"),
    "integers": (2**63 - 1, 2**53 + 1, -(2**53) - 1, 10, 9, 0),
}


def extremes() -> Model:
    """Each target has the value of EXTREMES, whatever the row; the last one is -0."""
    count = len(EXTREMES) + 1
    layer = Linear(1, count, rng=np.random.default_rng(0))
    layer.weights[:], layer.bias[:] = 0, 0
    layer.bias[-1] = -0.1
    names = tuple(f"t{i}" for i in range(count))
    output = RegressionOutput(names, (*EXTREMES, -0.0), (*[1.0] * len(EXTREMES), 5e-324))
    return Model(Sequential([layer]), Signature((NumberColumn("x"),), output))


def post(server: Server, path: str, body: bytes) -> bytes:
    """Return the body of a 200 response as it is on the wire."""
    url = f"http://127.0.0.1:{server.port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as response:
        answer: bytes = response.read()
    return answer


def verify(answer: bytes, body: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "answer.json").write_bytes(answer)
    (folder / "body").write_bytes(body)
    script = str(ROOT / "examples" / "verify_receipt.mjs")
    command = [str(NODE), script, str(folder / "answer.json"), str(folder / "body")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_javascript_verifies_receipts_of_a_running_service(
    store: Store, own_server: Callable[..., Server], tmp_path: Path
) -> None:
    for name, labels in LABELS.items():
        signature = Signature((NumberColumn("x"),), ClassificationOutput("kind", labels))
        store.publish(name, Model(network(1, len(labels), 0, softmax=True), signature))
    store.publish("extremes", extremes())
    server = own_server()
    for name in ("words", "integers", "extremes", "penguins"):
        row = b'["Dream", 4000, "MALE"]' if name == "penguins" else b"[1e21]" if name == "words" else b"[0.5]"
        body = b'{"instances": [%s, %s]}' % (row, row)
        answer = post(server, f"/models/{name}/predict?receipt=true", body)
        assert verify(answer, body, tmp_path).stdout.startswith("Verified: "), name
        if name != "extremes":
            assert (
                verify(post(server, f"/models/{name}/predict?receipt=true&top_k=2", body), body, tmp_path).returncode
                == 0
            )
        reformatted = json.dumps(json.loads(answer), indent=2, sort_keys=True).encode()  # as a program may store it
        assert verify(reformatted, body, tmp_path).returncode == 0
        assert "input_sha256" in verify(answer, body + b" ", tmp_path).stderr
        other = json.loads(answer)
        other["predictions"].append(other["predictions"][0])
        assert "predictions_sha256" in verify(json.dumps(other).encode(), body, tmp_path).stderr
    answer = post(server, "/models/extremes/predict", b'{"instances": [[1]]}')
    assert b"-0.0" in answer
    assert [*json.loads(answer)["predictions"][0].values()][:-1] == [*EXTREMES]
