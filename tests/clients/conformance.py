"""Generate the conformance table from the tests: a row for each claim, a column for each client.

python -m tests.clients.conformance      # writes docs/open-inference-conformance.md
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
DOCUMENT = FOLDER.parents[1] / "docs" / "open-inference-conformance.md"
CLIENTS = {
    "test_triton.py": "tritonclient.http, sync and aio",
    "test_triton_grpc.py": "tritonclient.grpc, sync and aio",
    "test_kserve.py": "kserve InferenceRESTClient",
    "test_kserve_grpc.py": "kserve InferenceGRPCClient",
    "test_mlserver.py": "mlserver types and codecs",
}
_HEAD = """# Open Inference Protocol: conformance by client

Generated from the tests in `tests/clients` by `python -m tests.clients.conformance`. Each mark is a test that
`make clients` runs against a running service with the client that the project publishes. For MLServer these are the
types and codecs that its clients use.

"""


def table() -> str:
    claims: dict[str, set[str]] = {}
    for file in CLIENTS:
        for claim in _claims(FOLDER / file):
            claims.setdefault(claim, set()).add(file)
    lines = ["| claim | " + " | ".join(CLIENTS.values()) + " |", "|---|" + "---|" * len(CLIENTS)]
    for claim, proved in claims.items():
        lines.append("| " + " | ".join([claim, *("✓" if file in proved else "" for file in CLIENTS)]) + " |")
    return _HEAD + "\n".join(lines) + "\n"


def _claims(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            claims = ast.get_docstring(node)
            assert claims, f"{path.name}: {node.name} needs a docstring with a line for each claim that it tests"
            yield from claims.splitlines()


if __name__ == "__main__":
    DOCUMENT.write_text(table(), encoding="utf-8")
