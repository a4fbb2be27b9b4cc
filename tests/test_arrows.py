"""The arrows of the house: training -> model_store <- service, and NumPy alone under model_store/nn."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("training", "model_store", "service")
REACHES = {"training": {"model_store"}, "model_store": set(), "service": {"model_store"}}


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, relative imports resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join((*above, *filter(None, [node.module])))


def top(name: str) -> str:
    return name.partition(".")[0]


def imported(folder: str) -> set[tuple[str, str]]:
    """(file, imported module) of a whole folder; empty would mean that the walk is broken."""
    found = {
        (str(path.relative_to(ROOT)), name) for path in sorted((ROOT / folder).rglob("*.py")) for name in imports(path)
    }
    assert found, folder
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_along_the_arrows(room):
    forbidden = set(ROOMS) - REACHES[room] - {room}
    assert [pair for pair in imported(room) if top(pair[1]) in forbidden] == []


def test_the_network_imports_only_numpy_and_itself():
    def welcome(name: str) -> bool:
        return top(name) in {"numpy", *sys.stdlib_module_names} or f"{name}.".startswith("model_store.nn.")

    assert [pair for pair in imported("model_store/nn") if not welcome(pair[1])] == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_the_tests(room):
    assert [pair for pair in imported(room) if top(pair[1]) in {"tests", "benchmarks"}] == []


def test_the_service_starts_without_what_it_seldom_needs():
    """Each costs time at every start, or memory in every process."""
    seldom = {"rich", "cryptography", "numpy.random", "obstore", "opentelemetry", "training"}
    code = f"import sys, service.cli, service.server.event_worker; print({seldom} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_relative_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "service" / "routes" / "predict.py"
    file.parent.mkdir(parents=True)
    file.write_text("from . import health\nfrom ...training import trainer\nimport numpy.linalg as la\n")
    assert list(imports(file)) == ["service.routes", "training", "numpy.linalg"]
